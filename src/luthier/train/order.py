"""Which rows form which optimizer step: a pure function of the lengths, the seed and the epoch, so a resume needs no state.

Rows are shuffled, sorted by length inside windows of some steps, and cut into steps of like length; the steps of a window are
shuffled again. So hardly any padding is computed, and yet every epoch mixes the rows anew. How a step is cut into batches
that fit into memory does not change which rows are in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

VERSION = "1"  # recorded in checkpoints: another order cannot continue a run exactly
STEPS_PER_WINDOW = 32

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
    """One pass over all rows, each exactly once; padded tokens of a batch ≤ `tokens_per_batch` where a single row allows it."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = generator.permutation(len(lengths)).tolist()
    windows: list[list[int]] = [[]]
    tokens = 0
    for row in order:
        if tokens >= tokens_per_step * STEPS_PER_WINDOW:
            windows.append([])
            tokens = 0
        windows[-1].append(row)
        tokens += lengths[row]
    steps: list[Batch] = []
    for window in windows:
        cut = _cut(sorted(window, key=lambda row: (lengths[row], row)), lengths, tokens_per_step)
        steps += [cut[place] for place in generator.permutation(len(cut))]
    return [
        Step(epoch + number / len(steps), tuple(_cut(rows, lengths, tokens_per_batch)))
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
    return _cut(sorted(range(len(lengths)), key=lambda row: (lengths[row], row)), lengths, tokens_per_batch)


def _cut(rows: Sequence[int], lengths: Sequence[int], budget: int) -> list[Batch]:
    """Cut rows, sorted by length, into batches of at most `budget` padded tokens; the longest row of a batch is its last."""
    batches: list[Batch] = []
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) + 1) * lengths[row] > budget:
            batches.append(tuple(batch))
            batch = []
        batch.append(row)
    return [*batches, tuple(batch)] if batch else batches
