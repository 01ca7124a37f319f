"""What was aimed at, and whether the figures reach it. A target that the figures cannot decide is not reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from scipy.stats import t
from task import Result

FULL, ANSWERS, LORA = 4.0, 5.0, 4.0  # × TRL's best, in tokens per second
FULL_FP32, LORA_FP32 = 1.8, 2.0  # the same where the processor has no fast bf16
MEMORY = 0.6  # × TRL's best
LOSS = 1.0  # per cent
LIMIT = 0.7  # of what matrix products allow
SLOPE = 1.1  # growth of memory per token up to the largest batch, by that before
FLAT = 1.02  # memory with ten times the records


@dataclass(frozen=True)
class Target:
    """One line of the table: what was aimed at, the figure, and whether that is reached."""

    aim: str
    figure: str
    reached: bool

    def line(self) -> str:
        return f"| {self.aim} | {self.figure} | {'reached' if self.reached else 'not reached'} |"


def speed(results: Sequence[Result]) -> float:
    """Tokens per second that half of the processes exceed."""
    return median(result.tokens_per_second for result in results)


def memory(results: Sequence[Result]) -> float:
    """The largest of the processes' peaks, in GB."""
    return max(result.peak for result in results)


def faster(what: str, ours: Sequence[Result], theirs: Sequence[Result], by: float) -> Target:
    ratio = speed(ours) / speed(theirs)
    return Target(f"{what}: at least {by:g} × the tokens per second of TRL's best", f"{ratio:.2f} ×", ratio >= by)


def faster_than_full(adapters: Sequence[Result], full: Sequence[Result]) -> Target:
    ratio = speed(adapters) / speed(full)
    return Target("LoRA: more tokens per second than our full fine-tuning", f"{ratio:.2f} ×", ratio > 1)


def smaller(what: str, ours: Sequence[Result], theirs: Sequence[Result], least: float) -> Target:
    """Peak memory against that of TRL's fastest setting; `least` is what its most frugal fair setting took."""
    mine, other = memory(ours), memory(theirs)
    figure = f"{mine / other:.2f} × ({mine:.2f} of {other:.2f} GB; TRL's most frugal setting takes {least:.2f})"
    return Target(f"{what}: peak memory at most {MEMORY:g} × TRL's best", figure, mine <= MEMORY * other)


def equal_loss(what: str, ours: Sequence[Result], theirs: Sequence[Result]) -> Target:
    """Paired by seed: both sides took the same rows in the same order, so the order's share of the spread falls out."""
    differences = [100 * (mine.heldout_loss / other.heldout_loss - 1) for mine, other in zip(ours, theirs, strict=True)]
    mean, pairs = fmean(differences), len(differences)
    half = float("inf")
    if pairs > 1:
        half = float(t.ppf(0.975, pairs - 1)) * stdev(differences) / pairs**0.5
    reached = abs(mean) + half <= LOSS
    figure = f"{mean:+.2f} % (95 % interval ± {half:.2f}, {pairs} pairs)"
    if abs(mean) <= LOSS and not reached:
        figure += "; the pairs do not resolve it"
    return Target(f"{what}: held-out loss equal within {LOSS:g} %", figure, reached)


def linear(by_budget: dict[int, Result]) -> Target:
    """Memory while training, in GB per 1,024 tokens of a batch, from each budget to the next.

    Judged by the last two: with few tokens the optimizer's step is the peak, which no batch makes larger.
    """
    budgets = sorted(by_budget)
    peaks = [by_budget[budget].peak_training for budget in budgets]
    slopes = [(peaks[i + 1] - peaks[i]) / (budgets[i + 1] - budgets[i]) * 1024 for i in range(len(budgets) - 1)]
    told = ", ".join(f"{slope:.2f} to {budget:,}" for slope, budget in zip(slopes, budgets[1:], strict=True))
    figure = f"GB per 1,024 tokens, from {budgets[0]:,}: {told}"
    return Target("memory grows with a batch's tokens no more than linearly", figure, slopes[-1] <= SLOPE * slopes[-2])


def flat(few: Result, many: Result) -> Target:
    ratio = many.peak / few.peak
    figure = f"{many.peak:.2f} GB with 960 records, {few.peak:.2f} GB with 96"
    return Target("memory does not grow with the data", figure, ratio <= FLAT)


def near_limit(what: str, share: float, of: str) -> Target:
    return Target(f"{what}: at least {100 * LIMIT:.0f} % of what {of} allow", f"{100 * share:.0f} %", share >= LIMIT)
