"""Several answers of one arm to one question: averaged before anything is compared, their spread kept."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.evaluate import statistics

Line = Mapping[str, Any]
_AVERAGED = ("score", "prompt_tokens", "answer_tokens", "thought_tokens", "seconds")


def averaged(
    answers: Sequence[Line],
) -> tuple[list[Line], dict[str, statistics.Sampling]]:
    """The lines with the samples of a question averaged into one, and for each arm that drew several, their spread.

    Samples are lines of one arm and item that differ in `sample`. A question counts once, however often it was asked;
    an average is `cut` if any of its answers was.
    """
    together: dict[tuple[str, str], list[Line]] = {}
    for line in answers:
        together.setdefault((line["arm"], line["item"]), []).append(line)
    merged: list[Line] = []
    drawn: dict[str, list[list[Line]]] = {}
    for (arm, _), lines in together.items():
        samples = [line["sample"] for line in lines if "sample" in line]
        if len(samples) == len(lines) == len(set(samples)):
            drawn.setdefault(arm, []).append(lines)
            lines = [_average(lines)]
        merged += lines
    spreads = {
        arm: statistics.sampled(
            [[line["score"] for line in lines] for lines in questions], [lines[0]["group"] for lines in questions]
        )
        for arm, questions in drawn.items()
    }
    return merged, spreads


def _average(lines: Sequence[Line]) -> Line:
    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

    numbers = {name: mean([line.get(name, 0) for line in lines]) for name in _AVERAGED}
    scores = {name: mean([line["scores"][name] for line in lines]) for name in lines[0]["scores"]}
    finish = next((line["finish"] for line in lines if line["finish"] != "stop"), "stop")
    return {**lines[0], **numbers, "scores": scores, "finish": finish}
