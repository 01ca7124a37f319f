"""Tokenized rows on disk: one Arrow file per split, memory-mapped, so that memory does not grow with the data.

A run reads its own copy from here on. The user's files may change or go; the run continues with what it started with.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from luthier.chat import Conversation, Encoded, Message
from luthier.data.dataset import Item
from luthier.durable import whole_file

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "place": pa.string(),
        "group": pa.string(),
        "messages": pa.string(),
        "ids": pa.list_(pa.int32()),
        "learn": pa.list_(pa.bool_()),
    }
)
ROWS_PER_CHUNK = 1024


@dataclass(frozen=True)
class Row:
    """One row's tokens, and which of them are learnt."""

    ids: np.ndarray
    learn: np.ndarray


def write(path: Path, rows: Iterable[tuple[Item, Encoded]]) -> None:
    """Write a split; its name appears only when all of it is on the disk."""
    with whole_file(path) as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for chunk in _chunks(rows):
            writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema=SCHEMA))


class Prepared:
    """A split on disk, by row number."""

    def __init__(self, path: Path) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
        self._columns = {name: _array(table, name) for name in SCHEMA.names}
        ids = self._columns["ids"]
        self._starts = ids.offsets.to_numpy()
        self._ids = ids.values.to_numpy()
        self._learn = self._columns["learn"].values.to_numpy(zero_copy_only=False)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> Row:
        place = slice(self._starts[number], self._starts[number + 1])
        return Row(self._ids[place], self._learn[place])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        lengths: list[int] = np.diff(self._starts).tolist()
        return lengths

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self._starts[-1] - self._starts[0])

    def place(self, number: int) -> str:
        """Where the row came from, as file:line."""
        return str(self._columns["place"][number])

    def items(self) -> list[Item]:
        """The rows as conversations."""
        columns = (self._columns[name].to_pylist() for name in ("id", "place", "group", "messages"))
        return [
            Item(
                id, place, group, Conversation(tuple(Message(role, content) for role, content in json.loads(messages)))
            )
            for id, place, group, messages in zip(*columns, strict=True)
        ]


def _array(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], SCHEMA.field(name).type)


def _chunks(rows: Iterable[tuple[Item, Encoded]]) -> Iterator[list[dict[str, object]]]:
    chunk: list[dict[str, object]] = []
    for item, encoded in rows:
        messages = [[message.role, message.content] for message in item.conversation.messages]
        chunk.append(
            {
                "id": item.id,
                "place": item.place,
                "group": item.group,
                "messages": json.dumps(messages, ensure_ascii=False),
                "ids": encoded.ids,
                "learn": encoded.learn,
            }
        )
        if len(chunk) == ROWS_PER_CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
