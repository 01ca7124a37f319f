"""How often the statistics are wrong, by simulation: false alarms where nothing differs, and intervals that miss the truth.

`scripts/simulate-statistics` prints the tables; tests/evaluate/test_simulation.py holds them to their bands. What can be
summed over all outcomes is exact and has no error of its own; the rest is drawn, with the error of the draws printed.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from luthier.evaluate import statistics

ALPHA = 0.05
BANDS = {"false alarms": (0.04, 0.06), "coverage": (0.93, 0.97)}
Kind = Literal["false alarms", "coverage"]
Draw = tuple[np.ndarray, np.ndarray, list[str]]
"""Scores of the tuned model and of the prompt, and the group of each item."""


class Found(NamedTuple):
    """A share of false alarms or of intervals that hold the truth, with its standard error; 0 if it was summed exactly."""

    share: float
    error: float


@dataclass(frozen=True)
class Case:
    """One line of a table, and what is promised of it: to lie in the band, to err on the harmless side only (fewer false
    alarms, wider intervals), or nothing, where the line shows what the promises leave out."""

    kind: Kind
    method: str
    what: str
    run: Callable[[float], Found]
    """From a factor on the number of draws."""
    promise: Literal["band", "harmless side", "nothing"] = "band"

    @property
    def band(self) -> tuple[float, float]:
        low, high = BANDS[self.kind]
        if self.promise == "band":
            return low, high
        if self.promise == "nothing":
            return 0.0, 1.0
        return (0.0, high) if self.kind == "false alarms" else (low, 1.0)


def binary_level(count: int, changed: float) -> Found:
    """McNemar's mid-p, summed over how many items change and how many of those are won."""
    level = 0.0
    for total in range(count + 1):
        weight = stats.binom.pmf(total, count, changed)
        if weight > 1e-12:
            level += weight * _rejected(total)
    return Found(float(level), 0.0)


@cache
def _rejected(total: int) -> float:
    won = np.arange(total + 1)
    wrong = [statistics.mcnemar_mid_p(int(fixed), total - int(fixed)) < ALPHA for fixed in won]
    return float(stats.binom.pmf(won, total, 0.5)[wrong].sum())


def binary_coverage(count: int, fixed: float, broken: float) -> Found:
    """Tango's interval, summed over the likely numbers of items won and lost."""
    truth, covered, seen = fixed - broken, 0.0, 0.0
    for won in _likely(count, fixed):
        for lost in _likely(count - won, broken / (1 - fixed)):
            weight = stats.binom.pmf(won, count, fixed) * stats.binom.pmf(lost, count - won, broken / (1 - fixed))
            low, high = statistics.tango_interval(won, lost, count, confidence=1 - ALPHA)
            covered += weight * (low <= truth <= high)
            seen += weight
    return Found(float(covered / seen), 0.0)


def _likely(count: int, share: float) -> range:
    """The outcomes of a binomial variable but for one in 10,000 on either side."""
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], count, share)
    return range(int(low), int(high) + 1)


def drawn_level(draw: Callable[[np.random.Generator], Draw], draws: int) -> Callable[[float], Found]:
    """How often `paired_test` sees a difference where there is none."""

    def run(factor: float) -> Found:
        generator, many = np.random.default_rng(1), math.ceil(draws * factor)
        alarms = sum(
            statistics.paired_test(*draw(generator), seed=seed, resamples=999).p_value < ALPHA for seed in range(many)
        )
        return _share(alarms, many)

    return run


def drawn_coverage(draw: Callable[[np.random.Generator], Draw], truth: float, draws: int) -> Callable[[float], Found]:
    """How often `paired_interval` holds the true difference."""

    def run(factor: float) -> Found:
        generator, many, held = np.random.default_rng(2), math.ceil(draws * factor), 0
        for seed in range(many):
            low, high = statistics.paired_interval(*draw(generator), confidence=1 - ALPHA, seed=seed, resamples=1999)
            held += low <= truth <= high
        return _share(held, many)

    return run


def naive_level(draw: Callable[[np.random.Generator], Draw], draws: int) -> Callable[[float], Found]:
    """The t-test that takes grouped items for independent: what ignoring groups would cost."""

    def run(factor: float) -> Found:
        generator, many, alarms = np.random.default_rng(3), math.ceil(draws * factor), 0
        for _ in range(many):
            tuned, prompt, _groups = draw(generator)
            alarms += statistics.cluster_t_p(tuned - prompt) < ALPHA
        return _share(alarms, many)

    return run


def robust_level(draw: Callable[[np.random.Generator], Draw], draws: int) -> Callable[[float], Found]:
    """The cluster-robust t-test."""

    def run(factor: float) -> Found:
        generator, many, alarms = np.random.default_rng(3), math.ceil(draws * factor), 0
        for _ in range(many):
            tuned, prompt, groups = draw(generator)
            alarms += statistics.cluster_t_p(tuned - prompt, groups) < ALPHA
        return _share(alarms, many)

    return run


def _share(hits: int, draws: int) -> Found:
    share = hits / draws
    return Found(share, math.sqrt(share * (1 - share) / draws))


def binary(count: int, changed: float) -> Callable[[np.random.Generator], Draw]:
    """0/1 scores; a share of the questions changes, half of it to either side."""

    def draw(generator: np.random.Generator) -> Draw:
        prompt = (generator.random(count) < 0.6).astype(float)
        return _flipped(generator, prompt, changed), prompt, _alone(count)

    def _flipped(generator: np.random.Generator, prompt: np.ndarray, share: float) -> np.ndarray:
        # A right and a wrong answer turn with rates that make both directions equally frequent.
        right = np.where(prompt == 1, share / 2 / 0.6, share / 2 / 0.4)
        return np.where(generator.random(count) < right, 1 - prompt, prompt)

    return draw


def continuous(count: int, gain: float = 0.0, *, skewed: bool = False) -> Callable[[np.random.Generator], Draw]:
    """Questions of different ease, each answered by both arms with noise; skewed noise is exponential on both sides of
    nothing where `gain` is 0, and on one side only where it is not."""

    def draw(generator: np.random.Generator) -> Draw:
        ease = generator.beta(2, 2, count)
        if skewed:
            noise = [generator.exponential(0.2, count) - 0.2 for _ in range(2)] if not gain else [
                generator.exponential(0.2, count) - 0.2, np.zeros(count)
            ]  # fmt: skip
        else:
            noise = [generator.normal(0, 0.15, count) for _ in range(2)]
        return ease + gain + noise[0], ease + noise[1], _alone(count)

    return draw


def clustered(groups: int, size: int | None, gain: float = 0.0) -> Callable[[np.random.Generator], Draw]:
    """Groups of questions; half of a difference's variance belongs to its group. Without a size they have 1 to 9."""

    def draw(generator: np.random.Generator) -> Draw:
        sizes = np.full(groups, size) if size else generator.integers(1, 10, groups)
        shared = np.repeat(generator.normal(0, 0.1, groups), sizes)
        count = int(sizes.sum())
        prompt = 0.5 + generator.normal(0, 0.07, count)
        tuned = 0.5 + gain + shared + generator.normal(0, 0.07, count)
        return tuned, prompt, [str(number) for number in np.repeat(np.arange(groups), sizes)]

    return draw


def clustered_binary(groups: int, size: int, changed: float) -> Callable[[np.random.Generator], Draw]:
    """0/1 scores in groups: in a changed group most questions go the same way."""

    def draw(generator: np.random.Generator) -> Draw:
        side = generator.choice([-1, 0, 1], groups, p=[changed / 2, 1 - changed, changed / 2])
        moved = np.repeat(side, size) * (generator.random(groups * size) < 0.7)
        base = (generator.random(groups * size) < 0.6).astype(float)
        tuned, prompt = np.where(moved > 0, 1.0, base), np.where(moved > 0, 0.0, base)
        tuned, prompt = np.where(moved < 0, 0.0, tuned), np.where(moved < 0, 1.0, prompt)
        return tuned, prompt, [str(number // size) for number in range(groups * size)]

    return draw


@cache
def _alone(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _exact(compute: Callable[[], Found]) -> Callable[[float], Found]:
    return lambda factor: compute()


def cases() -> Iterator[Case]:
    """Every line of the tables, in their order."""
    alarms: Kind = "false alarms"
    for count, changed in ((50, 0.2), (100, 0.1), (100, 0.3), (300, 0.1), (300, 0.2), (1000, 0.1), (1000, 0.2)):
        what = f"{count} questions, {changed:.0%} change"
        yield Case(alarms, "McNemar mid-p", what, _exact(lambda n=count, d=changed: binary_level(n, d)))  # type: ignore[misc]
    # Fewer than ten changed questions leave a handful of possible p-values, and the next one below 5 % is far below.
    for count, changed in ((40, 0.2), (40, 0.1), (100, 0.05)):
        what = f"{count} questions, {changed:.0%} change"
        run = _exact(lambda n=count, d=changed: binary_level(n, d))  # type: ignore[misc]
        yield Case(alarms, "McNemar mid-p", what, run, "harmless side")
    yield Case(alarms, "McNemar mid-p", "300 questions, 20% change, drawn", drawn_level(binary(300, 0.2), 20_000))
    for count in (10, 30, 100, 300):
        what = f"{count} questions, other scores"
        yield Case(alarms, "sign-flip", what, drawn_level(continuous(count), 20_000))
    yield Case(alarms, "sign-flip", "100 questions, skewed scores", drawn_level(continuous(100, skewed=True), 20_000))
    for groups, size in ((10, 5), (10, None), (20, None), (40, 5), (100, None)):
        what = f"{groups} groups of {size or '1 to 9'}"
        yield Case(alarms, "sign-flip of groups", what, drawn_level(clustered(groups, size), 20_000))
    yield Case(
        alarms, "sign-flip of groups", "100 groups of 5, 0/1 scores", drawn_level(clustered_binary(100, 5, 0.4), 20_000)
    )
    yield Case(
        alarms, "sign-flip of groups", "30 groups of 5, 0/1 scores", drawn_level(clustered_binary(30, 5, 0.3), 20_000)
    )
    for groups, size in ((10, None), (20, None), (40, 5)):
        what = f"{groups} groups of {size or '1 to 9'}"
        run = robust_level(clustered(groups, size), 20_000)
        yield Case(alarms, "cluster-robust t", what, run, "nothing" if groups < 20 else "band")
    run = naive_level(clustered(40, 5), 20_000)
    yield Case(alarms, "paired t, groups ignored", "40 groups of 5", run, "nothing")

    coverage: Kind = "coverage"
    for count, fixed, broken in (
        (40, 0.15, 0.05),
        (100, 0.1, 0.1),
        (100, 0.2, 0.05),
        (300, 0.1, 0.05),
        (300, 0.03, 0.02),
    ):
        what = f"{count} questions, {fixed:.0%} fixed, {broken:.0%} broken"
        run = _exact(lambda n=count, f=fixed, b=broken: binary_coverage(n, f, b))  # type: ignore[misc]
        yield Case(coverage, "Tango", what, run)
    for count, draws in ((20, 10_000), (30, 10_000), (100, 10_000), (300, 4_000)):
        run = drawn_coverage(continuous(count, 0.05), 0.05, draws)
        yield Case(coverage, "BCa", f"{count} questions, other scores", run)
    yield Case(
        coverage, "BCa", "100 questions, skewed", drawn_coverage(continuous(100, 0.05, skewed=True), 0.05, 10_000)
    )
    for groups, size in ((20, None), (40, 5), (100, None)):
        run = drawn_coverage(clustered(groups, size, 0.05), 0.05, 10_000)
        yield Case(coverage, "BCa of groups", f"{groups} groups of {size or '1 to 9'}", run)
    run = drawn_coverage(clustered_binary(100, 5, 0.4), 0.0, 10_000)
    yield Case(coverage, "BCa of groups", "100 groups of 5, 0/1 scores", run)
    run = drawn_coverage(continuous(30, 0.05, skewed=True), 0.05, 10_000)
    yield Case(coverage, "BCa", "30 questions, skewed", run, "nothing")
    run = drawn_coverage(clustered(10, None, 0.05), 0.05, 10_000)
    yield Case(coverage, "BCa of groups", "10 groups of 1 to 9", run, "nothing")


def main() -> None:
    """Print every case with its band, and exit 1 if one lies outside."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--factor", type=float, default=1.0, help="draws more (2) or fewer (0.1) than usual")
    factor = parser.parse_args().factor
    start, outside = time.perf_counter(), 0
    for kind in BANDS:
        print(f"\n{kind}, nominal {ALPHA if kind == 'false alarms' else 1 - ALPHA:.0%}")
        for case in (each for each in cases() if each.kind == kind):
            found = case.run(factor)
            low, high = case.band
            error = f"± {100 * found.error:.2f}" if found.error else "exact"
            if case.promise == "nothing":
                told = "shown, nothing is promised"
            else:
                within = low <= found.share <= high
                outside += not within
                told = f"{100 * low:g} – {100 * high:g} % {'ok' if within else 'OUTSIDE'}"
            print(f"  {case.method:<25} {case.what:<42} {100 * found.share:6.2f} % {error:<8} {told}", flush=True)
    print(f"\n{outside} outside their band, {time.perf_counter() - start:.0f} s")
    raise SystemExit(outside > 0)


if __name__ == "__main__":
    main()
