"""verdict.json from every arm's answers: which prompt is compared, every arm in numbers, the decision and its sentence.

Every score is higher-is-better, so a positive difference always means that fine-tuning helped. Bits per byte arrive as
negative scores and leave as positive means with `higher_is_better` false; the sign of the difference stays.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.errors import UserError, unknown
from luthier.evaluate import metrics, statistics
from luthier.evaluate.answers import AnswerRecord, matched_reference
from luthier.evaluate.answers.samples import averaged
from luthier.evaluate.metrics import BITS_PER_BYTE
from luthier.evaluate.prompts.arms import TUNED
from luthier.evaluate.verdict import secondary
from luthier.evaluate.verdict.decision import decide
from luthier.evaluate.verdict.wording import sentence
from luthier.model.generate import NO_ROOM
from luthier.model.replies import THINKING

_ANSWERS, _DEV_ANSWERS = "evaluation/answers.jsonl", "evaluation/dev-answers.jsonl"


def best_prompt_arm(dev_answers: Sequence[AnswerRecord]) -> tuple[str, dict[str, float]]:
    """The prompt arm with the highest mean score, and all their means; of equals the one with fewer prompt tokens."""
    arms = {arm: records for arm, records in by_arm(dev_answers).items() if arm != TUNED}
    if not arms:
        raise UserError("no prompt arm has answered; name at least one, such as zero-shot.", where="evaluate.arms")
    _same_items(arms, where=_DEV_ANSWERS)
    means = {arm: _mean(records, "score") for arm, records in arms.items()}
    best = min(arms, key=lambda arm: (-round(means[arm], 9), _mean(arms[arm], "prompt_tokens")))
    return best, means


def assemble(
    answers: Sequence[AnswerRecord],
    dev_answers: Sequence[AnswerRecord] = (),
    *,
    metric: str,
    metric_reason: str,
    alpha: float = 0.05,
    margin: float | None = None,
    settings: metrics.MetricSettings = metrics.DEFAULT_SETTINGS,
    seed: int,
) -> dict[str, Any]:
    """The whole of verdict.json from every arm's test answers and the prompt arms' dev answers.

    Without dev answers (documents have none) the opponent is the prompt arm that does best on the test split itself,
    which can only favour prompting; `chosen_on` says "test" then.
    """
    if TUNED not in by_arm(answers):
        raise unknown("arm", TUNED, by_arm(answers), where=_ANSWERS)
    _expect_finite((*answers, *dev_answers), metric)
    questions, sampling = averaged(answers)
    arms = by_arm(questions)
    _same_items(arms, where=_ANSWERS)
    best, dev_means = best_prompt_arm(averaged(dev_answers or answers)[0])
    if best not in arms:
        raise unknown("arm", best, arms, where=_ANSWERS)

    items, groups = zip(*((record["item"], record["group"]) for record in arms[TUNED]), strict=True)
    scores = {arm: _in_order(records, items) for arm, records in arms.items()}
    test_settings: dict[str, Any] = {"alpha": alpha, "margin": margin, "seed": seed}
    decision = decide(scores[TUNED], scores[best], groups, **test_settings)
    others = {arm: each for arm, each in scores.items() if arm not in (TUNED, best)}
    higher = metric != BITS_PER_BYTE
    summaries = {arm: _summary(records, higher, decision.confidence, seed) for arm, records in arms.items()}
    for arm, records in by_arm(answers).items():
        texts = (
            [(str(record["answer"]), matched_reference(record)) for record in records]
            if metrics.has_aggregate(metric)
            else []
        )
        summaries[arm] |= {"aggregates": metrics.aggregates(metric, texts, settings)}
        summaries[arm] |= {"sampling": sampling[arm].to_json()} if arm in sampling else {}
    means = {"tuned_mean": summaries[TUNED]["mean"], "prompt_mean": summaries[best]["mean"]}
    return {
        "verdict": decision.verdict,
        "sentence": sentence(decision, metric=metric, best_prompt_arm=best, **means),
        "metric": metric,
        "metric_reason": metric_reason,
        "higher_is_better": higher,
        "best_prompt_arm": best,
        "chosen_on": "dev" if dev_answers else "test",
        "dev_means": {arm: mean if higher else -mean for arm, mean in dev_means.items()} if dev_answers else {},
        **decision.to_json(),
        "secondary": secondary.comparisons(scores[TUNED], others, groups, **test_settings),
        "signatures": metrics.signatures(arms[TUNED][0]["scores"]),
        "arms": summaries,
    }


def by_arm(answers: Sequence[AnswerRecord]) -> dict[str, list[AnswerRecord]]:
    """The records of each arm, arms and records in the order in which they appear."""
    arms: dict[str, list[AnswerRecord]] = {}
    for record in answers:
        arms.setdefault(record["arm"], []).append(record)
    return arms


def _expect_finite(records: Sequence[AnswerRecord], metric: str) -> None:
    """Raises a UserError for the first score that is no finite number."""
    for record in records:
        if not math.isfinite(record["score"]):
            found = f'the metric "{metric}" gave {record["score"]} for the answer of the arm "{record["arm"]}"'
            raise UserError(f"{found}; expected a finite number. Check the metric.", where=record["place"])


def _in_order(records: Sequence[AnswerRecord], items: Sequence[str]) -> list[float]:
    """An arm's scores in the order of these items."""
    scores = {record["item"]: float(record["score"]) for record in records}
    return [scores[item] for item in items]


def _same_items(arms: Mapping[str, Sequence[AnswerRecord]], *, where: str) -> None:
    """Raises unless every arm has answered the same questions, each once."""
    locations = {record["item"]: record["place"] for records in arms.values() for record in records}
    for arm, records in arms.items():
        answered = {record["item"] for record in records}
        if len(answered) < len(records):
            found = f'the arm "{arm}" has {len(records)} answers to {len(answered)} questions'
            raise UserError(f"{found}; expected one each. Move the file away and run again.", where=where)
        if missing := [location for item, location in locations.items() if item not in answered]:
            found = f'the arm "{arm}" lacks {len(missing)} of {len(locations)} questions, the first is {missing[0]}'
            raise UserError(f"{found}; a paired comparison needs them all. Run again to ask the rest.", where=where)


def _summary(records: Sequence[AnswerRecord], higher: bool, confidence: float, seed: int) -> dict[str, Any]:
    """An arm in numbers: quality with its interval, and what an answer costs on average."""
    scores, groups = [float(record["score"]) for record in records], [record["group"] for record in records]
    mean = math.fsum(scores) / len(scores)
    low, high = statistics.mean_interval(scores, groups, confidence=confidence, seed=seed)
    means = {
        name: math.fsum(record["scores"][name] for record in records) / len(records) for name in records[0]["scores"]
    }
    if not higher:
        mean, low, high = -mean, -high, -low
        means = {name: -value if name == BITS_PER_BYTE else value for name, value in means.items()}
    return {
        "mean": mean,
        "interval": [low, high],
        "scores": means,
        "prompt_tokens": _mean(records, "prompt_tokens"),
        "answer_tokens": _mean(records, "answer_tokens"),
        "seconds": _mean(records, "seconds"),
        "thought_tokens": math.fsum(record.get("thought_tokens", 0) for record in records) / len(records),
        "cut": sum(record["finish"] == "length" for record in records),
        "no_room": sum(record["finish"] == NO_ROOM for record in records),
        "still_thinking": sum(record["finish"] == THINKING for record in records),
        "shots": _mean(records, "shots") if all("shots" in record for record in records) else None,
        "n": len(records),
    }


def _mean(records: Sequence[AnswerRecord], field: str) -> float:
    return math.fsum(record[field] for record in records) / len(records)
