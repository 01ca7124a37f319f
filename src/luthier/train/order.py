"""Which rows form which optimizer step: a pure function of the lengths, the seed and the epoch, so a resume needs no state.

Rows are shuffled and cut into steps of a number of tokens. Inside a step, rows of like length share a batch. How a step is
cut into batches that fit into memory does not change which rows are in it.

Rows of one conversation, one for each of its answers, stay together: in one step, and in one batch, as far as they fit. A step
counts tokens of whole rows. A batch counts what it computes: of a row's shared prefix a part only.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from luthier.recipe import Train

VERSION = "3"  # recorded in checkpoints: another order cannot continue a run exactly

Batch = tuple[int, ...]  # rows of one forward pass

READ_AGAIN = 4
"""A shared token counts as one in so many: its keys and values stand in memory once more for each row that shares it. They are
two of the twelve numbers and more that a layer keeps of a computed token, per number of its width, or fewer."""


@dataclass(frozen=True)
class Step:
    """The batches whose gradients make one update."""

    epoch: float
    """Passes over the data that are done when this step is."""
    batches: tuple[Batch, ...]
    """Of this process, where there are several."""
    rows: Batch
    """All rows of the step, of whichever process, in their shuffled order."""


@dataclass(frozen=True)
class Pieces:
    """Rows in pieces that stay together, in their order: a conversation's, or as many of them as fit into a budget."""

    firsts: np.ndarray
    """The first row of each piece."""
    tokens: np.ndarray
    """Of each piece."""
    longest: np.ndarray
    """Tokens of the longest row of each piece."""
    count: int
    """Rows of all pieces."""

    @classmethod
    def cut(cls, lengths: np.ndarray, shared: np.ndarray, budget: int, *, read_again: int | None) -> "Pieces":
        """Pieces of at most `budget` tokens, unless a single row has more.

        `shared` tells with how many tokens a row begins like the one before it, where both are of one conversation. They count
        as one in `read_again` where they are in the piece already; None: wholly.
        """
        costs = lengths if read_again is None else lengths - shared + -(-shared // read_again)
        firsts, tokens = np.flatnonzero(shared == 0), costs.copy()
        ends = np.append(firsts[1:], len(lengths))
        if len(firsts) < len(lengths):
            further = [
                first + end
                for first, end in zip(firsts.tolist(), ends.tolist(), strict=True)
                if end - first > 1
                for end in _conversation(lengths[first:end], costs[first:end], budget)
            ]
            firsts = np.sort(np.concatenate([firsts, np.asarray(further, dtype=np.int64)]))
            tokens[firsts] = lengths[firsts]
        if not len(firsts):
            return cls(firsts, firsts, firsts, 0)
        return cls(firsts, np.add.reduceat(tokens, firsts), np.maximum.reduceat(lengths, firsts), len(lengths))

    def rows(self, pieces: np.ndarray) -> np.ndarray:
        """The rows of these pieces, in their order."""
        counts = np.diff(np.append(self.firsts, self.count))[pieces]
        starts = np.cumsum(counts) - counts
        return np.repeat(self.firsts[pieces] - starts, counts) + np.arange(counts.sum())

    def holding(self, rows: np.ndarray) -> np.ndarray:
        """The pieces that these rows are in."""
        return np.unique(np.searchsorted(self.firsts, rows, side="right") - 1)

    def batches(self, chosen: np.ndarray, budget: int) -> tuple[Batch, ...]:
        """Batches of these pieces, those of like length together."""
        ordered = chosen[np.lexsort((chosen, self.longest[chosen]))]
        ends = _ends(self.tokens[ordered], budget)
        return tuple(tuple(self.rows(batch).tolist()) for batch in np.split(ordered, ends[:-1]))

    def share(self, chosen: np.ndarray, rank: int, of: int) -> np.ndarray:
        """Which of these pieces the process `rank` of so many takes: the longest left goes to whoever has least so far."""
        loads, taken = [0] * of, []
        for piece in chosen[np.lexsort((chosen, -self.tokens[chosen]))].tolist():
            least = loads.index(min(loads))
            loads[least] += int(self.tokens[piece])
            if least == rank:
                taken.append(piece)
        return np.asarray(taken, dtype=np.int64)


def _conversation(lengths: np.ndarray, costs: np.ndarray, budget: int) -> list[int]:
    """Where a conversation's rows are cut: the first row of each further piece, which shares nothing."""
    found, used = [], int(lengths[0])
    for row in range(1, len(lengths)):
        used += int(costs[row])
        if used > budget:
            found.append(row)
            used = int(lengths[row])
    return found


@dataclass(frozen=True)
class Epoch:
    """One pass over all rows: their pieces in shuffled order, and where in it each step ends."""

    number: int
    pieces: np.ndarray
    ends: np.ndarray

    @classmethod
    def shuffled(cls, together: Pieces, *, number: int, seed: int, tokens_per_step: int) -> "Epoch":
        """The pass of this number. No step exceeds its tokens, unless a single row does."""
        pieces = np.random.Generator(np.random.Philox(key=[seed, number])).permutation(len(together.firsts))
        return cls(number, pieces, _ends(together.tokens[pieces], tokens_per_step))

    def step(self, index: int) -> np.ndarray:
        """The pieces of its step `index` (from 0)."""
        return self.pieces[self.ends[index - 1] if index else 0 : self.ends[index]]


class Steps(Sequence[Step]):
    """The whole training, step by step, each worked out when it is asked for.

    `shared` tells with how many tokens each row begins like the one before it, where both are of one conversation; else 0. With
    `computed_once` the model computes such a prefix once for all rows of a batch.

    `max_steps` wins over `epochs`, repeating the data as often as it takes. In an epoch each row comes exactly once;
    no batch and no step exceeds its tokens, unless a single row does.

    `share` is which process this is, of how many. The rows of a step and their order do not depend on it, only which batches
    they are computed in: each process has its own, with about as many tokens as the others; with `in_step` as many batches as
    the others too, of which some may be empty.

    Shuffling a million rows and cutting them into steps takes some 50 milliseconds, so a run that is continued in a late
    epoch begins at once; only the epoch at hand is kept in memory.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        *,
        epochs: int,
        max_steps: int | None,
        seed: int,
        tokens_per_step: int,
        tokens_per_batch: int,
        shared: Sequence[int] | np.ndarray = (),
        computed_once: bool = True,
        share: tuple[int, int] = (0, 1),
        in_step: bool = False,
    ) -> None:
        self._share, self._in_step = share, in_step
        self._lengths = np.asarray(lengths, dtype=np.int64)
        inside = np.array(shared if len(shared) else np.zeros(len(lengths)), dtype=np.int64)
        self._of_steps = Pieces.cut(self._lengths, inside, tokens_per_step, read_again=None)
        inside[self._of_steps.firsts] = 0  # a batch does not reach beyond its step
        read_again = READ_AGAIN if computed_once else None
        self._of_batches = Pieces.cut(self._lengths, inside, tokens_per_batch, read_again=read_again)
        self._seed, self._tokens_per_step, self._tokens_per_batch = seed, tokens_per_step, tokens_per_batch
        self._firsts = [0]  # the number of each epoch's first step, as far as known
        self._epoch = self._shuffled(0)
        while not max_steps and len(self._firsts) <= epochs:
            self._count_next()
        self._steps = max_steps or self._firsts[epochs]

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        settings: Train,
        *,
        shared: Sequence[int] = (),
        computed_once: bool = True,
        share: tuple[int, int] = (0, 1),
        in_step: bool = False,
    ) -> "Steps":
        """The steps of a training with these settings, every one of which is set."""
        assert settings.tokens_per_step and settings.tokens_per_batch and settings.epochs
        return cls(
            lengths,
            epochs=settings.epochs,
            max_steps=settings.max_steps,
            seed=settings.seed,
            tokens_per_step=settings.tokens_per_step,
            tokens_per_batch=settings.tokens_per_batch,
            shared=shared,
            computed_once=computed_once,
            share=share,
            in_step=in_step,
        )

    @property
    def tokens(self) -> float:
        """Tokens of all steps together, nearly: a part of an epoch counts by its share of the epoch's steps."""
        return self[-1].epoch * float(self._lengths.sum())

    def __len__(self) -> int:
        return self._steps

    @overload
    def __getitem__(self, number: int) -> Step: ...
    @overload
    def __getitem__(self, number: slice) -> list[Step]: ...
    def __getitem__(self, number: int | slice) -> Step | list[Step]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        while number >= self._firsts[-1]:
            self._count_next()
        epoch = bisect_right(self._firsts, number) - 1
        if self._epoch.number != epoch:
            self._epoch = self._shuffled(epoch)
        index = number - self._firsts[epoch]
        rows = self._of_steps.rows(self._epoch.step(index))
        pieces, (rank, of) = self._of_batches.holding(rows), self._share
        batches = self._batches(pieces, rank, of)
        if self._in_step:
            most = max(len(self._batches(pieces, other, of)) for other in range(of))
            batches += ((),) * (most - len(batches))
        return Step(self._epoch.number + (index + 1) / len(self._epoch.ends), batches, tuple(rows.tolist()))

    def _batches(self, pieces: np.ndarray, rank: int, of: int) -> tuple[Batch, ...]:
        """The batches in which a process computes its share of a step's pieces."""
        own = self._of_batches.share(pieces, rank, of) if of > 1 else pieces
        return self._of_batches.batches(own, self._tokens_per_batch) if len(own) else ()

    def _count_next(self) -> None:
        """Work out how many steps one more epoch has."""
        epoch = len(self._firsts) - 1
        if self._epoch.number != epoch:
            self._epoch = self._shuffled(epoch)
        self._firsts.append(self._firsts[-1] + len(self._epoch.ends))

    def _shuffled(self, number: int) -> Epoch:
        return Epoch.shuffled(self._of_steps, number=number, seed=self._seed, tokens_per_step=self._tokens_per_step)


def by_length(lengths: Sequence[int], tokens_per_batch: int) -> list[Batch]:
    """Batches of like length over all rows in a fixed order, for looking without learning."""
    array = np.asarray(lengths, dtype=np.int64)
    if not len(array):
        return []
    rows = np.argsort(array, kind="stable")
    return [tuple(batch.tolist()) for batch in np.split(rows, _ends(array[rows], tokens_per_batch)[:-1])]


def _ends(lengths: np.ndarray, budget: int) -> np.ndarray:
    """Cut rows in their order into pieces of at most `budget` tokens: where each piece ends."""
    sums = np.concatenate([[0], np.cumsum(lengths)])
    ends: list[int] = []
    end = 0
    while end < len(lengths):
        end = max(end + 1, int(np.searchsorted(sums, sums[end] + budget, side="right")) - 1)
        ends.append(end)
    return np.asarray(ends, dtype=np.int64)
