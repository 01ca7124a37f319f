"""Prefixes that rows have in common: those of one conversation above all, where each of its answers has a row."""

from array import array
from collections.abc import Callable, Iterable, Sequence

import numpy as np

SHARED_AT_LEAST = 16
"""Tokens: a shorter beginning saves less than it costs to compute rows in parts."""


def common_prefix(first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray) -> int:
    """How many first tokens two rows have in common."""
    shorter = min(len(first), len(second))
    unequal = np.flatnonzero(np.asarray(first[:shorter]) != np.asarray(second[:shorter]))
    return int(unequal[0]) if len(unequal) else shorter


def shared_with_previous(locations: Iterable[str], ids: Callable[[int], Sequence[int] | np.ndarray]) -> Sequence[int]:
    """Tokens that each row has in common with the one before it from the same location; else, and of too few, 0."""
    found = array("q")
    before: str | None = None
    for row, location in enumerate(locations):
        shared = common_prefix(ids(row - 1), ids(row)) if location == before else 0
        found.append(shared if shared >= SHARED_AT_LEAST else 0)
        before = location
    return found
