"""Tokenized rows on disk: one Arrow file per split, memory-mapped, so that memory does not grow with the data.

A run reads its own copy from here on. The user's files may change or go; the run continues with what it started with.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luthier.chat import Conversation, Encoded, Message, ToolCall
from luthier.data.dataset import Item
from luthier.durable import whole_file

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "place": pa.string(),
        "group": pa.string(),
        "messages": pa.string(),
        "tools": pa.string(),
        "ids": pa.list_(pa.int32()),
        "learn": pa.list_(pa.bool_()),
        "rejected": pa.string(),
        "rejected_ids": pa.list_(pa.int32()),
        "rejected_learn": pa.list_(pa.bool_()),
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
        self._rows = _Tokens(self._columns["ids"], self._columns["learn"])
        self._rejected = _Tokens(self._columns["rejected_ids"], self._columns["rejected_learn"])

    def __len__(self) -> int:
        return len(self._rows.starts) - 1

    def __getitem__(self, number: int) -> Row:
        return self._rows[number]

    def rejected(self, number: int) -> Row | None:
        """The row that ends with the rejected answer, where preferences are learnt."""
        row = self._rejected[number]
        return row if len(row.ids) else None

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        lengths: list[int] = np.diff(self._rows.starts).tolist()
        return lengths

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self._rows.starts[-1] - self._rows.starts[0])

    @property
    def documents(self) -> bool:
        """Whether the rows are texts and not conversations; those of one data set are alike."""
        messages = self._columns["messages"]
        return len(messages) > 0 and json.loads(str(messages[0]))[0][0] == "text"

    def place(self, number: int) -> str:
        """Where the row came from, as file:line."""
        return str(self._columns["place"][number])

    def items(self) -> list[Item]:
        """The rows as conversations."""
        columns = (
            self._columns[name].to_pylist() for name in ("id", "place", "group", "messages", "tools", "rejected")
        )
        return [
            Item(
                id,
                place,
                group,
                Conversation(tuple(map(_message, json.loads(messages))), rejected, tuple(json.loads(tools))),
            )
            for id, place, group, messages, tools, rejected in zip(*columns, strict=True)
        ]


class _Tokens:
    """Two columns of lists, tokens and which of them are learnt, as rows."""

    def __init__(self, ids: pa.Array, learn: pa.Array) -> None:
        self.starts = ids.offsets.to_numpy()
        self._ids = ids.values.to_numpy()
        self._learn = learn.values.to_numpy(zero_copy_only=False)

    def __getitem__(self, number: int) -> Row:
        place = slice(self.starts[number], self.starts[number + 1])
        return Row(self._ids[place], self._learn[place])


def _told(message: Message) -> list[object]:
    """A message as it is kept: role and content, and the rest where it has any."""
    rest = {key: value for key, value in asdict(message).items() if key not in ("role", "content") and value}
    return [message.role, message.content, *([rest] if rest else ())]


def _message(kept: list[Any]) -> Message:
    role, content, *rest = kept
    more = dict(rest[0]) if rest else {}
    calls = tuple(ToolCall(**call) for call in more.pop("tool_calls", ()))
    return Message(role, content, tool_calls=calls, **more)


def _array(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], SCHEMA.field(name).type)


def _chunks(rows: Iterable[tuple[Item, Encoded]]) -> Iterator[list[dict[str, object]]]:
    chunk: list[dict[str, object]] = []
    for item, encoded in rows:
        messages = [_told(message) for message in item.conversation.messages]
        chunk.append(
            {
                "id": item.id,
                "place": item.place,
                "group": item.group,
                "messages": json.dumps(messages, ensure_ascii=False),
                "tools": json.dumps(item.conversation.tools, ensure_ascii=False),
                "ids": encoded.ids,
                "learn": encoded.learn,
                "rejected": item.conversation.rejected,
                "rejected_ids": encoded.rejected.ids if encoded.rejected else [],
                "rejected_learn": encoded.rejected.learn if encoded.rejected else [],
            }
        )
        if len(chunk) == ROWS_PER_CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
