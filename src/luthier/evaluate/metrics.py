"""How close an answer is to its reference: one number from 0 to 1, higher is better.

`METRICS` is the extension table: a word of the recipe, or a dotted "package.module:function" that reaches a user's own.
`choose_metric` picks from the references alone, never from answers, so that no arm can influence how it is judged.

Documents have no answer to compare. They are scored with `BITS_PER_BYTE`, stored as *negative* bits per byte, so that
higher is better for every score that the statistics see.
"""

import importlib
import json
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from sacrebleu.metrics.chrf import CHRF

from luthier.errors import Mistake, choose, unknown

Metric = Callable[[str, str], float]
"""(answer, reference) -> 0..1, higher is better."""

BITS_PER_BYTE = "bits_per_byte"

_ARTICLES = {"a", "an", "the"}
_LABEL_ENDINGS = string.whitespace + ".,;:!?…。"  # not every mark: "C#" and "C++" are labels of their own
_UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])")
_FENCED = re.compile(r"```[\w-]*\s*\n(.*?)\n?\s*```", re.DOTALL)
_CHRF = CHRF()


def exact_match(answer: str, reference: str) -> float:
    """1 if the two are the same text after Unicode NFC and without surrounding blanks."""
    return float(_text(answer) == _text(reference))


def accuracy(answer: str, reference: str) -> float:
    """1 if the answer is the label, whatever its case and closing punctuation.

    An answer that only contains the label ("It is refund, I think") is wrong: a program that reads it is lost too.
    """
    return float(_label(answer) == _label(reference))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the bag of words, as SQuAD counts it (Rajpurkar et al. 2016, 6.1).

    Case, punctuation and English articles do not count. Two empty texts agree, an empty and a full one share nothing.
    Scripts written without blanks (Chinese, Japanese, Thai, Lao, Burmese, Khmer) count each character as a word.
    """
    given, wanted = Counter(_words(answer)), Counter(_words(reference))
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


def chrf(answer: str, reference: str) -> float:
    """chrF2 / 100: F-score over character 1- to 6-grams, recall weighted twice (Popović 2015), by sacrebleu."""
    if not answer.strip() or not reference.strip():
        return float(answer.strip() == reference.strip())
    score: float = _CHRF.sentence_score(answer, [reference]).score
    return min(1.0, max(0.0, score / 100))


def json_valid(answer: str, reference: str) -> float:
    """1 if the whole answer, a ```json fence taken off, is one JSON object or array. The reference is not looked at."""
    fenced = _FENCED.fullmatch(answer.strip())
    try:
        value = _DECODER.decode(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return 0.0
    return float(isinstance(value, dict | list))


def field_accuracy(answer: str, reference: str) -> float:
    """The share of fields that are right, over the reference's fields and the answer's surplus ones.

    The answer's first JSON object counts, text or a fence around it does not; without one the score is 0. Objects in it
    are compared leaf by leaf, lists without regard to order, texts without case, numbers by value (1 is 1.0, not "1").
    A reference that is no JSON object is compared as text.
    """
    try:
        wanted = first_object(reference)
        if wanted is None:
            return exact_match(answer, reference)
        given = first_object(answer)
        if given is None:
            return 0.0
        expected, found = dict(_leaves(wanted)), dict(_leaves(given))
    except RecursionError:  # a model caught in a loop opens a thousand brackets
        return 0.0
    right = sum(path in found and found[path] == value for path, value in expected.items())
    fields = len(expected.keys() | found.keys())
    return right / fields if fields else 1.0


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "exact_match": exact_match,
    "field_accuracy": field_accuracy,
    "token_f1": token_f1,
    "chrf": chrf,
    "json_valid": json_valid,
}

ALSO = {
    "accuracy": ("exact_match",),
    "field_accuracy": ("json_valid", "exact_match"),
    "token_f1": ("chrf", "exact_match"),
}
"""What is shown beside a deciding metric."""

_BINARY = {"accuracy", "exact_match", "json_valid"}
_LABELS = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "field_accuracy": "field accuracy",
    "token_f1": "token F1",
    "chrf": "chrF",
    "json_valid": "valid JSON",
    BITS_PER_BYTE: "bits per byte",
}


def label(name: str) -> str:
    """The metric's name as people write it; a user's own metric by its function's name."""
    return _LABELS.get(name, name.rpartition(":")[2])


def binary(name_or_scores: str | Sequence[float]) -> bool:
    """Whether a metric of the table, or these very scores, can only be 0 or 1."""
    if isinstance(name_or_scores, str):
        return name_or_scores in _BINARY
    return all(score in (0, 1) for score in name_or_scores)


@dataclass(frozen=True)
class MetricChoice:
    """What decides, and why, in a few words."""

    name: str
    reason: str

    @property
    def also(self) -> tuple[str, ...]:
        """What is shown beside it."""
        return ALSO.get(self.name, ())


def choose_metric(references: Sequence[str], *, where: str | None = None) -> MetricChoice:
    """The metric that fits these reference answers: fields for JSON, accuracy for labels, token F1 for other text."""
    if not references:
        raise Mistake(
            "no reference answers to choose a metric from; the test split needs at least 2 questions.", where=where
        )
    objects = sum(_is_object(reference) for reference in references) / len(references)
    if objects >= 0.95:
        share = "every reference answer is" if objects == 1 else f"{objects:.0%} of the reference answers are"
        return MetricChoice("field_accuracy", f"{share} a JSON object")
    labels = {_label(reference) for reference in references}
    short = all(len(reference.split()) <= 4 and len(reference.strip()) <= 40 for reference in references)
    if short and len(labels) <= 20 and len(references) >= 5 * len(labels):
        count = f"{len(references)} reference answers use {_many(len(labels), 'short label')}"
        return MetricChoice("accuracy", f"the {count}")
    return MetricChoice("token_f1", "the reference answers are free text")


def resolve(name: str, *, where: str | None = "evaluate.metric") -> Metric:
    """The metric of that name, or a user's "package.module:function", which is then watched at every call."""
    if ":" not in name:
        return choose("metric", name, METRICS, where=where)
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        found = f'cannot import "{module_name}" for the metric "{name}": {type(error).__name__}: {error}.'
        next_step = "Check the spelling, and that the folder it lies in is on PYTHONPATH."
        raise Mistake(f"{found} {next_step}", where=where) from error
    members = vars(module)
    if function_name not in members:
        public = [member for member, value in members.items() if callable(value) and not member.startswith("_")]
        raise unknown(f"function of {module_name}", function_name, public, where=where)
    function = members[function_name]
    if not callable(function):
        raise Mistake(
            f'"{name}" is a {type(function).__name__}; a metric is a function (answer, reference).', where=where
        )
    return _watched(name, function)


def score(metrics: Mapping[str, Metric], answer: str, reference: str, *, place: str) -> dict[str, float]:
    """The answer's score by each metric; a metric that fails raises a Mistake that names `place`, the item's own."""
    try:
        return {name: metric(answer, reference) for name, metric in metrics.items()}
    except Mistake as mistake:
        raise Mistake(mistake.message, where=place) from mistake


def first_object(text: str) -> dict[str, object] | None:
    """The first JSON object in a text, or None. One that is cut off, or holds NaN or Infinity, is none."""
    start = text.find("{")
    while start >= 0:
        try:
            value, _ = _DECODER.raw_decode(text, start)
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


def _is_object(text: str) -> bool:
    try:
        return isinstance(_DECODER.decode(text), dict)
    except (ValueError, RecursionError):
        return False


def _leaves(value: Mapping[str, object], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Hashable]]:
    """Each field as (path, comparable value); an empty object is a value of its own."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, (*path, key))
        else:
            yield (*path, key), _comparable(inner)


def _comparable(value: object) -> Hashable:
    """A value in the form in which equal means right. The kind comes first, because in Python True == 1."""
    if isinstance(value, dict):
        return "object", frozenset((key, _comparable(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return "list", frozenset(Counter(map(_comparable, value)).items())
    if isinstance(value, str):
        return "text", _folded(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", value
    return "constant", str(value)


def _text(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", _text(text).casefold())


def _label(text: str) -> str:
    folded = _folded(text)
    return folded.rstrip(_LABEL_ENDINGS) or folded


def _words(text: str) -> list[str]:
    kept = (char for char in _folded(text) if char not in string.punctuation and unicodedata.category(char)[0] != "P")
    return [word for word in _UNSPACED.sub(r" \1 ", "".join(kept)).split() if word not in _ARTICLES]


def _watched(name: str, function: Callable[[str, str], object]) -> Metric:
    """A user's function, with everything but a number from 0 to 1 turned into a Mistake that shows the answer."""

    def metric(answer: str, reference: str) -> float:
        shown = f"for the answer {json.dumps(answer[:60], ensure_ascii=False)}"
        try:
            value = function(answer, reference)
        except Exception as error:
            raise Mistake(f'the metric "{name}" failed {shown}: {type(error).__name__}: {error}.') from error
        number = float(value) if isinstance(value, Real | np.bool_) else math.nan
        if not 0 <= number <= 1:  # NaN is neither
            raise Mistake(f'the metric "{name}" returned {value!r} {shown}; expected a number from 0 to 1.')
        return number

    return metric


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
