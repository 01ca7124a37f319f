"""JSON answers: is it JSON, does it follow the schema, which fields are right? Three numbers, never merged into one."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import exceptions, validators
from scipy.optimize import linear_sum_assignment

from luthier.data.words import normalised
from luthier.errors import UserError
from luthier.evaluate.metrics.numeric import close
from luthier.evaluate.metrics.texts import exact_match

_FENCED = re.compile(r"```[\w-]*\s*\n(.*?)\n?\s*```", re.DOTALL)


def json_valid(answer: str, reference: str) -> float:
    """1 if the whole answer, without a ```json fence, is one JSON object or array. The reference does not matter."""
    return float(isinstance(_parse_answer(answer), dict | list))


def schema_valid(file: Path) -> Callable[[str, str], float]:
    """The metric that is 1 if the whole answer, without a ```json fence, is JSON that follows the schema in this file.

    The draft is the one that the schema's `$schema` names, else the newest; formats such as "date" are checked.
    Raises a UserError for a file that is not a JSON Schema.
    """
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("no such file; expected a JSON Schema.", where=f"evaluate.json_schema: {file}") from None
    except (OSError, ValueError) as error:
        message = f"not JSON: {error}. Expected a JSON Schema in UTF-8."
        raise UserError(message, where=f"evaluate.json_schema: {file}") from None
    if not isinstance(schema, dict):
        found = f"not a JSON Schema: found a {type(schema).__name__}, expected an object."
        raise UserError(f"{found} Correct the file, or leave the setting out.", where=f"evaluate.json_schema: {file}")
    kind = validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except exceptions.SchemaError as error:
        message = (
            f"not a JSON Schema: {error.message} (at {error.json_path}). Correct the schema, or leave the setting out."
        )
        raise UserError(message, where=f"evaluate.json_schema: {file}") from None
    validator = kind(schema, format_checker=kind.FORMAT_CHECKER)

    def metric(answer: str, reference: str) -> float:
        value = _parse_answer(answer)
        try:
            return float(value is not _NOTHING and validator.is_valid(value))
        except RecursionError:
            return 0.0

    return metric


def field_accuracy(answer: str, reference: str, *, tolerance: float = 0.0) -> float:
    """The share of fields that are right, over the reference's fields and the answer's surplus ones.

    The answer's first JSON object counts, whatever text or fence is around it; without one the score is 0. Objects in it
    are compared leaf by leaf, lists without regard to order, texts without case, numbers by value (1 is 1.0, not "1"),
    where they may differ by `tolerance` as a share of the reference's. A reference that is no JSON object is compared
    as text.
    """
    try:
        wanted = first_object(reference)
        if wanted is None:
            return exact_match(answer, reference)
        predicted = first_object(answer)
        if predicted is None:
            return 0.0
        expected, found = dict(_leaves(wanted)), dict(_leaves(predicted))
        right = sum(path in found and _same(found[path], value, tolerance) for path, value in expected.items())
    except RecursionError:  # a model caught in a loop opens a thousand brackets
        return 0.0
    fields = len(expected.keys() | found.keys())
    return right / fields if fields else 1.0


def report(answers: Sequence[str], references: Sequence[str], *, tolerance: float = 0.0) -> dict[str, Any]:
    """Precision, recall and F1 of each field and of all fields together.

    A list's elements count one by one, as a multiset: of ["a", "b", "b"] the answer ["b", "a"] finds two of three and
    adds nothing wrong. `missing` and `surplus` count answers without the field, and with one that was not asked for.
    References that are no JSON objects are left out; `unread` counts answers without a JSON object.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    compared = unread = 0
    for answer, reference in zip(answers, references, strict=True):
        wanted = first_object(reference)
        if wanted is None:
            continue
        compared += 1
        predicted = first_object(answer)
        unread += predicted is None
        expected, found = _fields(wanted), _fields(predicted or {})
        for path in expected.keys() | found.keys():
            right = _matches(found.get(path, []), expected.get(path, []), tolerance)
            counts[path] += Counter(
                right=right,
                predicted=len(found.get(path, [])),
                wanted=len(expected.get(path, [])),
                missing=int(path not in found),
                surplus=int(path not in expected),
            )
    overall = sum(counts.values(), Counter[str]())
    return {
        "n": compared,
        "unread": unread,
        **_rates(overall),
        "fields": [
            {"field": path, **_rates(each), "missing": each["missing"], "surplus": each["surplus"]}
            for path, each in sorted(counts.items())
        ],
    }


def _rates(counts: Mapping[str, int]) -> dict[str, float]:
    right, predicted, wanted = (counts.get(name, 0) for name in ("right", "predicted", "wanted"))
    return {
        "precision": right / predicted if predicted else float(not wanted),
        "recall": right / wanted if wanted else float(not predicted),
        "f1": 2 * right / (predicted + wanted) if predicted + wanted else 1.0,
    }


def _fields(value: Mapping[str, object]) -> dict[str, list[object]]:
    """Each field with its values: a list's elements, or the one value; an empty list is a value of its own."""
    try:
        leaves = dict(_leaves(value))
    except RecursionError:
        return {}
    return {
        ".".join(path): list(inner) if isinstance(inner, list) and inner else [inner] for path, inner in leaves.items()
    }


def first_object(text: str) -> dict[str, object] | None:
    """The first JSON object in a text, or None. Objects that are cut off, or hold NaN or Infinity, do not count."""
    start = text.find("{")
    while start >= 0:
        try:
            value, _ = _EXACT.raw_decode(text, start)
        except json.JSONDecodeError as error:
            # Go on behind what was understood: the parts of a broken object are not the object.
            start = text.find("{", max(start + 1, error.pos))
        except (ValueError, RecursionError):  # NaN, a number of 5,000 digits, a thousand open brackets
            return None
        else:
            return dict(value)
    return None


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
_EXACT = json.JSONDecoder(parse_constant=_refuse, parse_float=Decimal)  # a float would make 1e400 and 1e500 one number


def is_object(text: str) -> bool:
    """Whether the whole text is one JSON object."""
    try:
        return isinstance(_DECODER.decode(text), dict)
    except (ValueError, RecursionError):
        return False


_NOTHING = object()


def _parse_answer(answer: str) -> object:
    """The JSON value that the whole answer is, without a fence; _NOTHING where it is none."""
    fenced = _FENCED.fullmatch(answer.strip())
    try:
        value: object = _DECODER.decode(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return _NOTHING
    return value


def _leaves(value: Mapping[str, object], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Each field as (path, value); an empty object is a value of its own."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, (*path, key))
        else:
            yield (*path, key), inner


def _same(predicted: object, wanted: object, tolerance: float) -> bool:
    """Whether two JSON values are the same but for case, the order of lists and the tolerance of numbers."""
    if tolerance == 0:
        return _comparable(predicted) == _comparable(wanted)
    if isinstance(predicted, dict) and isinstance(wanted, dict):
        return predicted.keys() == wanted.keys() and all(
            _same(predicted[key], wanted[key], tolerance) for key in wanted
        )
    if isinstance(predicted, list) and isinstance(wanted, list):
        return len(predicted) == len(wanted) == _matches(predicted, wanted, tolerance)
    if _is_number(predicted) and _is_number(wanted):
        first, second = Decimal(str(predicted)), Decimal(str(wanted))
        if max(abs(first.adjusted()), abs(second.adjusted())) < 400:  # beyond, a share of them would fill the memory
            return close(first, second, tolerance)
    return _comparable(predicted) == _comparable(wanted)


def _matches(predicted: Sequence[object], wanted: Sequence[object], tolerance: float) -> int:
    """How many elements of two multisets can be paired with a same one, each once."""
    if tolerance == 0:
        return (Counter(map(_comparable, predicted)) & Counter(map(_comparable, wanted))).total()
    alike = np.array([[_same(one, other, tolerance) for other in wanted] for one in predicted], dtype=np.int64)
    if not alike.size:
        return 0
    rows, columns = linear_sum_assignment(alike, maximize=True)
    return int(alike[rows, columns].sum())


def _comparable(value: object) -> Hashable:
    """A value such that equal means right. The kind comes first, because in Python True == 1."""
    if isinstance(value, dict):
        return "object", frozenset((key, _comparable(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return "list", frozenset(Counter(map(_comparable, value)).items())
    if isinstance(value, str):
        return "text", normalised(value).strip()
    if _is_number(value):
        return "number", value
    return "constant", str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)
