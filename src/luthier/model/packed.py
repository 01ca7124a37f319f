"""Rows of a batch laid end to end: nothing is padded, and each row attends to itself only.

Position ids start anew with each row. From them transformers builds a mask that keeps the rows apart, for every attention
it knows; `luthier.model.attention` gets the rows' lengths besides and needs no mask.
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


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the rows lie in a packed batch."""

    lengths: tuple[int, ...]
    device: torch.device

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @cached_property
    def slots(self) -> Int[Tensor, " tokens"]:
        """Each token's place where rows stand below each other, `longest` places a row."""
        starts = [number * self.longest for number in range(len(self.lengths))]
        return self._each_row(starts)

    @cached_property
    def positions(self) -> Int[Tensor, "1 tokens"]:
        """Each token's place in its row, from 0."""
        return self._each_row([0] * len(self.lengths))[None]

    def _each_row(self, starts: Sequence[int]) -> Tensor:
        rows = [np.arange(start, start + length) for start, length in zip(starts, self.lengths, strict=True)]
        return torch.from_numpy(np.concatenate(rows)).to(self.device)


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
