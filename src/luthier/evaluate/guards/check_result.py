"""The result of a check: numbers before and after, whether it passes, and a sentence for people.

A check looks for harm. It passes where the data shows that any harm stays within the margin. It fails where the data shows
harm, and more of it than the margin allows. Between the two it says NOT SHOWN and neither passes nor fails.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from luthier.evaluate import statistics

Word = Literal["BETTER", "EQUIVALENT", "NOT WORSE", "WORSE", "NOT SHOWN", "WITHIN LIMIT", "ABOVE LIMIT", "NOT MEASURED"]
EXAMPLES = 5


@dataclass(frozen=True)
class CheckResult:
    """One check of a guard. `base` to `interval` are in `unit`; `passed` is None where the data does not decide."""

    guard: str
    check: str
    title: str
    passed: bool | None
    word: Word
    margin: float
    unit: str
    base: float | None
    fine_tuned: float | None
    difference: float | None
    interval: Sequence[float]
    n: int
    sentence: str
    counts: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Mapping[str, str]] = ()

    def to_json(self) -> dict[str, Any]:
        """One entry of guards.json."""
        return asdict(self) | {"interval": list(self.interval), "examples": [*self.examples][:EXAMPLES]}


@dataclass(frozen=True)
class Comparison:
    """The tuned model against the base model on the same tasks."""

    word: Word
    passed: bool | None
    base: float
    tuned: float
    difference: float
    interval: statistics.Interval
    n: int


def compare(
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    margin: float,
    higher_is_better: bool,
    alpha: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> Comparison:
    """The paired comparison of two lists of values, item by item.

    WORSE: the 1 - alpha interval of the difference lies on the bad side of 0, and the difference is beyond the margin.
    BETTER: that interval lies on the good side. EQUIVALENT: the 1 - 2 alpha interval lies within ± margin (two one-sided
    tests). NOT WORSE: its bad end lies within the margin (one of the two).
    """
    names = list(groups) if groups is not None else [str(number) for number in range(len(base))]
    two_sided, one_sided = (
        statistics.paired_interval(tuned, base, names, confidence=1 - level, seed=seed) for level in (alpha, 2 * alpha)
    )
    means = math.fsum(base) / len(base), math.fsum(tuned) / len(tuned)
    difference = means[1] - means[0]
    sign = 1 if higher_is_better else -1
    gain = sign * difference
    best, worst = max(sign * end for end in two_sided), min(sign * end for end in two_sided)
    worst_one_sided = min(sign * end for end in one_sided)
    word: Word = "NOT SHOWN"
    if best < 0 and gain < -margin:
        word = "WORSE"
    elif worst > 0:
        word = "BETTER"
    elif statistics.equivalent(one_sided, margin):
        word = "EQUIVALENT"
    elif worst_one_sided > -margin:
        word = "NOT WORSE"
    passed = False if word == "WORSE" else None if word == "NOT SHOWN" else True
    return Comparison(word, passed, *means, difference, two_sided, len(base))


@dataclass(frozen=True)
class Rate:
    """A share that should stay below a limit, whatever it was before."""

    word: Word
    passed: bool | None
    interval: statistics.Interval


def compare_with_limit(count: int, n: int, *, limit: float, alpha: float) -> Rate:
    """Whether a share stays below a limit: it fails above it, and passes where its 1 - 2 alpha Wilson interval lies below."""
    interval = statistics.wilson_interval(count / n, n, confidence=1 - alpha)
    below = statistics.wilson_interval(count / n, n, confidence=1 - 2 * alpha).high < limit
    if count / n > limit:
        return Rate("ABOVE LIMIT", False, interval)
    return Rate("WITHIN LIMIT", True, interval) if below else Rate("NOT SHOWN", None, interval)


def describe(comparison: Comparison, unit: str, margin: float, *, scale: float = 1.0) -> str:
    """The difference in brackets, for the end of a sentence: +0.4 points [95 % CI …], margin 3 points: EQUIVALENT."""
    change, low, high = (statistics.signed(scale * end) for end in (comparison.difference, *comparison.interval))
    space = " " if unit[0].isalpha() or unit == "%" else ""
    return f"{change}{space}{unit} [95 % CI {low}, {high}], margin {margin:g}{space}{unit}: {comparison.word}"
