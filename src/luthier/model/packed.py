"""Rows of a batch laid end to end: nothing is padded, and each row attends to itself only.

Position ids start anew with each row. From them transformers builds a mask that keeps the rows apart, for every attention
it knows; `luthier.model.attention` gets the rows' lengths besides and needs no mask. It lays rows of like length below each
other, so that a long row costs what it costs alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor


class TokenRow(Protocol):
    """A row's token ids and which of them are learnt, as arrays of one length."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def learn(self) -> np.ndarray: ...


PADDED = {"cpu": 64**2, "cuda": 1024**2}
"""Pairs of tokens that padding may add to a bucket: about what the calls for one bucket more cost."""


@dataclass(frozen=True, eq=False)
class Bucket:
    """Rows of like length, which are laid below each other, zeros behind the shorter ones."""

    rows: int
    longest: int
    places: Int[Tensor, " tokens"]
    """Where its tokens lie in the batch."""
    slots: Int[Tensor, " tokens"] | None
    """Where they lie in the layout, `longest` places a row; None where all rows have one length."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the rows lie in a packed batch."""

    lengths: tuple[int, ...]
    device: torch.device

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def even(self) -> bool:
        """Whether all rows have one length, so that the batch is its own layout."""
        return len(set(self.lengths)) == 1

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The rows by length, the longest first, as few buckets as padding allows."""
        starts = np.cumsum([0, *self.lengths])
        return [
            self._bucket(rows, starts) for rows in alike(self.lengths, PADDED.get(self.device.type, PADDED["cuda"]))
        ]

    @cached_property
    def positions(self) -> Int[Tensor, "1 tokens"]:
        """Each token's place in its row, from 0."""
        return self._spans([0] * len(self.lengths), self.lengths)[None]

    @cached_property
    def mask(self) -> Bool[Tensor, "1 1 tokens tokens"]:
        """Which tokens each one sees: those before it in its own row. Only for attention that needs one."""
        row = torch.repeat_interleave(torch.tensor(self.lengths, device=self.device))
        return (row[:, None] == row).tril()[None, None]

    def _bucket(self, rows: Sequence[int], starts: np.ndarray) -> Bucket:
        lengths = [self.lengths[row] for row in rows]
        longest = max(lengths)
        below = [number * longest for number in range(len(rows))]
        slots = self._spans(below, lengths) if len(set(lengths)) > 1 else None
        return Bucket(len(rows), longest, self._spans([int(starts[row]) for row in rows], lengths), slots)

    def _spans(self, starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
        rows = [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        return torch.from_numpy(np.concatenate(rows)).to(self.device)


def alike(lengths: Sequence[int], padded: int) -> list[list[int]]:
    """Numbers of rows, the longest first, together as long as padding adds at most so many pairs of tokens."""
    groups: list[list[int]] = []
    longest = added = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        more = longest**2 - lengths[row] ** 2
        if not groups or added + more > padded:
            groups.append([])
            longest, added, more = lengths[row], 0, 0
        groups[-1].append(row)
        added += more
    return groups


@dataclass(frozen=True, eq=False)
class Packed:
    """A batch: its rows' tokens end to end, and which of them are learnt."""

    tokens: Int[Tensor, " tokens"]
    learn: Bool[Tensor, " tokens"]
    segments: Segments

    @cached_property
    def targets(self) -> Int[Tensor, " learnt"]:
        """Places of the tokens that a loss is taken on. A row's first token follows nothing, so it is none of them."""
        return (self.learn & (self.segments.positions[0] > 0)).nonzero()[:, 0]

    @property
    def learnt(self) -> int:
        return len(self.targets)

    @cached_property
    def learnt_by_row(self) -> list[int]:
        """How many of the targets each row has."""
        targets = self.learn & (self.segments.positions[0] > 0)
        return [int(row.sum()) for row in targets.split(list(self.segments.lengths))]


def pack(rows: Sequence[TokenRow], device: torch.device) -> Packed:
    """The rows in their order, none of them empty."""
    tokens = torch.from_numpy(np.concatenate([row.ids for row in rows]).astype(np.int64)).to(device)
    learn = torch.from_numpy(np.concatenate([row.learn for row in rows]).astype(bool)).to(device)
    return Packed(tokens, learn, Segments(tuple(len(row.ids) for row in rows), device))
