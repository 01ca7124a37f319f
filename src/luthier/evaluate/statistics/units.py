"""The units that are independent: single items, or whole groups (documents, customers) where one occurs more than once.

The items of a group are not independent of each other, so a group is resampled, sign-flipped and counted as one unit.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SAME = 1e-9  # scores that differ by less are the same
RESAMPLES = 10_000
_CELLS = 1_000_000  # numbers drawn at a time: 8 MB


class Units(NamedTuple):
    """The sum and the number of items of each group, or of each item where no group repeats."""

    sums: Floats
    sizes: Floats

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def changed(self) -> int:
        """How many units are not 0."""
        return int((np.abs(self.sums) > SAME).sum())

    @property
    def varied(self) -> bool:
        """Whether the units differ from each other, so that an error can be estimated at all."""
        return self.standard_error > SAME

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
    """The values summed by group, in order of first appearance; without groups each value is a unit of its own."""
    array = floats(values)
    if groups is None:
        return Units(array, np.ones_like(array))
    number_of = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    member = np.array([number_of[group] for group in groups], dtype=np.intp)
    sums, sizes = np.bincount(member, weights=array), np.bincount(member)
    return Units(sums.astype(np.float64), sizes.astype(np.float64))


def repeated(groups: Sequence[str]) -> bool:
    """Whether a group occurs more than once, so that the groups and not the items are independent."""
    return len(set(groups)) < len(groups)


def design_effect(values: Sequence[float] | Floats, groups: Sequence[str]) -> float:
    """How many times more items these groups need than independent ones would, for the same standard error.

    The ratio of the two squared standard errors; for groups of equal size m it estimates 1 + (m - 1)·ICC (Kish 1965).
    1 where nothing varies.
    """
    alone = units(values).standard_error
    return (units(values, groups).standard_error / alone) ** 2 if alone > SAME else 1.0


def floats(scores: Sequence[float] | Floats) -> Floats:
    return np.asarray(scores, dtype=np.float64)


def two_valued(*scores: Sequence[float] | Floats) -> bool:
    """Whether all scores are 0 or 1."""
    return all(bool(np.isin(floats(each), (0.0, 1.0)).all()) for each in scores)


def batches(total: int, columns: int) -> Iterator[int]:
    """Numbers of rows that add up to `total`, each small enough for the memory."""
    rows = max(1, _CELLS // columns)
    for start in range(0, total, rows):
        yield min(rows, total - start)
