"""Which rows form which optimizer step: a pure function of the lengths, the seed and the epoch, so a resume needs no state.

Rows are shuffled and cut into steps of a number of tokens. Inside a step, rows of like length share a batch. How a step is
cut into batches that fit into memory does not change which rows are in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

VERSION = "2"  # recorded in checkpoints: another order cannot continue a run exactly

Batch = tuple[int, ...]  # rows of one forward pass


@dataclass(frozen=True)
class Step:
    """The batches whose gradients make one update."""

    epoch: float
    """Passes over the data that are done when this step is."""
    batches: tuple[Batch, ...]


def epoch_steps(
    lengths: Sequence[int], *, epoch: int, seed: int, tokens_per_step: int, tokens_per_batch: int
) -> list[Step]:
    """One pass over all rows, each exactly once; no batch and no step exceeds its tokens, unless a single row does."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    steps = _cut(generator.permutation(len(lengths)).tolist(), lengths, tokens_per_step)
    return [
        Step(epoch + number / len(steps), tuple(_cut(_sorted(rows, lengths), lengths, tokens_per_batch)))
        for number, rows in enumerate(steps, start=1)
    ]


def all_steps(
    lengths: Sequence[int],
    *,
    epochs: int,
    max_steps: int | None,
    seed: int,
    tokens_per_step: int,
    tokens_per_batch: int,
) -> list[Step]:
    """The whole training, step by step. `max_steps` wins over `epochs`, repeating the data as often as it takes."""
    steps: list[Step] = []
    epoch = 0
    while (len(steps) < max_steps) if max_steps else (epoch < epochs):
        steps += epoch_steps(
            lengths, epoch=epoch, seed=seed, tokens_per_step=tokens_per_step, tokens_per_batch=tokens_per_batch
        )
        epoch += 1
    return steps[:max_steps] if max_steps else steps


def by_length(lengths: Sequence[int], tokens_per_batch: int) -> list[Batch]:
    """Batches of like length over all rows in a fixed order, for looking without learning."""
    return _cut(_sorted(range(len(lengths)), lengths), lengths, tokens_per_batch)


def _sorted(rows: Sequence[int], lengths: Sequence[int]) -> list[int]:
    return sorted(rows, key=lambda row: (lengths[row], row))


def _cut(rows: Sequence[int], lengths: Sequence[int], budget: int) -> list[Batch]:
    """Cut rows in their order into batches of at most `budget` tokens."""
    batches: list[Batch] = []
    batch: list[int] = []
    tokens = 0
    for row in rows:
        if batch and tokens + lengths[row] > budget:
            batches.append(tuple(batch))
            batch, tokens = [], 0
        batch.append(row)
        tokens += lengths[row]
    return [*batches, tuple(batch)] if batch else batches
