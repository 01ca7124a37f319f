"""Paired statistics for two arms that answered the same questions; pure functions of their arguments and a seed.

Groups (documents, customers) are the unit that is resampled and flipped wherever one occurs more than once, because the
items of a group are not independent of each other. Scores of 0 and 1 get the exact or score methods made for them.

    paired_test       McNemar mid-p · sign-flip permutation
    paired_interval   Tango score interval · BCa bootstrap
    mean_interval     Wilson score interval · BCa bootstrap
"""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
TestName = Literal["paired permutation", "McNemar mid-p"]

RESAMPLES = 10_000
SAME = 1e-9  # scores that differ by less are the same
_EXACT_UNITS = 12  # up to here all 2^n sign patterns are cheaper than drawing 10,000
_CELLS = 1_000_000  # numbers drawn at a time: 8 MB
_FLIPS, _DRAWS = 1, 2  # what a stream of random numbers is for
_NORMAL = NormalDist()


class Interval(NamedTuple):
    low: float
    high: float


class Units(NamedTuple):
    """What is exchangeable: the sum and the number of items of each group, or of each item where no group repeats."""

    sums: Floats
    sizes: Floats

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def standard_error(self) -> float:
        """Of the mean over items, robust to correlation inside a unit.

        sqrt(C/(C-1) Σ (S_g - m_g·mean)²) / n (Miller 2024, arXiv 2411.00640, with the C/(C-1) correction for few
        clusters); with one item a unit this is sd/√n.
        """
        count = len(self.sums)
        if count < 2:
            return 0.0
        residuals = self.sums - self.sizes * self.mean
        return math.sqrt(count / (count - 1) * float(residuals @ residuals)) / float(self.sizes.sum())


def units(values: Sequence[float] | Floats, groups: Sequence[str] | None = None) -> Units:
    """The values gathered by group, in order of first appearance; without groups each value stands for itself."""
    array = np.asarray(values, dtype=np.float64)
    if groups is None:
        return Units(array, np.ones_like(array))
    place = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    member = np.array([place[group] for group in groups], dtype=np.intp)
    sums, sizes = np.bincount(member, weights=array), np.bincount(member)
    return Units(sums.astype(np.float64), sizes.astype(np.float64))


class PairedTest(NamedTuple):
    name: TestName
    p_value: float


def paired_test(tuned: Sequence[float], prompt: Sequence[float], groups: Sequence[str], *, seed: int) -> PairedTest:
    """Two-sided p that the arms differ: McNemar mid-p for 0/1 scores of independent items, else sign-flip permutation.

    0/1 scores with repeated groups use the sign-flip's mid-p, which is McNemar's mid-p carried over to groups.
    """
    differences = _array(tuned) - _array(prompt)
    two_valued = _is_binary(tuned) and _is_binary(prompt)
    if two_valued and not repeated(groups):
        return PairedTest("McNemar mid-p", mcnemar_mid_p(int((differences > 0).sum()), int((differences < 0).sum())))
    return PairedTest("paired permutation", sign_flip_p(differences, groups, seed=seed, mid=two_valued))


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
    for rows in _batches(resamples, count):
        yield generator.integers(0, 2, (rows, count), dtype=np.int8).astype(np.float64)


def paired_interval(
    tuned: Sequence[float], prompt: Sequence[float], groups: Sequence[str], *, confidence: float, seed: int
) -> Interval:
    """Of the mean difference tuned - prompt: Tango's score interval for 0/1 scores of independent items, else BCa.

    Where so few units differ that no test at this level could speak, the bootstrap has seen too little to be trusted;
    its interval is widened to what a 0/1 score without any changed unit would have, ± z²/(n + z²).
    """
    differences = _array(tuned) - _array(prompt)
    two_valued = _is_binary(tuned) and _is_binary(prompt)
    if two_valued and not repeated(groups):
        fixed, broken = int((differences > 0).sum()), int((differences < 0).sum())
        return tango_interval(fixed, broken, len(differences), confidence=confidence)
    low, high = bca_interval(differences, groups, confidence=confidence, seed=seed)
    sums, sizes = gathered = units(differences, groups)
    if int((np.abs(sums) > SAME).sum()) < _fewest_changed(1 - confidence, two_valued):
        z = _normal_quantile(confidence)
        blind = z**2 / (len(sizes) + z**2)
        low, high = min(low, gathered.mean - blind), max(high, gathered.mean + blind)
    if min(*tuned, *prompt) >= 0 and max(*tuned, *prompt) <= 1:
        low, high = max(low, -1.0), min(high, 1.0)
    return Interval(low, high)


def mean_interval(scores: Sequence[float], groups: Sequence[str], *, confidence: float, seed: int) -> Interval:
    """Of one mean: Wilson's score interval for 0/1 scores of independent items, else BCa.

    Where the bootstrap sees no variation between groups, scores from 0 to 1 get Wilson's interval with a trial a group.
    """
    gathered = units(scores, groups)
    if _is_binary(scores) and not repeated(groups):
        return wilson_interval(gathered.mean, len(scores), confidence=confidence)
    if gathered.standard_error <= SAME and _is_binary(scores):
        return wilson_interval(gathered.mean, len(gathered.sums), confidence=confidence)
    return bca_interval(scores, groups, confidence=confidence, seed=seed)


def bca_interval(
    values: Sequence[float] | Floats,
    groups: Sequence[str] | None = None,
    *,
    confidence: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean; units are drawn with replacement.

    Efron & Tibshirani 1993, section 14.3: level Φ(z₀ + (z₀ + z)/(1 - a(z₀ + z))), z₀ from the share of resampled means
    below the observed one, a from the jackknife. For ±z stands ±sqrt(C/(C-1))·t with C-1 degrees of freedom (Hesterberg
    2015, The American Statistician 69:371, "expanded percentile"): with few units the plain interval is too narrow.
    """
    gathered = units(values, groups)
    count, mean = len(gathered.sums), gathered.mean
    if gathered.standard_error <= SAME:
        return Interval(mean, mean)
    means = _resampled_means(gathered, resamples, seed)
    tolerance = 1e-12 * (1 + abs(mean))
    below = float((means < mean - tolerance).mean() + (np.abs(means - mean) <= tolerance).mean() / 2)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples))
    left_out = (gathered.sums.sum() - gathered.sums) / (gathered.sizes.sum() - gathered.sizes)
    pull = left_out.mean() - left_out
    acceleration = float((pull**3).sum() / (6 * (pull**2).sum() ** 1.5))
    wide = math.sqrt(count / (count - 1)) * float(special.stdtrit(count - 1, (1 + confidence) / 2))
    levels = [_bca_level(bias, acceleration, z) for z in (-wide, wide)]
    low, high = np.quantile(means, levels)
    return Interval(float(low), float(high))


def _bca_level(bias: float, acceleration: float, z: float) -> float:
    shifted = bias + z
    room = 1 - acceleration * shifted
    if room <= 0:  # beyond the formula's pole: few, very skewed units
        return float(shifted > 0)
    return _NORMAL.cdf(bias + shifted / room)


def _resampled_means(gathered: Units, resamples: int, seed: int) -> Floats:
    count = len(gathered.sums)
    generator = np.random.default_rng((seed, _DRAWS))
    alone = bool((gathered.sizes == 1).all())
    means = []
    for rows in _batches(resamples, count):
        drawn = generator.integers(0, count, (rows, count), dtype=np.int32)
        sizes = float(count) if alone else gathered.sizes[drawn].sum(axis=1)
        means.append(gathered.sums[drawn].sum(axis=1) / sizes)
    return np.concatenate(means)


def _batches(total: int, width: int) -> Iterator[int]:
    """Numbers of rows that add up to `total`, each small enough for the memory."""
    rows = max(1, _CELLS // width)
    for start in range(0, total, rows):
        yield min(rows, total - start)


def wilson_interval(share: float, count: int, *, confidence: float) -> Interval:
    """Score interval of a proportion (Wilson 1927): sensible even at 0 and 1, where the plain one has no width."""
    z = _normal_quantile(confidence)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def tango_interval(fixed: int, broken: int, count: int, *, confidence: float) -> Interval:
    """Score interval of the difference of two paired proportions, (fixed - broken)/count (Tango 1998, Stat Med 17:891).

    All δ with (fixed - broken - count·δ)² ≤ z²·count·(2q + δ(1 - δ)), q the likeliest share of broken items given δ. At
    δ = 0 this is McNemar's test, so interval and p-value agree; with nothing changed it is ± z²/(count + z²).
    """
    z, observed = _normal_quantile(confidence), (fixed - broken) / count

    def compatible(delta: float) -> bool:
        b = (2 * count - fixed + broken) * delta - fixed - broken
        c = -broken * delta * (1 - delta)
        share = (math.sqrt(max(0.0, b**2 - 8 * count * c)) - b) / (4 * count)
        return (fixed - broken - count * delta) ** 2 <= z**2 * count * (2 * share + delta * (1 - delta))

    def edge(inside: float, outside: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if compatible(middle) else (inside, middle)
        return inside

    return Interval(edge(observed, -1.0), edge(observed, 1.0))


def smallest_visible_effect(
    tuned: Sequence[float], prompt: Sequence[float], groups: Sequence[str], *, alpha: float, power: float = 0.8
) -> float:
    """The true mean difference that this test finds with probability `power`: (z₁ + z₂)·standard error,

    z₁ the normal quantile at 1 - alpha/2 and z₂ at `power`. Where too few units differ to estimate a standard error:
    the share of units that must change, all to one side and by a whole 1 each, for the test to meet enough of them with
    that probability; 1 when there are too few units for any.
    """
    gathered = units(_array(tuned) - _array(prompt), groups)
    two_valued = _is_binary(tuned) and _is_binary(prompt)
    effect = (_normal_quantile(1 - alpha) + _NORMAL.inv_cdf(power)) * gathered.standard_error
    needed, count = _fewest_changed(alpha, two_valued), len(gathered.sums)
    if int((np.abs(gathered.sums) > SAME).sum()) < needed:
        # P(Binomial(count, share) >= needed) = power, as an incomplete beta function.
        share = float(special.betaincinv(needed, count - needed + 1, power)) if count >= needed else 1.0
        effect = max(effect, share)
    bounded = min(*tuned, *prompt) >= 0 and max(*tuned, *prompt) <= 1
    return min(effect, 1.0) if bounded else effect


def equivalent(interval: Interval, margin: float) -> bool:
    """Two one-sided tests (Schuirmann 1987): the 1 - 2 alpha interval lies inside ± margin."""
    return -margin < interval.low and interval.high < margin


def repeated(groups: Sequence[str]) -> bool:
    """Whether a group occurs more than once, so that the groups and not the items are independent."""
    return len(set(groups)) < len(groups)


def _fewest_changed(alpha: float, mid: bool) -> int:
    """How many changed units, all to one side, p < alpha takes: p is 2·2^-k, by mid-p 2^-k. At 5 %: 6 and 5."""
    k = 1
    while 2.0 ** (-k if mid else 1 - k) >= alpha:
        k += 1
    return k


def _normal_quantile(confidence: float) -> float:
    return _NORMAL.inv_cdf((1 + confidence) / 2)


def _array(scores: Sequence[float]) -> Floats:
    return np.asarray(scores, dtype=np.float64)


def _is_binary(scores: Sequence[float]) -> bool:
    return bool(np.isin(_array(scores), (0.0, 1.0)).all())
