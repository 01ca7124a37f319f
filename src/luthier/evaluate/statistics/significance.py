"""Whether two arms that answered the same questions differ: p-values, and their correction for several comparisons."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from luthier.evaluate.statistics.units import (
    RESAMPLES,
    SAME,
    Floats,
    batches,
    floats,
    repeated,
    two_valued,
    units,
)

TestName = Literal["paired permutation", "McNemar mid-p"]

_EXACT_UNITS = 12  # up to here all 2^n sign patterns are cheaper than drawing 10,000
_FLIPS = 1  # what this stream of random numbers is for


class PairedTest(NamedTuple):
    name: TestName
    p_value: float


def paired_test(
    tuned: Sequence[float], prompt: Sequence[float], groups: Sequence[str], *, seed: int, resamples: int = RESAMPLES
) -> PairedTest:
    """Two-sided p that the arms differ: McNemar mid-p for 0/1 scores of independent items, else sign-flip permutation.

    0/1 scores with repeated groups use the sign-flip's mid-p, which is McNemar's mid-p carried over to groups.
    """
    differences = floats(tuned) - floats(prompt)
    binary = two_valued(tuned, prompt)
    if binary and not repeated(groups):
        return PairedTest("McNemar mid-p", mcnemar_mid_p(int((differences > 0).sum()), int((differences < 0).sum())))
    p_value = sign_flip_p(differences, groups, seed=seed, mid=binary, resamples=resamples)
    return PairedTest("paired permutation", p_value)


def mcnemar_mid_p(fixed: int, broken: int) -> float:
    """Two-sided mid-p of McNemar's test from the numbers of items won and lost (Fagerland et al. 2013, BMC MRM 13:91).

    2·P(X < m) + P(X = m), X ~ Binomial(fixed + broken, 1/2), m the smaller count: it keeps the level where the exact
    test is far too careful.
    """
    smaller, changed = min(fixed, broken), fixed + broken
    if changed == 0:
        return 1.0
    below = float(special.bdtr(smaller - 1, changed, 0.5)) if smaller else 0.0
    return below + float(special.bdtr(smaller, changed, 0.5))


def sign_flip_p(
    differences: Sequence[float] | Floats,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    mid: bool = False,
    resamples: int = RESAMPLES,
) -> float:
    """Two-sided permutation p of the mean difference: each unit's sign is turned at random, whole groups together.

    Exact over all sign patterns where at most 12 units differ, else from `resamples` draws with +1 in numerator and
    denominator (Phipson & Smyth 2010), so never 0. `mid` counts ties with the observed value by half, for 0/1 scores.
    """
    sums = units(differences, groups).sums
    sums = sums[np.abs(sums) > SAME]  # turning nothing changes nothing
    if not len(sums):
        return 1.0
    observed, tolerance = abs(float(sums.sum())), 1e-9 * float(np.abs(sums).sum())
    above = ties = drawn = 0
    exact = len(sums) <= _EXACT_UNITS
    for turned in _sign_patterns(len(sums)) if exact else _random_signs(len(sums), resamples, seed):
        totals = np.abs(float(sums.sum()) - 2 * (turned @ sums))
        above += int((totals > observed + tolerance).sum())
        ties += int((np.abs(totals - observed) <= tolerance).sum())
        drawn += len(totals)
    if not exact:
        ties, drawn = ties + 1, drawn + 1
    return (above + ties * (0.5 if mid else 1.0)) / drawn


def _sign_patterns(count: int) -> Iterator[Floats]:
    patterns = (np.arange(2**count, dtype=np.int64)[:, None] >> np.arange(count)) & 1
    yield patterns.astype(np.float64)


def _random_signs(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng((seed, _FLIPS))
    for rows in batches(resamples, count):
        yield generator.integers(0, 2, (rows, count), dtype=np.int8).astype(np.float64)


def cluster_t_p(differences: Sequence[float] | Floats, groups: Sequence[str] | None = None) -> float:
    """Two-sided p of the mean over its cluster-robust standard error, by Student's t with C - 1 degrees of freedom.

    A cross-check of the sign-flip test that needs no random numbers: Cameron & Miller 2015, Journal of Human Resources
    50:317, section VI.D; without groups it is the paired t-test. 1 where nothing varies around 0.
    """
    grouped = units(differences, groups)
    error, count = grouped.standard_error, len(grouped.sums)
    if error <= SAME:
        return 0.0 if count > 1 and abs(grouped.mean) > SAME else 1.0
    return 2 * float(special.stdtr(count - 1, -abs(grouped.mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: comparing them with alpha keeps the chance of any false claim below alpha.

    Step-down (Holm 1979, Scand J Statist 6:65): the i-th smallest of m is multiplied by m - i + 1, and none falls below
    one before it.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def fewest_changed(alpha: float, mid: bool) -> int:
    """How many changed units, all to one side, p < alpha takes: p is 2·2^-k, by mid-p 2^-k. At 5 %: 6 and 5."""
    k = 1
    while smallest_p(k, mid) >= alpha:
        k += 1
    return k


def smallest_p(changed: int, mid: bool) -> float:
    """The p-value when every changed unit went the same way: no test of this many can give less."""
    return min(1.0, 2.0 ** (-changed if mid else 1 - changed))
