"""One comparison of two arms on the same questions, in numbers and one word that holds.

Two ways of looking must agree before anything is claimed: the p-value of the paired test and the interval of the
difference. Every score is higher-is-better, so a positive difference means that the tuned model did better.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from luthier.errors import UserError
from luthier.evaluate import statistics

Word = Literal["BETTER", "WORSE", "EQUIVALENT", "NOT SHOWN"]

DEFAULT_MARGIN = 0.02


@dataclass(frozen=True)
class Decision:
    """The comparison's result."""

    verdict: Word
    difference: float
    """Tuned − prompt, in units of the score."""
    interval: statistics.Interval
    confidence: float
    p_value: float
    equivalence_p_value: float
    """Of the two one-sided tests that the difference is as large as the margin."""
    test: statistics.TestName
    alpha: float
    margin: float
    smallest_visible_effect: float
    """What this test finds with 80 % probability."""
    more_items: int
    """How many items like these it lacks to find an effect as small as the margin."""
    design_effect: float
    """The price of groups: so many times more items are needed than independent ones."""
    fixed: int
    """Items that scored higher when tuned."""
    broken: int
    """Items that scored lower when tuned."""
    same: int
    n: int
    groups: int

    def to_json(self) -> dict[str, Any]:
        """The fields under the names that verdict.json gives them."""
        return asdict(self) | {"interval": list(self.interval)}


def decide(
    tuned: Sequence[float],
    prompt: Sequence[float],
    groups: Sequence[str],
    *,
    alpha: float = 0.05,
    margin: float | None = None,
    seed: int,
) -> Decision:
    """Compare the scores of two arms, question by question.

    BETTER or WORSE: p < alpha, and the 1 - alpha interval lies on that side of 0. EQUIVALENT: by two one-sided tests,
    p < alpha and the 1 - 2 alpha interval lies within ± margin. Otherwise NOT SHOWN, also where p and interval disagree
    at the edge.
    """
    margin = DEFAULT_MARGIN if margin is None else margin
    _check(tuned, prompt, groups)
    if not 0 < alpha < 0.5:
        raise UserError(f"found {alpha:g}; expected a level between 0 and 0.5, usually 0.05.", where="evaluate.alpha")
    if not 0 < margin < math.inf:
        raise UserError(f"found {margin:g}; expected a difference above 0, such as 0.02.", where="evaluate.margin")

    differences = [after - before for after, before in zip(tuned, prompt, strict=True)]
    test = statistics.paired_test(tuned, prompt, groups, seed=seed)
    paired = statistics.Paired.of(tuned, prompt, groups, seed=seed)
    interval, alike_p = paired.interval(1 - alpha), statistics.equivalence_p(paired, margin)
    word: Word = "NOT SHOWN"
    if test.p_value < alpha and interval.low > 0:
        word = "BETTER"
    elif test.p_value < alpha and interval.high < 0:
        word = "WORSE"
    elif alike_p < alpha and statistics.equivalent(paired.interval(1 - 2 * alpha), margin):
        word = "EQUIVALENT"

    fixed = sum(difference > statistics.SAME for difference in differences)
    broken = sum(difference < -statistics.SAME for difference in differences)
    return Decision(
        verdict=word,
        difference=math.fsum(differences) / len(differences),
        interval=interval,
        confidence=round(1 - alpha, 12),
        p_value=test.p_value,
        equivalence_p_value=alike_p,
        test=test.name,
        alpha=alpha,
        margin=margin,
        smallest_visible_effect=statistics.smallest_visible_effect(tuned, prompt, groups, alpha=alpha),
        more_items=max(0, statistics.items_needed(tuned, prompt, groups, effect=margin, alpha=alpha) - len(tuned)),
        design_effect=statistics.design_effect(differences, groups),
        fixed=fixed,
        broken=broken,
        same=len(differences) - fixed - broken,
        n=len(differences),
        groups=len(set(groups)),
    )


def _check(tuned: Sequence[float], prompt: Sequence[float], groups: Sequence[str]) -> None:
    counts = {"fine-tuned scores": len(tuned), "prompt scores": len(prompt), "groups": len(groups)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} {what}" for what, count in counts.items())
        raise UserError(f"found {listed}; a paired comparison needs all three for each question.")
    if len(tuned) < 2:
        found = f"found {len(tuned)} answered test question{'' if len(tuned) == 1 else 's'}"
        next_step = "give more data, or set data.test_items higher; 300 see differences of about 7 points"
        raise UserError(f"{found}; a comparison needs at least 2. {next_step.capitalize()}.", where="data.test_items")
    for arm, scores in (("fine-tuned", tuned), ("prompt", prompt)):
        for number, score in enumerate(scores, 1):
            if not math.isfinite(score):
                found = f"score {number} of the {arm} arm is {score}"
                raise UserError(f"{found}; expected a finite number. Check the metric.", where="evaluate.metric")
