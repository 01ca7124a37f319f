"""Several answers of one arm to one question: averaged before anything is compared, their spread kept."""

import math
from collections.abc import Sequence

from luthier.evaluate import statistics
from luthier.evaluate.answers import AnswerRecord

_AVERAGED = ("score", "prompt_tokens", "answer_tokens", "thought_tokens", "seconds")


def averaged(
    answers: Sequence[AnswerRecord],
) -> tuple[list[AnswerRecord], dict[str, statistics.Sampling]]:
    """The records with the samples of a question averaged into one, and for each arm that drew several, their spread.

    Samples are records of one arm and item that differ in `sample`. A question counts once, however often it was asked;
    an average is `cut` if any of its answers was.
    """
    by_question: dict[tuple[str, str], list[AnswerRecord]] = {}
    for record in answers:
        by_question.setdefault((record["arm"], record["item"]), []).append(record)
    merged: list[AnswerRecord] = []
    sampled: dict[str, list[list[AnswerRecord]]] = {}
    for (arm, _), records in by_question.items():
        samples = [record["sample"] for record in records if "sample" in record]
        if len(samples) == len(records) == len(set(samples)):
            sampled.setdefault(arm, []).append(records)
            records = [_average(records)]
        merged += records
    spreads = {
        arm: statistics.sampled(
            [[record["score"] for record in records] for records in questions],
            [records[0]["group"] for records in questions],
        )
        for arm, questions in sampled.items()
    }
    return merged, spreads


def _average(records: Sequence[AnswerRecord]) -> AnswerRecord:
    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

    numbers = {name: mean([record.get(name, 0) for record in records]) for name in _AVERAGED}
    scores = {name: mean([record["scores"][name] for record in records]) for name in records[0]["scores"]}
    finish = next((record["finish"] for record in records if record["finish"] != "stop"), "stop")
    return {**records[0], **numbers, "scores": scores, "finish": finish}
