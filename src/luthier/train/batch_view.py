"""Rows as a training step gets them: where each comes first, and the micro-batch that the loop packs there, taken apart again.

What is shown comes out of the packed batch, by its own indices, and not out of the rows that went in.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from luthier.data.prefixes import SHARED_AT_LEAST
from luthier.data.token_view import BatchPosition
from luthier.model import attention, prefix_sharing
from luthier.model.packed import Packed, TokenRow, pack
from luthier.model.spec import ModelSpec
from luthier.recipe import Train
from luthier.train import order, sanity_check
from luthier.train.objectives import EveryToken, LabelledAnswers, Pairs
from luthier.train.rows import TokenRows, shared_prefixes
from luthier.train.sanity_check import SanityCheck


@dataclass(frozen=True)
class PackedRow:
    """A row as it is in a batch."""

    ids: np.ndarray
    loss_mask: np.ndarray
    """The tokens that are predicted in it."""
    shared: int = 0
    """How many of its first tokens stand in another row."""
    shared_with: int = 0
    """The number of that row in the batch."""


@dataclass(frozen=True)
class BatchedRow:
    """A row in the micro-batch that it is in first; with its rejected twin where pairs are trained."""

    number: int
    position: BatchPosition
    rows: tuple[PackedRow, ...]
    names: tuple[str, ...]
    """Of all rows of the batch, where each came from."""


class _Probes(list[TokenRow]):
    """A few rows of small ids, for a model that knows no others."""

    @property
    def lengths(self) -> list[int]:
        return [len(row.ids) for row in self]

    def location(self, number: int) -> str:
        return f"probe {number + 1}"


def try_rows(spec: ModelSpec, longest: int) -> SanityCheck:
    """What the check before the first step finds of a model's batches, tried on two layers of its kind."""
    model = spec.model_to_try()
    attention.install_attention(model)
    return sanity_check.run(model, _Probes(prefix_sharing.PROBE_ROWS), longest=longest)


def as_checked(settings: Train, *, apart: bool, shared: bool, together: int, longest: int) -> tuple[Train, bool]:
    """The settings after the check of a model's batches, and whether it shares prefixes, as the loop has them."""
    if apart and together == longest:
        return settings, shared
    return settings.model_copy(update={"tokens_per_batch": 1}), False


def as_trained(objective: str | None, rows: TokenRows) -> TokenRows:
    """The rows of a split as an objective sees them; what it computes of the model's own likelihoods is left out."""
    if objective == "text":
        return EveryToken(rows, range(len(rows)))
    if objective == "dpo":
        return Pairs(rows, range(len(rows)), torch.full((len(rows), 2), torch.nan))
    if objective == "kto":
        return LabelledAnswers(rows, range(len(rows)), torch.full((len(rows), 2), torch.nan))
    return rows


def batch_rows(rows: TokenRows, numbers: Sequence[int]) -> list[TokenRow]:
    """The rows of a micro-batch in their order: of pairs, both."""
    if isinstance(rows, Pairs):
        return [row for number in numbers for row in rows.pair(number)]
    return [rows[number] for number in numbers]


def find(
    rows: TokenRows, wanted: Collection[int], settings: Train, *, prefixes_shared: bool = True
) -> Iterator[BatchedRow]:
    """These of a training's rows, each in the micro-batch that it is in first; not those that no step reaches.

    `rows` are as the objective sees them. `settings` are those after the sanity check, which also tells `prefixes_shared`.
    """
    steps = order.Steps.of(rows.lengths, settings, shared=shared_prefixes(rows), computed_once=prefixes_shared)
    missing = set(wanted)
    for number in range(len(steps)):
        if not missing:
            return
        step = steps[number]
        for at, batch in enumerate(step.batches):
            if found := missing.intersection(batch):
                missing -= found
                position = (number + 1, len(steps), at + 1, len(step.batches))
                yield from _in_batch(rows, batch, found, position, settings, prefixes_shared=prefixes_shared)


def _in_batch(
    rows: TokenRows,
    batch: order.Batch,
    wanted: Collection[int],
    position: tuple[int, int, int, int],
    settings: Train,
    *,
    prefixes_shared: bool,
) -> Iterator[BatchedRow]:
    inside = batch_rows(rows, batch)
    each = len(inside) // len(batch)
    size = 1 if settings.tokens_per_batch == 1 else len(inside)
    packed = [pack_rows(inside[start : start + size], share=prefixes_shared) for start in range(0, len(inside), size)]
    unpacked = [row for one in packed for row in unpack(one)]
    computed = sum(len(one.tokens) for one in packed)
    where = BatchPosition(*position, rows=len(inside), tokens=sum(len(row.ids) for row in inside), computed=computed)
    names = tuple(rows.location(number) for number in batch for _ in range(each))
    for at, number in enumerate(batch):
        if number in wanted:
            yield BatchedRow(number, where, tuple(unpacked[at * each : (at + 1) * each]), names)


def pack_rows(rows: Sequence[TokenRow], *, share: bool) -> Packed:
    """The batch that `prefix_sharing.pack_batch` makes of these rows for a model of which it is known whether it shares."""
    return pack(rows, torch.device("cpu"), share_at_least=SHARED_AT_LEAST if share and len(rows) > 1 else None)


def unpack(batch: Packed) -> list[PackedRow]:
    """The rows of a batch as the model sees them, with the tokens that are predicted in each."""
    tokens, ends = batch.tokens.numpy(), np.cumsum(batch.loss_tokens_by_row)[:-1]
    predicted_from = np.split(batch.predicted_from.numpy(), ends)
    targets = np.split(batch.targets.numpy(), ends)
    rows = []
    for number, path in enumerate(batch.segments.paths):
        ids, loss_mask = tokens[path], np.zeros(len(path), dtype=bool)
        loss_mask[1:] = np.isin(path[:-1], predicted_from[number])
        assert (ids[loss_mask] == targets[number]).all()
        prefix = batch.segments.shared[number] if batch.segments.shared else None
        rows.append(PackedRow(ids, loss_mask, *((prefix.tokens, prefix.row) if prefix else ())))
    return rows
