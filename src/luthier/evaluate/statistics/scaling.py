"""What more data would bring: scores over amounts of data, fitted by a line over the logarithm of the amount.

All points answer the same test items, so an item has a slope of its own and the curve's slope is their mean; its interval
is the bootstrap's over items (groups, where they repeat), as everywhere. How far the points stray from the line, which
holds the chance of single training runs and any bend of the curve, is added to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from luthier.evaluate import statistics
from luthier.evaluate.statistics import Interval

Word = Literal["MORE HELPS", "MORE HURTS", "LITTLE CHANGE", "CANNOT TELL"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Doubling:
    """What twice the data would change, in units of the score, higher is better; and what the last step changed."""

    word: Word
    gain: float
    interval: Interval
    rows: int
    """Training rows of the largest point, which would become twice as many."""
    last_gain: float
    last_interval: Interval
    last_from: int
    stray: float
    """Standard error of the slope from the points' distances to the line; 0 for two points, which always lie on one."""
    room: float | None
    """The distance to the best possible score, which no gain can exceed; None where there is no best score."""


def doubling(
    rows: Sequence[int],
    scores: Sequence[Sequence[float]],
    groups: Sequence[str],
    *,
    margin: float,
    seed: int,
    ceiling: float | None = None,
) -> Doubling:
    """The fit of mean scores over log2 of the training rows, from at least two amounts in any order.

    `scores` has for each amount those of all items, in the same order. A gain inside ± margin is LITTLE CHANGE; an
    interval that leaves open whether there is any gain is CANNOT TELL. `ceiling` is the best possible score: no gain leads
    above it, and close to it every gain is LITTLE CHANGE.
    """
    order = sorted(range(len(rows)), key=lambda at: rows[at])
    x = np.log2([rows[at] for at in order])
    table: NDArray[np.float64] = np.array([scores[at] for at in order], dtype=np.float64)  # points, items
    centred = x - x.mean()
    slopes = centred @ table / (centred @ centred)
    gain = float(slopes.mean())
    items = _over_items(slopes, groups, largest_slope=float(np.abs(centred).max() / (centred @ centred)), seed=seed)
    stray = _stray(centred, table.mean(axis=1), gain)
    z = 1.959964
    low = gain - math.hypot(gain - items.low, z * stray)
    high = gain + math.hypot(items.high - gain, z * stray)
    room = None if ceiling is None else ceiling - float(table[-1].mean())
    if room is not None:
        gain, low, high = (min(value, room) for value in (gain, low, high))
    return Doubling(
        word=_word(low, high, margin),
        gain=gain,
        interval=Interval(low, high),
        rows=rows[order[-1]],
        last_gain=float((table[-1] - table[-2]).mean()),
        last_interval=statistics.paired_interval(
            table[-1].tolist(), table[-2].tolist(), groups, confidence=CONFIDENCE, seed=seed
        ),
        last_from=rows[order[-2]],
        stray=stray,
        room=room,
    )


def _over_items(slopes: NDArray[np.float64], groups: Sequence[str], *, largest_slope: float, seed: int) -> Interval:
    """The bootstrap's interval of the mean slope; where all items have the same, what unseen items could change it to.

    `largest_slope` is that of an item that gains a whole 1 at one end.
    """
    grouped = statistics.units(slopes, groups)
    if grouped.varied:
        return statistics.bca_interval(slopes, groups, confidence=CONFIDENCE, seed=seed)
    blind = largest_slope * statistics.unseen(len(grouped.sums), CONFIDENCE)
    return Interval(grouped.mean - blind, grouped.mean + blind)


def _stray(centred: NDArray[np.float64], means: NDArray[np.float64], slope: float) -> float:
    """sqrt(Σ residual² / (k − 2) / Σ (x − x̄)²), the textbook standard error of a slope; 0 for k = 2."""
    if len(means) < 3:
        return 0.0
    residuals = means - means.mean() - slope * centred
    return math.sqrt(float(residuals @ residuals) / (len(means) - 2) / float(centred @ centred))


def _word(low: float, high: float, margin: float) -> Word:
    if -margin < low and high < margin:
        return "LITTLE CHANGE"
    if low > 0:
        return "MORE HELPS"
    return "MORE HURTS" if high < 0 else "CANNOT TELL"
