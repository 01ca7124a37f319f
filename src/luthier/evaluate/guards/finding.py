"""What a guard found: numbers before and after, whether it passes, and a sentence for people.

A guard looks for harm. It passes when the data shows that whatever harm there is stays within the margin; it fails when
harm is shown and larger than the margin; between the two it says NOT SHOWN and does not pass for sure.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from luthier.evaluate import statistics

Word = Literal["BETTER", "EQUIVALENT", "NOT WORSE", "WORSE", "NOT SHOWN", "WITHIN LIMIT", "ABOVE LIMIT", "NOT MEASURED"]
EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One check of a guard. `base`, `fine_tuned`, `difference` and `interval` are in `unit`; `passed` None is undecided."""

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
        """The fields as guards.json holds them."""
        return asdict(self) | {"interval": list(self.interval), "examples": [*self.examples][:EXAMPLES]}


@dataclass(frozen=True)
class Comparison:
    """Tuned against base on the same things, seen from the harm that may be done."""

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
    """The paired comparison of two lists of values.

    WORSE: the 1 - alpha interval of the difference lies on the bad side of 0, and the difference is beyond the margin.
    BETTER: it lies on the good side. EQUIVALENT: the 1 - 2 alpha interval lies within ± margin (two one-sided tests).
    NOT WORSE: its bad end does (one of them).
    """
    names = list(groups) if groups is not None else [str(number) for number in range(len(base))]
    wide, narrow = (
        statistics.paired_interval(tuned, base, names, confidence=1 - level, seed=seed) for level in (alpha, 2 * alpha)
    )
    means = math.fsum(base) / len(base), math.fsum(tuned) / len(tuned)
    difference = means[1] - means[0]
    sign = 1 if higher_is_better else -1
    gain = sign * difference
    best, worst = max(sign * wide.low, sign * wide.high), min(sign * wide.low, sign * wide.high)
    worst_narrow = min(sign * narrow.low, sign * narrow.high)
    word: Word = "NOT SHOWN"
    if best < 0 and gain < -margin:
        word = "WORSE"
    elif worst > 0:
        word = "BETTER"
    elif statistics.equivalent(narrow, margin):
        word = "EQUIVALENT"
    elif worst_narrow > -margin:
        word = "NOT WORSE"
    passed = False if word == "WORSE" else None if word == "NOT SHOWN" else True
    return Comparison(word, passed, *means, difference, wide, len(base))


@dataclass(frozen=True)
class Rate:
    """A share that should stay under a limit, whatever it was before."""

    word: Word
    passed: bool | None
    interval: statistics.Interval


def limited(count: int, n: int, *, limit: float, alpha: float) -> Rate:
    """Whether a share stays below its limit: fails above it, passes where the 1 - 2 alpha Wilson interval lies below."""
    interval = statistics.wilson_interval(count / n, n, confidence=1 - alpha)
    below = statistics.wilson_interval(count / n, n, confidence=1 - 2 * alpha).high < limit
    if count / n > limit:
        return Rate("ABOVE LIMIT", False, interval)
    return Rate("WITHIN LIMIT", True, interval) if below else Rate("NOT SHOWN", None, interval)


def told(comparison: Comparison, unit: str, margin: float, *, scale: float = 1.0) -> str:
    """The difference in brackets, for the end of a sentence: +0.4 points [95 % CI …], margin 3 points: EQUIVALENT."""
    change, low, high = (statistics.signed(scale * end) for end in (comparison.difference, *comparison.interval))
    space = " " if unit[0].isalpha() or unit == "%" else ""
    return f"{change}{space}{unit} [95 % CI {low}, {high}], margin {margin:g}{space}{unit}: {comparison.word}"
