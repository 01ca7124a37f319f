"""Calls of functions: is it the right function, and are its arguments right?

Answers and references hold calls in one form, whatever that of the model's chat template is: `luthier.chat.ToolCall.text`.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from luthier.evaluate.metrics.objects import field_accuracy
from luthier.evaluate.metrics.texts import exact_match, token_f1

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


def tool_call(answer: str, reference: str, *, tolerance: float = 0.0) -> float:
    """The share of calls that are right: of each, the share of its arguments, and nothing where the function is another.

    Arguments are compared like the fields of `field_accuracy`; the order of several calls does not count, a missing and a
    surplus one do. What cannot be read is no call. A reference that calls nothing is compared as text (`token_f1`), and an
    answer that calls then scores 0.
    """
    wanted, found = calls_in(reference), calls_in(answer)
    if not wanted:
        return 0.0 if found else token_f1(answer, reference)
    if not found:
        return 0.0
    scores = np.array([[_likeness(one, other, tolerance) for other in wanted] for one in found])
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return float(scores[rows, columns].sum()) / max(len(wanted), len(found))


def tool_name(answer: str, reference: str) -> float:
    """1 if the functions that are called are those of the reference, as often as there.

    A reference that calls nothing is compared as text (`exact_match`).
    """
    wanted = _names(reference)
    return float(_names(answer) == wanted) if wanted else exact_match(answer, reference)


def calls_in(text: str) -> list[tuple[str, str]]:
    """Names and arguments, as JSON, of the calls in a text; what is none is left out."""
    found = []
    for written in _CALL.findall(text):
        try:
            call: Any = json.loads(written)
        except (ValueError, RecursionError):
            continue
        if isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), dict):
            found.append((call["name"], _arguments(written)))
    return found


def are_calls(references: Sequence[str]) -> int:
    """How many of the reference answers call functions."""
    return sum(bool(calls_in(reference)) for reference in references)


def _arguments(written: str) -> str:
    """The arguments' own text: numbers stay as written, so that 1e400 and 1e500 differ."""
    decoder = json.JSONDecoder()
    for key in re.finditer(r'"arguments"\s*:\s*', written):
        value, end = decoder.raw_decode(written, key.end())
        if isinstance(value, dict):
            return written[key.end() : end]
    return "{}"


def _names(text: str) -> Counter[str]:
    return Counter(name for name, _ in calls_in(text))


def _likeness(call: tuple[str, str], other: tuple[str, str], tolerance: float) -> float:
    if call[0] != other[0]:
        return 0.0
    return field_accuracy(call[1], other[1], tolerance=tolerance)


def report(answers: Sequence[str], references: Sequence[str], *, tolerance: float = 0.0) -> dict[str, Any]:
    """Of the questions whose reference calls: answers with all calls right, with the right functions, and without any call."""
    pairs = [(answer, reference) for answer, reference in zip(answers, references, strict=True) if calls_in(reference)]
    others = len(references) - len(pairs)
    return {
        "n": len(pairs),
        "right": sum(tool_call(*pair, tolerance=tolerance) == 1 for pair in pairs),
        "right_functions": sum(tool_name(*pair) == 1 for pair in pairs),
        "no_call": sum(not calls_in(answer) for answer, _ in pairs),
        "others": others,
        "surplus": sum(
            bool(calls_in(answer))
            for answer, reference in zip(answers, references, strict=True)
            if not calls_in(reference)
        ),
    }
