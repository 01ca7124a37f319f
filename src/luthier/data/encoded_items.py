"""Items with their rows as they lie in a file, made a block at a time, with the few numbers of each that stay in memory."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from luthier.chat import Encoded, Template
from luthier.data import encoding, prefixes, splits
from luthier.data.dataset import Item
from luthier.data.prepared import group_name, record_batch, size_of

NUMBERS = ("length", "loss", "thoughts", "answer", "shared")
"""Of each row: its tokens, its loss tokens, its longest thoughts and its longest answer, and how many tokens it shares with
the row before it."""


def size_and_digest(item: Item) -> tuple[int, int]:
    """Characters of question and answer, and a digest of the answer as a number."""
    conversation = item.conversation
    answer = hashlib.blake2b(conversation.answer.encode("utf-8"), digest_size=8).digest()
    return len(conversation.question) + len(conversation.answer), int.from_bytes(answer, signed=True)


@dataclass(frozen=True)
class EncodedItems:
    """Some items with their rows as they lie in the file, and the numbers that stay in memory."""

    batch: pa.RecordBatch
    counts: np.ndarray
    """Rows of each item."""
    sizes: np.ndarray
    """About how much of a batch each row takes."""
    numbers: dict[str, np.ndarray]
    """NUMBERS of each row."""
    traits: np.ndarray
    """Of each item its id as a number, its size and the digest of its answer; see `StoredItems.traits`."""
    groups: list[bytes]
    shares: list[bytes]
    """Digests of each item's group; for shares none where all of train is used."""
    documents: bool

    @classmethod
    def of(cls, items: Sequence[tuple[Item, Sequence[Encoded]]], template: Template, *, shares: bool) -> "EncodedItems":
        """Items with a row at least each."""
        rows: list[tuple[Item, Encoded]] = []
        shared: list[int] = []
        sizes: list[int] = []
        for item, encoded in items:
            before: tuple[Item, Encoded] | None = None
            for piece, row in encoding.pieces(item, encoded):
                same = prefixes.common_prefix(before[1].ids, row.ids) if before else 0
                shared.append(same if same >= prefixes.SHARED_AT_LEAST else 0)
                sizes.append(size_of(piece, row, before=before and before[0]))
                rows.append(before := (piece, row))
        batch = record_batch(rows, before=None)
        lengths, loss, longest = _sizes(batch)
        thoughts = np.zeros(len(rows), np.int64)
        if template.thinks:
            replies = [encoding.parts(row, template) for _, row in rows]
            thoughts, longest = np.array(replies, np.int64).reshape(-1, 2).T
        found = (lengths, loss, thoughts, longest, np.array(shared, np.int64))
        traits = [(int.from_bytes(bytes.fromhex(item.id), signed=True), *size_and_digest(item)) for item, _ in items]
        return cls(
            batch,
            np.array([len(encoded) for _, encoded in items], np.int64),
            np.array(sizes, np.int64),
            dict(zip(NUMBERS, found, strict=True)),
            np.array(traits, np.int64).reshape(-1, 3),
            [splits.digest(item.group) for item, _ in items],
            [splits.share_digest(item.group) for item, _ in items] if shares else [],
            bool(items) and items[-1][0].conversation.is_document,
        )

    def only(self, items: Sequence[int]) -> "EncodedItems":
        """Those of these numbers, which are in order."""
        if len(items) == len(self.counts):
            return self
        chosen = np.array(items, np.int64)
        counts, starts = self.counts[chosen], np.cumsum(self.counts) - self.counts
        rows = np.repeat(starts[chosen] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return replace(
            self,
            batch=self.batch.take(pa.array(rows)),
            counts=counts,
            sizes=self.sizes[rows],
            numbers={name: numbers[rows] for name, numbers in self.numbers.items()},
            traits=self.traits[chosen],
            groups=[self.groups[item] for item in items],
            shares=[self.shares[item] for item in items] if self.shares else [],
        )

    def in_groups(self, names: Mapping[int, str]) -> "EncodedItems":
        """The same, some of the items, by their numbers, in groups of these names."""
        groups, shares, column = self.groups.copy(), self.shares.copy(), self.batch["group"].to_pylist()
        ends = np.cumsum(self.counts).tolist()
        for item, name in names.items():
            groups[item] = splits.digest(name)
            shares[item : item + 1] = [splits.share_digest(name)] if shares else []
            for row in range(ends[item] - int(self.counts[item]), ends[item]):
                column[row] = group_name(name)
        at = self.batch.schema.get_field_index("group")
        batch = self.batch.set_column(at, "group", pa.array(column, pa.string()))
        return replace(self, batch=batch, groups=groups, shares=shares)


def _sizes(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row its tokens with its rejected twin's, its loss tokens, and the longest run of these."""
    offsets = batch["ids"].offsets.to_numpy()
    lengths = np.diff(offsets) + np.diff(batch["rejected_ids"].offsets.to_numpy())
    mask = batch["learn"].values.to_numpy(zero_copy_only=False)
    sums = np.append(0, np.cumsum(mask))
    loss = sums[offsets[1:]] - sums[offsets[:-1] + 1]
    first = np.zeros(len(mask) + 1, bool)
    first[offsets] = True
    before, behind = np.append(False, mask[:-1]), np.append(mask[1:], False)
    begins = np.flatnonzero(mask & (~before | first[:-1]))
    ends = np.flatnonzero(mask & (~behind | first[1:]))
    longest = np.zeros(len(lengths), np.int64)
    np.maximum.at(longest, np.searchsorted(offsets, begins, side="right") - 1, ends - begins + 1)
    return lengths, loss, longest
