"""Which texts were met before, and where first: digests in sorted arrays, so that a million rows are known by 24 MB."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DIGEST = np.dtype([("low", "<u8"), ("high", "<u8")])
"""The 16 bytes of a digest as two numbers."""


class _Known(NamedTuple):
    """Digests that were met, by their lower half in order, each with its number."""

    low: np.ndarray
    high: np.ndarray
    numbers: np.ndarray

    def merged(self, other: "_Known") -> "_Known":
        low, high, numbers = (np.concatenate(both) for both in zip(self, other, strict=True))
        order = np.argsort(low, kind="stable")
        return _Known(low[order], high[order], numbers[order])


class FirstSeen:
    """Digest → the number with which it came first. What is known lies in arrays that double: few to search, few to merge."""

    def __init__(self) -> None:
        self._known: list[_Known] = []

    def look_up(self, digests: Sequence[bytes], numbers: Sequence[int]) -> list[int]:
        """Of each digest the number with which it came first: among these, which are remembered, or at any time before."""
        if not digests:
            return []
        keys = np.frombuffer(b"".join(digests), DIGEST)
        order = np.lexsort((keys["high"], keys["low"]))  # stable: of equal ones the first comes first
        low, high = keys["low"][order], keys["high"][order]
        own = np.asarray(numbers, np.int64)[order]
        new = np.append(True, (low[1:] != low[:-1]) | (high[1:] != high[:-1]))
        found = own[np.maximum.accumulate(np.where(new, np.arange(len(own)), 0))]
        for known in self._known:
            at = np.minimum(np.searchsorted(known.low, low), len(known.low) - 1)
            hit = (known.low[at] == low) & (known.high[at] == high)
            found[hit] = known.numbers[at[hit]]
            new &= ~hit
        if new.any():
            self._known.append(_Known(low[new], high[new], own[new]))
        while len(self._known) > 1 and len(self._known[-2].low) < 2 * len(self._known[-1].low):
            self._known[-2:] = [self._known[-2].merged(self._known[-1])]
        firsts = np.empty_like(found)
        firsts[order] = found
        return [int(first) for first in firsts]


class Locations:
    """Where rows stand, by number: what follows the file's name, a few bytes each."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = sorted(files, key=len, reverse=True)
        self._file = np.zeros(1024, np.int32)
        self._ends = np.zeros(1025, np.int64)
        self._rest = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, location: str) -> None:
        if self._count == len(self._file):
            self._file = np.append(self._file, np.zeros(self._count, np.int32))
            self._ends = np.append(self._ends, np.zeros(self._count, np.int64))
        file = next((number for number, name in enumerate(self._files) if location.startswith(name)), -1)
        self._rest += location.removeprefix(self._files[file] if file >= 0 else "").encode("utf-8", "surrogatepass")
        self._file[self._count] = file
        self._count += 1
        self._ends[self._count] = len(self._rest)

    def __getitem__(self, number: int) -> str:
        rest = self._rest[self._ends[number] : self._ends[number + 1]].decode("utf-8", "surrogatepass")
        return (self._files[self._file[number]] if self._file[number] >= 0 else "") + rest
