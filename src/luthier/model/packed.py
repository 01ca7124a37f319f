"""Rows of a batch packed one after the other: nothing is padded, and each row attends to itself only.

A prefix that several rows share stands in the batch once, in one of them; the others have their own tokens there, each with the
position that it has in its row. So a batch is a forest, and a row is a path in it.

Position ids tell where a token stands in its row. From them transformers builds a mask that keeps rows apart, for every
attention it knows, as long as nothing is shared; `luthier.model.attention` gets the rows' paths besides and needs no mask. It
pads rows of like length to one length, so that a long row costs what it costs alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from luthier.data.prefixes import common_prefix


class TokenRow(Protocol):
    """A row's token ids and its loss mask, as arrays of one length."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def loss_mask(self) -> np.ndarray: ...


PADDED = {"cpu": 64**2, "cuda": 1024**2}
"""Pairs of tokens that padding may add to a bucket: about what the calls for one bucket more cost."""


@dataclass(frozen=True)
class SharedPrefix:
    """The first tokens of a row that stand in another row of its batch."""

    row: int
    """The row that the last of them is an own token of."""
    tokens: int


@dataclass(frozen=True, eq=False)
class Layout:
    """Tokens of a batch as rows of one length, zeros where a row is shorter."""

    rows: int
    time: int
    indices: Int[Tensor, " tokens"]
    """Where its tokens stand in the batch."""
    slots: Int[Tensor, " tokens"] | None
    """Where they stand in the layout, `time` slots a row; None where they fill it."""


@dataclass(frozen=True, eq=False)
class Bucket:
    """Rows that attend together: keys from their first token on, queries from position `start` on.

    The query of a shared token is computed along where another row's own tokens start earlier; nobody collects what it gives.
    """

    rows: int
    start: int
    longest: int
    keys: Layout
    queries: Layout
    own: Layout
    """The slots of `queries` whose tokens are the rows' own."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the rows lie in a packed batch."""

    lengths: tuple[int, ...]
    """Of whole rows, shared prefixes included."""
    device: torch.device
    shared: tuple[SharedPrefix | None, ...] = ()
    """What each row shares with another; empty where nothing is shared."""
    longest_expected: int = 0
    """The longest row that is to come, where it is longer than those of this batch: a window must not be shorter."""

    @property
    def longest(self) -> int:
        return max(self.longest_expected, *self.lengths)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The position of each row's first own token."""
        return tuple(one.tokens if one else 0 for one in self.shared) or (0,) * len(self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return sum(self.lengths) - sum(self.starts)

    @property
    def shares(self) -> bool:
        return any(self.starts)

    @property
    def even(self) -> bool:
        """Whether all rows have one length and share nothing, so that the batch is its own layout."""
        return len(set(self.lengths)) == 1 and not self.shares

    @cached_property
    def paths(self) -> list[np.ndarray]:
        """The indices of each row's tokens in the batch."""
        own = np.split(np.arange(self.tokens), np.cumsum(np.subtract(self.lengths, self.starts))[:-1])
        if not self.shares:
            return own
        paths = list(own)
        # A shared prefix lies in a row that starts earlier.
        for row in sorted(range(len(own)), key=self.starts.__getitem__):
            if one := self.shared[row]:
                paths[row] = np.concatenate([paths[one.row][: one.tokens], own[row]])
        return paths

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The rows by what they share and by length, as few buckets as padding allows; a row without own tokens is in none."""
        padded = PADDED.get(self.device.type, PADDED["cuda"])
        return [self._bucket(rows) for rows in group_by_length(self.lengths, padded, self.starts)]

    @cached_property
    def positions(self) -> Int[Tensor, "1 tokens"]:
        """Each token's position in its row, from 0."""
        spans = [np.arange(start, end) for start, end in zip(self.starts, self.lengths, strict=True)]
        return self._moved(spans)[None]

    @cached_property
    def mask(self) -> Bool[Tensor, "1 1 tokens tokens"]:
        """Which tokens each one sees: those before it in its own row. Only for attention that needs one."""
        assert not self.shares
        row = torch.repeat_interleave(torch.tensor(self.lengths, device=self.device))
        return (row[:, None] == row).tril()[None, None]

    def _bucket(self, rows: Sequence[int]) -> Bucket:
        longest = max(self.lengths[row] for row in rows)
        start = min(self.starts[row] for row in rows)
        keys = self._layout(rows, [0] * len(rows), 0, longest)
        queries = self._layout(rows, [start] * len(rows), start, longest) if start else keys
        starts = [self.starts[row] for row in rows]
        own = self._layout(rows, starts, start, longest) if max(starts) > start else queries
        return Bucket(len(rows), start, longest, keys, queries, own)

    def _layout(self, rows: Sequence[int], starts: Sequence[int], first: int, longest: int) -> Layout:
        """The tokens of each row from its `start` on, where `first` is the position of a layout's first slot."""
        time = longest - first
        indices = self._moved([self.paths[row][start:] for row, start in zip(rows, starts, strict=True)])
        if len(indices) == len(rows) * time:
            return Layout(len(rows), time, indices, None)
        spans = zip(rows, starts, strict=True)
        slots = [np.arange(start, self.lengths[row]) - first + at * time for at, (row, start) in enumerate(spans)]
        return Layout(len(rows), time, indices, self._moved(slots))

    def _moved(self, spans: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(spans)).to(self.device)


def group_by_length(lengths: Sequence[int], padded: int, starts: Sequence[int] = ()) -> list[list[int]]:
    """Numbers of rows that attend together as long as padding adds at most so many pairs of tokens.

    Those that share less come first, and the longest of these. A row's pairs are its own tokens times all of its tokens.
    """
    starts = starts or [0] * len(lengths)
    groups: list[list[int]] = []
    start = longest = needed = 0
    rows = [row for row in range(len(lengths)) if lengths[row] > starts[row]]
    for row in sorted(rows, key=lambda row: (starts[row], -lengths[row])):
        pairs = (lengths[row] - starts[row]) * lengths[row]
        together = max(longest, lengths[row])
        more = (len(groups[-1]) + 1) * (together - start) * together - needed - pairs if groups else 0
        if not groups or more > padded:
            groups.append([])
            start, together, needed = starts[row], lengths[row], 0
        groups[-1].append(row)
        longest, needed = together, needed + pairs
    return groups


@dataclass(frozen=True, eq=False)
class Packed:
    """A batch: its rows' tokens, a shared prefix once, and what is to be predicted, row by row.

    A token with a loss in two rows is predicted twice, so that losses are sums over rows, whatever they share.
    """

    tokens: Int[Tensor, " tokens"]
    segments: Segments
    predicted_from: Int[Tensor, " targets"]
    """The index of the token that each one is predicted from. A row's first token follows nothing, so it is never predicted."""
    targets: Int[Tensor, " targets"]
    """The tokens that are predicted."""
    loss_tokens_by_row: tuple[int, ...]
    """How many of them each row has."""

    @property
    def loss_tokens(self) -> int:
        return len(self.predicted_from)


def pack(rows: Sequence[TokenRow], device: torch.device, *, share_at_least: int | None = None) -> Packed:
    """The rows in their order, none of them empty; they share prefixes of so many tokens or more, if any."""
    shared = find_shared_prefixes(rows, share_at_least) if share_at_least is not None and len(rows) > 1 else ()
    segments = Segments(tuple(len(row.ids) for row in rows), device, shared)
    own = [row.ids[start:] for row, start in zip(rows, segments.starts, strict=True)]
    # Positions before the predicted tokens.
    before_targets = [np.flatnonzero(np.asarray(row.loss_mask, dtype=bool)[1:]) for row in rows]
    predicted_from = [path[before] for path, before in zip(segments.paths, before_targets, strict=True)]
    targets = [row.ids[before + 1] for row, before in zip(rows, before_targets, strict=True)]

    def moved(parts: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)

    return Packed(moved(own), segments, moved(predicted_from), moved(targets), tuple(map(len, before_targets)))


def find_shared_prefixes(rows: Sequence[TokenRow], at_least: int) -> tuple[SharedPrefix | None, ...]:
    """What each row shares with the one that stands before it in the order of their tokens; empty where nothing is shared.

    No other row before it has more of its tokens in common, so nothing is computed twice but prefixes that are too short.
    """
    texts = [np.asarray(row.ids).astype(">u4").tobytes() for row in rows]
    order = sorted(range(len(rows)), key=texts.__getitem__)
    found: list[SharedPrefix | None] = [None] * len(rows)
    for before, row in pairwise(order):
        tokens, owner = common_prefix(rows[before].ids, rows[row].ids), before
        while (one := found[owner]) and tokens <= one.tokens:
            owner = one.row
        found[row] = SharedPrefix(owner, tokens) if tokens >= at_least else None
    return tuple(found) if any(found) else ()


def expect_rows_of(batch: Packed, longest_expected: int) -> Packed:
    """The batch, computed as if a row of so many tokens might come."""
    return replace(batch, segments=replace(batch.segments, longest_expected=longest_expected))
