"""What else was compared: every other arm with the tuned one, judged with Holm's correction for looking many times."""

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.evaluate import statistics
from luthier.evaluate.verdict.decision import DEFAULT_MARGIN, Decision, Word, decide


def comparisons(
    tuned: Sequence[float],
    others: Mapping[str, Sequence[float]],
    groups: Sequence[str],
    *,
    alpha: float = 0.05,
    margin: float | None = None,
    seed: int,
) -> list[dict[str, Any]]:
    """One entry an arm, in their order: difference tuned - arm, interval, p, Holm-adjusted p, and the word these allow.

    The scores of all arms stand in the order of `groups`. BETTER and WORSE need the adjusted p below alpha and the
    interval, which is not adjusted, on that side of 0; EQUIVALENT needs the p of the two one-sided tests below alpha,
    adjusted over the arms in the same way.
    """
    margin = DEFAULT_MARGIN if margin is None else margin
    found = {
        arm: decide(tuned, scores, groups, alpha=alpha, margin=margin, seed=seed) for arm, scores in others.items()
    }
    different = statistics.holm([decision.p_value for decision in found.values()])
    alike = statistics.holm([decision.equivalence_p_value for decision in found.values()])
    return [
        {
            "arm": arm,
            "word": _word(decision, different_p, alike_p),
            "difference": decision.difference,
            "interval": list(decision.interval),
            "p_value": decision.p_value,
            "adjusted_p_value": different_p,
            "equivalence_p_value": decision.equivalence_p_value,
            "adjusted_equivalence_p_value": alike_p,
            "test": decision.test,
            "fixed": decision.fixed,
            "broken": decision.broken,
            "same": decision.same,
            "n": decision.n,
        }
        for (arm, decision), different_p, alike_p in zip(found.items(), different, alike, strict=True)
    ]


def _word(decision: Decision, different_p: float, alike_p: float) -> Word:
    if different_p < decision.alpha and decision.interval.low > 0:
        return "BETTER"
    if different_p < decision.alpha and decision.interval.high < 0:
        return "WORSE"
    return "EQUIVALENT" if alike_p < decision.alpha else "NOT SHOWN"
