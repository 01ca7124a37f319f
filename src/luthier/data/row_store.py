"""All rows of a data set as they are made: tokens and texts in a scratch file, and of each row a few numbers in memory.

Which rows are trained on is known only when all groups are. So everything is written once, in file order; what stays in memory
are lengths, group digests and where an item's rows begin: some 60 bytes a row, however long it is. A split is a choice of row
numbers, which is copied to its own file batch by batch, or read as items one at a time.
"""

import contextlib
import errno
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import pyarrow as pa

from luthier.chat import Encoded, Template
from luthier.data import encoding, prefixes, prepared, splits
from luthier.data.dataset import Item
from luthier.data.encoded_items import NUMBERS, EncodedItems, size_and_digest
from luthier.data.prepared import (
    CHARACTERS_PER_CHUNK,
    ROWS_PER_CHUNK,
    SCHEMA,
    PreparedRow,
    items_in,
    rows_in,
)
from luthier.errors import MachineError
from luthier.runs.durable import disk_errors, temporary_folder, whole_file

KEPT_ANSWERS = 1 << 26
ANSWER_BYTES = 60  # of a text in memory besides its characters


@dataclass(frozen=True)
class Traits:
    """What tells of items whether they make good examples, without their texts."""

    ids: Iterable[str]
    sizes: np.ndarray
    """Characters of each one's question and answer."""
    answers: np.ndarray
    """Digests of the answers."""

    @classmethod
    def of(cls, items: Sequence[Item]) -> "Traits":
        """The traits of these items; those of a store are not read for it."""
        if isinstance(items, StoredItems):
            return items.traits()
        numbers = np.array([size_and_digest(item) for item in items], np.int64).reshape(-1, 2)
        return cls([item.id for item in items], numbers[:, 0], numbers[:, 1])


class RowStore:
    """Rows that are written one item after the other, in one file; when it is closed they can be read.

    The file is in `folder`, or in a temporary one that goes when nobody needs the store any more.
    """

    def __init__(self, template: Template, folder: Path | None = None, *, shares: bool = False) -> None:
        self.path, self._template = (folder or temporary_folder(self)) / "rows.arrow", template
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_size = 0
        self._numbers = {name: array("q") for name in NUMBERS}
        self._traits = array("q")
        self._first_rows, self._batch_starts = array("q", [0]), array("q", [0])
        self._groups, self._shares, self._with_shares = bytearray(), bytearray(), shares
        self.documents = False

    def __enter__(self) -> "RowStore":
        with _scratch_errors(self.path):
            self._file = pa.OSFile(str(self.path), "wb")
            self._writer = pa.ipc.new_file(self._file, SCHEMA)
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        with _scratch_errors(self.path), self._file:
            if failed is None:
                self._flush()
                self._writer.close()

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self._first_rows) - 1

    @property
    def traits(self) -> Sequence[int]:
        """Of each item its id as a number, its size and the digest of its answer; see `StoredItems.traits`."""
        return self._traits

    @property
    def first_rows(self) -> np.ndarray:
        """The number of each item's first row, and that of all rows."""
        return np.array(self._first_rows, np.int64)

    def number(self, name: str) -> np.ndarray:
        """One of NUMBERS, of each row."""
        return np.array(self._numbers[name], np.int64)

    def groups(self, items: range) -> splits.Groups:
        """The groups of these items."""
        part = slice(items.start * splits.DIGEST_BYTES, items.stop * splits.DIGEST_BYTES)
        return splits.Groups(bytes(self._groups[part]), bytes(self._shares[part]))

    def add(self, item: Item, rows: Sequence[Encoded]) -> None:
        """An item with its rows, one at least."""
        self.extend(EncodedItems.of([(item, rows)], self._template, shares=self._with_shares))

    def extend(self, items: EncodedItems) -> None:
        """Items one after the other. A batch of the file ends behind the item that fills it, however they come."""
        if not len(items.counts):
            return
        ends = np.cumsum(items.counts)
        self._first_rows.extend((ends + self._first_rows[-1]).tolist())
        self._traits.extend(items.traits.ravel().tolist())
        self._groups += b"".join(items.groups)
        self._shares += b"".join(items.shares)
        self.documents = items.documents
        for name, numbers in items.numbers.items():
            self._numbers[name].extend(numbers.tolist())
        sums = np.append(0, np.cumsum(items.sizes))
        start = 0
        while start < ends[-1]:
            rows, sizes = self._pending_rows + ends - start, self._pending_size + sums[ends] - sums[start]
            full = np.flatnonzero((ends > start) & ((rows >= ROWS_PER_CHUNK) | (sizes >= CHARACTERS_PER_CHUNK)))
            end = int(ends[full[0]]) if len(full) else int(ends[-1])
            self._pending.append(items.batch.slice(start, end - start))
            self._pending_rows += end - start
            self._pending_size += int(sums[end] - sums[start])
            if len(full):
                with _scratch_errors(self.path):
                    self._flush()
            start = end

    def _flush(self) -> None:
        if not self._pending:
            return
        [batch] = pa.Table.from_batches(self._pending).combine_chunks().to_batches()
        self._writer.write_batch(batch)
        self._batch_starts.append(self._batch_starts[-1] + self._pending_rows)
        self._pending, self._pending_rows, self._pending_size = [], 0, 0

    def batches(self, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
        """These rows, by their numbers in order; read, not mapped, so that memory holds one batch at a time."""
        starts = np.array(self._batch_starts, np.int64)
        bounds = np.searchsorted(rows, starts)
        with pa.OSFile(str(self.path), "rb") as file, pa.ipc.open_file(file) as reader:
            for number in np.flatnonzero(np.diff(bounds)).tolist():
                wanted = rows[bounds[number] : bounds[number + 1]] - starts[number]
                batch = reader.get_batch(number)
                yield batch if len(wanted) == batch.num_rows else batch.take(pa.array(wanted))


@contextlib.contextmanager
def _scratch_errors(path: Path) -> Iterator[None]:
    """Says what to do where the disk of temporary files is full."""
    with disk_errors(path):
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise MachineError(
                "the disk is full. While rows are prepared they are in a temporary file, with three to four times the bytes of "
                "the data. Set TMPDIR to a folder on a disk with more space.",
                where=str(path),
            ) from None


@dataclass(frozen=True)
class StoredItems(Sequence[Item]):
    """Some items of a store, read from its file when they are asked for."""

    store: RowStore
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> list[Item]: ...
    def __getitem__(self, number: int | slice) -> Item | list[Item]:
        chosen = self.numbers[number : number + 1 or None] if isinstance(number, int) else self.numbers[number]
        if isinstance(number, int) and not len(chosen):
            raise IndexError(number)
        found = list(self._read(chosen))
        return found[0] if isinstance(number, int) else found

    def __iter__(self) -> Iterator[Item]:
        return self._read(self.numbers)

    def traits(self) -> Traits:
        """The traits of these items; none of them is read."""
        digits, sizes, answers = np.array(self.store.traits, np.int64).reshape(-1, 3)[self.numbers].T
        return Traits((f"{number:016x}" for number in digits.astype(np.uint64).tolist()), sizes, answers)

    def _read(self, numbers: np.ndarray) -> Iterator[Item]:
        """Of each item the last row, which has all of its conversation; of a document the first, without the piece's number."""
        store, firsts = self.store, self.store.first_rows
        if not store.documents:
            yield from items_in(store.batches(firsts[numbers + 1] - 1))
            return
        for item in items_in(store.batches(firsts[numbers])):
            yield replace(item, id=item.id.partition(".")[0])


@dataclass(frozen=True)
class Answers(Sequence[str]):
    """The answers of some items, read when they are asked for."""

    items: Sequence[Item]

    @classmethod
    def of(cls, items: Sequence[Item]) -> Sequence[str]:
        """These answers; in memory if they are short together, as labels and numbers are, which are gone through often."""
        found, size = [], 0
        for item in items:
            found.append(item.conversation.answer)
            size += len(found[-1]) + ANSWER_BYTES
            if size > KEPT_ANSWERS or (len(found) == 10_000 and size > 200 * len(found)):
                return cls(items)
        return found

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [item.conversation.answer for item in self.items[number]]
        return self.items[number].conversation.answer

    def __iter__(self) -> Iterator[str]:
        return (item.conversation.answer for item in self.items)


class Rows(Protocol):
    """The rows of a split before it has a file of its own."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[Item, Encoded | PreparedRow]]: ...
    def number(self, name: str) -> np.ndarray:
        """One of NUMBERS, of each row."""

    def write(self, path: Path) -> None:
        """The rows as a file; its name appears only when all of it is on the disk."""


@dataclass(frozen=True)
class StoredRows:
    """Some rows of a store, by their numbers in order."""

    store: RowStore
    numbers: np.ndarray

    @classmethod
    def of(cls, items: StoredItems, *, last: bool) -> "StoredRows":
        """The rows of these items; with `last` of a conversation only the one with the last answer."""
        firsts = items.store.first_rows
        starts, ends = firsts[items.numbers], firsts[items.numbers + 1]
        if last and not items.store.documents:
            return cls(items.store, ends - 1)
        counts = ends - starts
        return cls(items.store, np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum()))

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[tuple[Item, PreparedRow]]:
        for batch in self.store.batches(self.numbers):
            yield from zip(items_in([batch]), rows_in(batch), strict=True)

    def number(self, name: str) -> np.ndarray:
        """One of NUMBERS, of each row."""
        found: np.ndarray = self.store.number(name)[self.numbers]
        return found

    def write(self, path: Path) -> None:
        """The rows as a file; its name appears only when all of it is on the disk."""
        with whole_file(path) as file, pa.ipc.new_file(file, SCHEMA) as writer:
            for batch in _joined(self.store.batches(self.numbers)):
                writer.write_batch(batch)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Small batches put together, so that a few rows of each of many do not make a file of many batches."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if waiting and (rows + batch.num_rows > ROWS_PER_CHUNK or size + batch.nbytes > CHARACTERS_PER_CHUNK):
            yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
    if waiting:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()


@dataclass(frozen=True)
class ListedRows:
    """Rows in memory."""

    rows: list[tuple[Item, Encoded]]
    template: Template

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[Item, Encoded]]:
        return iter(self.rows)

    def number(self, name: str) -> np.ndarray:
        """One of NUMBERS, of each row."""
        of: dict[str, Callable[[], Sequence[int]]] = {
            "length": lambda: [row.tokens for _, row in self.rows],
            "loss": lambda: [row.loss_tokens for _, row in self.rows],
            "thoughts": lambda: [encoding.parts(row, self.template)[0] for _, row in self.rows],
            "answer": lambda: [encoding.parts(row, self.template)[1] for _, row in self.rows],
            "shared": lambda: prefixes.shared_with_previous(
                (item.location for item, _ in self.rows), lambda number: self.rows[number][1].ids
            ),
        }
        return np.asarray(of[name](), np.int64)

    def write(self, path: Path) -> None:
        """The rows as a file; its name appears only when all of it is on the disk."""
        prepared.write(path, self.rows)
