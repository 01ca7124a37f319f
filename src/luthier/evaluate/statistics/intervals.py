"""Confidence intervals of means and differences: score intervals where scores are 0 or 1, else the bootstrap."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy import special

from luthier.evaluate.statistics.significance import fewest_changed
from luthier.evaluate.statistics.units import (
    RESAMPLES,
    SAME,
    Floats,
    Units,
    batches,
    floats,
    repeated,
    two_valued,
    units,
)

_DRAWS = 2  # what this stream of random numbers is for
_NORMAL = NormalDist()


class Interval(NamedTuple):
    low: float
    high: float


def paired_interval(
    tuned: Sequence[float],
    prompt: Sequence[float],
    groups: Sequence[str],
    *,
    confidence: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Of the mean difference tuned - prompt: Tango's score interval for 0/1 scores of independent items, else BCa.

    Where so few units differ that no test at this level could be significant, or all differ by the same, the bootstrap has
    too little to go by; its interval is widened to that of a 0/1 score without any changed unit, ± z²/(n + z²).
    """
    return Paired.of(tuned, prompt, groups, seed=seed, resamples=resamples).interval(confidence)


class Paired(NamedTuple):
    """Two arms' differences, made ready for intervals at several confidences: the resampling is done once."""

    grouped: Units
    binary: bool
    bounded: bool
    """All scores lie between 0 and 1."""
    counts: tuple[int, int, int] | None
    """Fixed, broken and all items, where Tango's interval applies; else None."""
    resampled: "Resampled | None"

    @classmethod
    def of(
        cls,
        tuned: Sequence[float],
        prompt: Sequence[float],
        groups: Sequence[str],
        *,
        seed: int,
        resamples: int = RESAMPLES,
    ) -> "Paired":
        differences = floats(tuned) - floats(prompt)
        binary = two_valued(tuned, prompt)
        bounded = min(*tuned, *prompt) >= 0 and max(*tuned, *prompt) <= 1
        grouped = units(differences, groups)
        if binary and not repeated(groups):
            counts = (int((differences > 0).sum()), int((differences < 0).sum()), len(differences))
            return cls(grouped, binary, bounded, counts, None)
        return cls(grouped, binary, bounded, None, Resampled.of(grouped, resamples=resamples, seed=seed))

    def interval(self, confidence: float) -> Interval:
        """Of the mean difference; see `paired_interval`."""
        if self.resampled is None:
            assert self.counts
            return tango_interval(*self.counts, confidence=confidence)
        low, high = self.resampled.interval(confidence)
        if not self.grouped.varied or self.grouped.changed < fewest_changed(1 - confidence, self.binary):
            blind, mean = unseen(len(self.grouped.sizes), confidence), self.grouped.mean
            low, high = min(low, mean - blind), max(high, mean + blind)
        if self.bounded:
            low, high = max(low, -1.0), min(high, 1.0)
        return Interval(low, high)


def mean_interval(
    scores: Sequence[float], groups: Sequence[str], *, confidence: float, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Of one mean: Wilson's score interval for 0/1 scores of independent items, else BCa.

    Where the bootstrap sees no variation between groups, 0/1 scores get Wilson's interval with a trial a group. Other scores
    from 0 to 1 get what Wilson's gives at both ends: as many units as may have stayed unseen could have scored 0, or 1.
    """
    grouped = units(scores, groups)
    if two_valued(scores) and not repeated(groups):
        return wilson_interval(grouped.mean, len(scores), confidence=confidence)
    if not grouped.varied and two_valued(scores):
        return wilson_interval(grouped.mean, len(grouped.sums), confidence=confidence)
    if not grouped.varied and min(scores) >= 0 and max(scores) <= 1:
        blind, mean = unseen(len(grouped.sums), confidence), grouped.mean
        return Interval(mean * (1 - blind), mean + (1 - mean) * blind)
    return Resampled.of(grouped, resamples=resamples, seed=seed).interval(confidence)


def bca_interval(
    values: Sequence[float] | Floats,
    groups: Sequence[str] | None = None,
    *,
    confidence: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean; units are drawn with replacement."""
    return Resampled.of(units(values, groups), resamples=resamples, seed=seed).interval(confidence)


class Resampled(NamedTuple):
    """The bootstrap distribution of a mean with what BCa needs to read intervals off it.

    Efron & Tibshirani 1993, section 14.3: level Φ(z₀ + (z₀ + z)/(1 - a(z₀ + z))), z₀ from the share of resampled means
    below the observed one, a from the jackknife. For ±z stands ±sqrt(C/(C-1))·t with C-1 degrees of freedom (Hesterberg
    2015, The American Statistician 69:371, "expanded percentile"): with few units the plain interval is too narrow.
    """

    drawn: int
    """How many units were there to draw from."""
    mean: float
    means: Floats
    """Sorted; empty where the units do not vary, and the interval is a point."""
    bias: float
    acceleration: float

    @classmethod
    def of(cls, grouped: Units, *, resamples: int, seed: int) -> "Resampled":
        count, mean = len(grouped.sums), grouped.mean
        if not grouped.varied:
            return cls(count, mean, np.empty(0), 0.0, 0.0)
        means = np.sort(_resampled_means(grouped, resamples, seed))
        tolerance = 1e-12 * (1 + abs(mean))
        below = float((means < mean - tolerance).mean() + (np.abs(means - mean) <= tolerance).mean() / 2)
        bias = _NORMAL.inv_cdf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples))
        left_out = (grouped.sums.sum() - grouped.sums) / (grouped.sizes.sum() - grouped.sizes)
        pull = left_out.mean() - left_out
        acceleration = float((pull**3).sum() / (6 * (pull**2).sum() ** 1.5))
        return cls(count, mean, means, bias, acceleration)

    def interval(self, confidence: float) -> Interval:
        if not len(self.means):
            return Interval(self.mean, self.mean)
        t = self._widening * float(special.stdtrit(self.drawn - 1, (1 + confidence) / 2))
        low, high = np.quantile(self.means, [self._level(-t), self._level(t)])
        return Interval(float(low), float(high))

    def p_at_least(self, value: float) -> float:
        """One-sided p that the true mean is `value` or more: the level at which the upper bound comes down to it."""
        if not len(self.means):
            return float(self.mean >= value)
        return float(special.stdtr(self.drawn - 1, -self._quantile_at(value) / self._widening))

    def p_at_most(self, value: float) -> float:
        """One-sided p that the true mean is `value` or less."""
        if not len(self.means):
            return float(self.mean <= value)
        return float(special.stdtr(self.drawn - 1, self._quantile_at(value) / self._widening))

    @property
    def _widening(self) -> float:
        return math.sqrt(self.drawn / (self.drawn - 1))

    def _level(self, z: float) -> float:
        shifted = self.bias + z
        room = 1 - self.acceleration * shifted
        if room <= 0:  # beyond the formula's pole: few, very skewed units
            return float(shifted > 0)
        return _NORMAL.cdf(self.bias + shifted / room)

    def _quantile_at(self, value: float) -> float:
        """The z whose `_level` is the share of resampled means below this value: `interval` read backwards."""
        resamples = len(self.means)
        share = float(np.interp(value, self.means, np.linspace(0, 1, resamples)))
        beyond = _NORMAL.inv_cdf(min(max(share, 0.5 / resamples), 1 - 0.5 / resamples)) - self.bias
        room = 1 + self.acceleration * beyond
        return beyond / room - self.bias if room > 0 else math.copysign(math.inf, beyond)


def _resampled_means(grouped: Units, resamples: int, seed: int) -> Floats:
    count = len(grouped.sums)
    generator = np.random.default_rng((seed, _DRAWS))
    alone = bool((grouped.sizes == 1).all())
    means = []
    for rows in batches(resamples, count):
        drawn = generator.integers(0, count, (rows, count), dtype=np.int32)
        sizes = float(count) if alone else grouped.sizes[drawn].sum(axis=1)
        means.append(grouped.sums[drawn].sum(axis=1) / sizes)
    return np.concatenate(means)


def wilson_interval(share: float, count: int, *, confidence: float) -> Interval:
    """Score interval of a proportion (Wilson 1927): sensible even at 0 and 1, where the plain one has no width."""
    z = normal_quantile(confidence)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def tango_interval(fixed: int, broken: int, count: int, *, confidence: float) -> Interval:
    """Score interval of the difference of two paired proportions, (fixed - broken)/count (Tango 1998, Stat Med 17:891).

    All δ with |z(δ)| at most the normal quantile. At δ = 0 z is McNemar's, so interval and p-value agree; with nothing
    changed the interval is ± z²/(count + z²).
    """
    z, observed = normal_quantile(confidence), (fixed - broken) / count

    def edge(inside: float, outside: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            compatible = abs(tango_z(fixed, broken, count, middle)) <= z
            inside, outside = (middle, outside) if compatible else (inside, middle)
        return inside

    return Interval(edge(observed, -1.0), edge(observed, 1.0))


def tango_z(fixed: int, broken: int, count: int, delta: float) -> float:
    """Tango's score statistic that the true difference is δ.

    (fixed - broken - count·δ) / sqrt(count·(2q + δ(1 - δ))), q the maximum-likelihood share of broken items given δ.
    """
    excess = fixed - broken - count * delta
    b = (2 * count - fixed + broken) * delta - fixed - broken
    c = -broken * delta * (1 - delta)
    share = (math.sqrt(max(0.0, b**2 - 8 * count * c)) - b) / (4 * count)
    variance = count * (2 * share + delta * (1 - delta))
    if abs(excess) <= SAME:
        return 0.0
    return excess / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, excess)


def unseen(count: int, confidence: float) -> float:
    """The largest share that may be otherwise where none of so many units is: z²/(n + z²), Wilson's bound."""
    z = normal_quantile(confidence)
    return z**2 / (count + z**2)


def normal_quantile(confidence: float) -> float:
    """The z that a normal variable stays within with this probability: 1.96 at 0.95."""
    return _NORMAL.inv_cdf((1 + confidence) / 2)
