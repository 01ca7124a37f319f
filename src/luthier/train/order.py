"""Which rows form which optimizer step: a pure function of the lengths, the seed and the epoch, so a resume needs no state.

Rows are shuffled and cut into steps of a number of tokens. Inside a step, rows of like length share a batch. How a step is
cut into batches that fit into memory does not change which rows are in it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from luthier.recipe import Train

VERSION = "2"  # recorded in checkpoints: another order cannot continue a run exactly

Batch = tuple[int, ...]  # rows of one forward pass


@dataclass(frozen=True)
class Step:
    """The batches whose gradients make one update."""

    epoch: float
    """Passes over the data that are done when this step is."""
    batches: tuple[Batch, ...]


@dataclass(frozen=True)
class Epoch:
    """One pass over all rows: their shuffled order, and where in it each step ends."""

    number: int
    rows: np.ndarray
    ends: np.ndarray

    @classmethod
    def shuffled(cls, lengths: np.ndarray, *, number: int, seed: int, tokens_per_step: int) -> "Epoch":
        """The pass of this number. No step exceeds its tokens, unless a single row does."""
        rows = np.random.Generator(np.random.Philox(key=[seed, number])).permutation(len(lengths))
        return cls(number, rows, _ends(lengths[rows], tokens_per_step))

    def step(self, index: int, lengths: np.ndarray, tokens_per_batch: int) -> Step:
        """The batches of its step `index` (from 0); rows of like length share one."""
        rows = self.rows[self.ends[index - 1] if index else 0 : self.ends[index]]
        rows = rows[np.lexsort((rows, lengths[rows]))]
        ends = _ends(lengths[rows], tokens_per_batch)
        batches = tuple(tuple(batch.tolist()) for batch in np.split(rows, ends[:-1]))
        return Step(self.number + (index + 1) / len(self.ends), batches)


class Steps(Sequence[Step]):
    """The whole training, step by step, each worked out when it is asked for.

    `max_steps` wins over `epochs`, repeating the data as often as it takes. In an epoch each row comes exactly once;
    no batch and no step exceeds its tokens, unless a single row does.

    Shuffling a million rows and cutting them into steps takes some 50 milliseconds, so a run that is continued in a late
    epoch begins at once; only the epoch at hand is kept in memory.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        epochs: int,
        max_steps: int | None,
        seed: int,
        tokens_per_step: int,
        tokens_per_batch: int,
    ) -> None:
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._seed, self._tokens_per_step, self._tokens_per_batch = seed, tokens_per_step, tokens_per_batch
        self._firsts = [0]  # the number of each epoch's first step, as far as known
        self._epoch = self._shuffled(0)
        while not max_steps and len(self._firsts) <= epochs:
            self._learn_next()
        self._steps = max_steps or self._firsts[epochs]

    @classmethod
    def of(cls, lengths: Sequence[int], settings: Train) -> "Steps":
        """The steps of a training with these settings, every one of which is set."""
        assert settings.tokens_per_step and settings.tokens_per_batch and settings.epochs
        return cls(
            lengths,
            epochs=settings.epochs,
            max_steps=settings.max_steps,
            seed=settings.seed,
            tokens_per_step=settings.tokens_per_step,
            tokens_per_batch=settings.tokens_per_batch,
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
            self._learn_next()
        epoch = bisect_right(self._firsts, number) - 1
        if self._epoch.number != epoch:
            self._epoch = self._shuffled(epoch)
        return self._epoch.step(number - self._firsts[epoch], self._lengths, self._tokens_per_batch)

    def _learn_next(self) -> None:
        """Work out how many steps one more epoch has."""
        epoch = len(self._firsts) - 1
        if self._epoch.number != epoch:
            self._epoch = self._shuffled(epoch)
        self._firsts.append(self._firsts[-1] + len(self._epoch.ends))

    def _shuffled(self, number: int) -> Epoch:
        return Epoch.shuffled(self._lengths, number=number, seed=self._seed, tokens_per_step=self._tokens_per_step)


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
