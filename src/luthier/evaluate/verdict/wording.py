"""The verdict in plain English: what holds, how large it is, and what a careful reader would ask next.

Numbers are in points (hundredths of the score), bits per byte as they are.
"""

import math
from dataclasses import dataclass

from luthier.evaluate import statistics
from luthier.evaluate.metrics import BITS_PER_BYTE, label
from luthier.evaluate.verdict.decision import Decision

SMALL_TEST = 100  # questions; below this even large effects stay hidden, and the sentence says so
FEW_GROUPS = 20  # below this an interval over groups is rough
MANY = 1_000_000  # questions; more than anybody will write, so the number does not matter


def sentence(decision: Decision, *, metric: str, best_prompt_arm: str, tuned_mean: float, prompt_mean: float) -> str:
    """The verdict in a few sentences. The means are given as verdict.json reports them, bits per byte positive."""
    higher = metric != BITS_PER_BYTE
    scale = _Scale(points=higher)
    against = f"the best prompt ({best_prompt_arm})"
    margin, low, high = scale.size(decision.margin), *map(scale.signed, decision.interval)
    claim = {
        "BETTER": f"Fine-tuning is BETTER than {against}",
        "WORSE": f"Fine-tuning is WORSE than {against}",
        "EQUIVALENT": f"Fine-tuning is EQUIVALENT to {against} within ±{margin}",
        "NOT SHOWN": f"It is NOT SHOWN that fine-tuning is better or worse than {against}",
    }[decision.verdict]
    direction = "" if higher else ", lower is better"
    means = f"{label(metric)} {scale.mean(tuned_mean)} vs {scale.mean(prompt_mean)}{direction}"
    gain = f"{scale.change(decision.difference)} [{_percent(decision.confidence)} CI {low}, {high}]"
    return " ".join(
        [
            f"{claim}: {means}, {gain}, {statistics.p_in_words(decision.p_value)}, {_count_items(decision, higher)}.",
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
    effect, questions = decision.smallest_visible_effect, _count_items(decision, scale.points)
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
        remarks.append(f"{_more_items(decision, scale)} would be needed to see {scale.size(decision.margin)}.")
    if decision.groups == 1 < decision.n:
        items = "questions" if scale.points else "documents"
        remarks.append(f"All {items} are of one group, so chance cannot be estimated.")
    elif decision.groups < min(decision.n, FEW_GROUPS):
        remarks.append(f"{decision.groups} groups are few: take the interval as rough.")
    return remarks


def _more_items(decision: Decision, scale: _Scale) -> str:
    """How many more items like these: two digits, rounded up, because the estimate knows no more."""
    step = 10 ** max(0, len(str(decision.more_items)) - 2)
    count = math.ceil(decision.more_items / step) * step
    if count > MANY:
        return f"More than {MANY:,} more {'questions' if scale.points else 'documents'}"
    about = f"About {count:,} more {'question' if scale.points else 'document'}{'' if count == 1 else 's'}"
    if decision.groups == decision.n:
        return about
    return f"{about}, in groups as large as these,"


def _count_items(decision: Decision, questions: bool) -> str:
    count = f"{decision.n:,} {'questions' if questions else 'documents'}"
    if decision.groups == decision.n:
        return count
    return f"{count} in {decision.groups:,} group{'' if decision.groups == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{round(100 * share, 6):g} %"
