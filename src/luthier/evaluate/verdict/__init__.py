"""From scores to one word that holds: BETTER, WORSE, EQUIVALENT or NOT SHOWN.

One comparison is planned and made: the fine-tuned model against the prompt that was best on the dev split, on the same
questions. Two ways of looking must agree before anything is claimed: the p-value of the paired test and the interval of
the difference. What is not shown is never called equal; the sentence says how large an effect could have hidden.

Every score is higher-is-better, so a positive difference always means that fine-tuning helped. Bits per byte arrive as
negative scores and leave as positive means with `higher_is_better` false; the sign of the difference stays.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.errors import UserError, unknown
from luthier.evaluate import metrics, statistics
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.samples import averaged
from luthier.evaluate.metrics import BITS_PER_BYTE, label
from luthier.evaluate.verdict import secondary
from luthier.evaluate.verdict.decision import DEFAULT_MARGIN, Decision, Word, decide
from luthier.model.generate import NO_ROOM
from luthier.model.replies import THINKING

__all__ = ["DEFAULT_MARGIN", "Decision", "Word", "assemble", "best_prompt_arm", "by_arm", "decide", "sentence"]

TUNED_ARM = "fine-tuned"
SMALL_TEST = 100  # questions; below this even large effects stay hidden, and the sentence says so
FEW_GROUPS = 20  # below this an interval over groups is rough
MANY = 1_000_000  # questions; more than anybody will write, so the number does not matter
_ANSWERS, _DEV_ANSWERS = "evaluation/answers.jsonl", "evaluation/dev-answers.jsonl"


def sentence(decision: Decision, *, metric: str, best_prompt_arm: str, tuned_mean: float, prompt_mean: float) -> str:
    """The verdict in plain English: numbers in points (hundredths of the score), bits per byte as they are.

    The means are given as verdict.json reports them, bits per byte positive.
    """
    higher = metric != BITS_PER_BYTE
    scale = _Scale(points=higher)
    against = f"the best prompt ({best_prompt_arm})"
    margin, low, high = scale.size(decision.margin), *map(scale.signed, decision.interval)
    claim = {
        "BETTER": f"Fine-tuning is BETTER than {against}",
        "WORSE": f"Fine-tuning is WORSE than {against}",
        "EQUIVALENT": f"Fine-tuning is EQUIVALENT to {against} within ±{margin}",
        "NOT SHOWN": f"That fine-tuning is better or worse than {against} is NOT SHOWN",
    }[decision.verdict]
    direction = "" if higher else ", lower is better"
    means = f"{label(metric)} {scale.mean(tuned_mean)} vs {scale.mean(prompt_mean)}{direction}"
    gain = f"{scale.change(decision.difference)} [{_percent(decision.confidence)} CI {low}, {high}]"
    return " ".join(
        [
            f"{claim}: {means}, {gain}, {statistics.p_in_words(decision.p_value)}, {_size(decision, higher)}.",
            *_remarks(decision, scale),
        ]
    )


@dataclass(frozen=True)
class _Scale:
    """How differences of a metric are written: +8.1 points, or a gain of +0.29."""

    points: bool

    def mean(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.points else f"{value:.2f}"

    def signed(self, value: float, sign: str = "+") -> str:
        """With its sign, and more digits rather than a zero that is none."""
        return statistics.signed(100 * value if self.points else value, 1 if self.points else 2, sign=sign)

    def change(self, value: float) -> str:
        return f"{self.signed(value)} points" if self.points else f"gain {self.signed(value)}"

    def size(self, value: float) -> str:
        return f"{self.signed(value, '-')} {'points' if self.points else 'bits per byte'}"


def _remarks(decision: Decision, scale: _Scale) -> list[str]:
    """What a careful reader would ask next."""
    remarks = []
    effect, questions = decision.smallest_visible_effect, _size(decision, scale.points)
    small = decision.n < SMALL_TEST
    if decision.verdict == "EQUIVALENT":
        remarks.append(f"The {_percent(1 - 2 * decision.alpha)} interval lies within that margin.")
    elif decision.verdict != "NOT SHOWN" and abs(decision.difference) < decision.margin:
        what = "gain" if decision.verdict == "BETTER" else "loss"
        remarks.append(f"The {what} is smaller than the margin of {scale.size(decision.margin)}.")
    elif decision.verdict == "NOT SHOWN" and decision.p_value < decision.alpha:
        remarks.append("The test and the interval disagree at the edge, so nothing is claimed.")
    if scale.points and effect >= 1:
        remarks.append(f"With only {questions}, this test could not have seen an effect of any size.")
    elif effect <= statistics.SAME:
        pass  # nothing was measured
    elif decision.verdict == "NOT SHOWN":
        count = f"With only {questions}, the" if small else "The"
        remarks.append(f"{count} smallest effect that this test could have seen is {scale.size(effect)}.")
    elif small:
        remarks.append(f"With only {questions}, only effects above about {scale.size(effect)} can be seen.")
    if decision.verdict == "NOT SHOWN" and decision.more_items:
        remarks.append(f"{_more(decision, scale)} would be needed to see {scale.size(decision.margin)}.")
    if decision.groups == 1 < decision.n:
        remarks.append(
            "All questions are of one group, so there is nothing to tell chance by."
            if scale.points
            else "All documents are of one group, so there is nothing to tell chance by."
        )
    elif decision.groups < min(decision.n, FEW_GROUPS):
        remarks.append(f"{decision.groups} groups are few: take the interval as rough.")
    return remarks


def _more(decision: Decision, scale: _Scale) -> str:
    """How many more items like these: two digits, rounded up, because the estimate knows no more."""
    step = 10 ** max(0, len(str(decision.more_items)) - 2)
    count = math.ceil(decision.more_items / step) * step
    if count > MANY:
        return f"More than {MANY:,} more {'questions' if scale.points else 'documents'}"
    told = f"About {count:,} more {'question' if scale.points else 'document'}{'' if count == 1 else 's'}"
    if decision.groups == decision.n:
        return told
    return f"{told}, in groups as large as these,"


def _size(decision: Decision, questions: bool) -> str:
    count = f"{decision.n:,} {'questions' if questions else 'documents'}"
    if decision.groups == decision.n:
        return count
    return f"{count} in {decision.groups:,} group{'' if decision.groups == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{round(100 * share, 6):g} %"


def best_prompt_arm(dev_answers: Sequence[AnswerRecord]) -> tuple[str, dict[str, float]]:
    """The prompt arm with the highest mean score, and all their means; of equals the one with fewer prompt tokens."""
    arms = {arm: lines for arm, lines in by_arm(dev_answers).items() if arm != TUNED_ARM}
    if not arms:
        raise UserError("no prompt arm has answered; name at least one, such as zero-shot.", where="evaluate.arms")
    _same_items(arms, where=_DEV_ANSWERS)
    means = {arm: _mean(lines, "score") for arm, lines in arms.items()}
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
    settings: metrics.Settings = metrics.PLAIN,
    seed: int,
) -> dict[str, Any]:
    """The whole of verdict.json from every arm's test answers and the prompt arms' dev answers.

    Without dev answers (documents have none) the opponent is the prompt arm that does best on the test split itself,
    which can only favour prompting; `chosen_on` says "test" then.
    """
    if TUNED_ARM not in by_arm(answers):
        raise unknown("arm", TUNED_ARM, by_arm(answers), where=_ANSWERS)
    for line in (*answers, *dev_answers):
        if not math.isfinite(line["score"]):
            found = f'the metric "{metric}" gave {line["score"]} for the answer of the arm "{line["arm"]}"'
            raise UserError(f"{found}; expected a finite number. Check the metric.", where=line["place"])
    questions, sampling = averaged(answers)
    arms = by_arm(questions)
    _same_items(arms, where=_ANSWERS)
    best, dev_means = best_prompt_arm(averaged(dev_answers or answers)[0])
    if best not in arms:
        raise unknown("arm", best, arms, where=_ANSWERS)

    items, groups = zip(*((line["item"], line["group"]) for line in arms[TUNED_ARM]), strict=True)
    scores = {arm: _in_order(lines, items) for arm, lines in arms.items()}
    looks: dict[str, Any] = {"alpha": alpha, "margin": margin, "seed": seed}
    decision = decide(scores[TUNED_ARM], scores[best], groups, **looks)
    others = {arm: each for arm, each in scores.items() if arm not in (TUNED_ARM, best)}
    higher = metric != BITS_PER_BYTE
    summaries = {arm: _summary(lines, higher, decision.confidence, seed) for arm, lines in arms.items()}
    for arm, lines in by_arm(answers).items():
        texts = [(str(line["answer"]), str(line["reference"])) for line in lines] if metrics.aggregated(metric) else []
        summaries[arm] |= {"aggregates": metrics.aggregates(metric, texts, settings)}
        summaries[arm] |= {"sampling": sampling[arm].to_json()} if arm in sampling else {}
    means = {"tuned_mean": summaries[TUNED_ARM]["mean"], "prompt_mean": summaries[best]["mean"]}
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
        "secondary": secondary.comparisons(scores[TUNED_ARM], others, groups, **looks),
        "signatures": metrics.signatures(arms[TUNED_ARM][0]["scores"]),
        "arms": summaries,
    }


def by_arm(answers: Sequence[AnswerRecord]) -> dict[str, list[AnswerRecord]]:
    """The lines of each arm, arms and lines in the order in which they appear."""
    arms: dict[str, list[AnswerRecord]] = {}
    for line in answers:
        arms.setdefault(line["arm"], []).append(line)
    return arms


def _in_order(lines: Sequence[AnswerRecord], items: Sequence[str]) -> list[float]:
    """An arm's scores in the order of these items."""
    scores = {line["item"]: float(line["score"]) for line in lines}
    return [scores[item] for item in items]


def _same_items(arms: Mapping[str, Sequence[AnswerRecord]], *, where: str) -> None:
    """Raises unless every arm has answered the same questions, each once."""
    asked = {line["item"]: line["place"] for lines in arms.values() for line in lines}
    for arm, lines in arms.items():
        answered = {line["item"] for line in lines}
        if len(answered) < len(lines):
            found = f'the arm "{arm}" has {len(lines)} answers to {len(answered)} questions'
            raise UserError(f"{found}; expected one each. Move the file away and run again.", where=where)
        if missing := [place for item, place in asked.items() if item not in answered]:
            found = f'the arm "{arm}" lacks {len(missing)} of {len(asked)} questions, the first is {missing[0]}'
            raise UserError(f"{found}; a paired comparison needs them all. Run again to ask the rest.", where=where)


def _summary(lines: Sequence[AnswerRecord], higher: bool, confidence: float, seed: int) -> dict[str, Any]:
    """An arm in numbers: quality with its interval, and what an answer costs on average."""
    scores, groups = [float(line["score"]) for line in lines], [line["group"] for line in lines]
    mean = math.fsum(scores) / len(scores)
    low, high = statistics.mean_interval(scores, groups, confidence=confidence, seed=seed)
    means = {name: math.fsum(line["scores"][name] for line in lines) / len(lines) for name in lines[0]["scores"]}
    if not higher:
        mean, low, high = -mean, -high, -low
        means = {name: -value if name == BITS_PER_BYTE else value for name, value in means.items()}
    return {
        "mean": mean,
        "interval": [low, high],
        "scores": means,
        "prompt_tokens": _mean(lines, "prompt_tokens"),
        "answer_tokens": _mean(lines, "answer_tokens"),
        "seconds": _mean(lines, "seconds"),
        "thought_tokens": math.fsum(line.get("thought_tokens", 0) for line in lines) / len(lines),
        "cut": sum(line["finish"] == "length" for line in lines),
        "no_room": sum(line["finish"] == NO_ROOM for line in lines),
        "still_thinking": sum(line["finish"] == THINKING for line in lines),
        "shots": _mean(lines, "shots") if all("shots" in line for line in lines) else None,
        "n": len(lines),
    }


def _mean(lines: Sequence[AnswerRecord], field: str) -> float:
    return math.fsum(line[field] for line in lines) / len(lines)
