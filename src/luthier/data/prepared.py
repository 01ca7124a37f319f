"""Tokenized rows on disk: one Arrow file per split, memory-mapped, so that memory does not grow with its tokens and texts.

A run reads its own copy from here on. The user's files may change or go; the run continues with what it started with.
"""

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luthier.chat import Conversation, Encoded, Message, ToolCall
from luthier.data import prefixes
from luthier.data.dataset import Item
from luthier.runs.durable import whole_file

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "place": pa.string(),
        "group": pa.string(),
        "messages": pa.large_string(),
        "tools": pa.large_string(),
        "ids": pa.large_list(pa.int32()),
        "learn": pa.large_list(pa.bool_()),
        "rejected": pa.large_string(),
        "rejected_ids": pa.large_list(pa.int32()),
        "rejected_learn": pa.large_list(pa.bool_()),
        "references": pa.large_string(),
        "label": pa.bool_(),
    }
)
"""`messages` is null where it is the conversation of the row before, as in the pieces of a long document."""
ROWS_PER_CHUNK = 1024
CHARACTERS_PER_CHUNK = 1 << 24
LONGEST_GROUP = 200
"""Characters of a group's name; a longer one, such as a document that is its own group, is known by a digest."""
_JSON = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True)
class PreparedRow:
    """One row's tokens, and which of them a loss is taken on."""

    ids: np.ndarray
    loss_mask: np.ndarray


def write(path: Path, rows: Iterable[tuple[Item, Encoded]]) -> None:
    """Write a split; its name appears only when all of it is on the disk."""
    with whole_file(path) as file, pa.ipc.new_file(file, SCHEMA) as writer:
        before = None
        for chunk in _chunks(rows):
            writer.write_batch(record_batch(chunk, before=before))
            before = chunk[-1][0]


class Prepared:
    """A split on disk, by row number."""

    def __init__(self, path: Path) -> None:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        self._chunks = [_Chunk(file.get_batch(number)) for number in range(file.num_record_batches)]
        self._firsts = [0]  # the number of each chunk's first row, then that of all rows
        for chunk in self._chunks:
            self._firsts.append(self._firsts[-1] + len(chunk))

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, number: int) -> PreparedRow:
        chunk, row = self._find(number)
        return chunk.tokens[row]

    def rejected(self, number: int) -> PreparedRow | None:
        """The row that ends with the rejected answer, where preferences are trained."""
        chunk, at = self._find(number)
        row = chunk.rejected_tokens[at]
        return row if len(row.ids) else None

    def label(self, number: int) -> bool | None:
        """Whether people liked the row's answer; None where the data does not say."""
        chunk, at = self._find(number)
        if "label" not in chunk.batch.schema.names:
            return None
        liked: bool | None = chunk.batch["label"][at].as_py()
        return liked

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row, in 8 bytes each."""
        found = array("q")
        for chunk in self._chunks:
            found.frombytes(np.diff(chunk.tokens.starts).astype(np.int64).tobytes())
        return found

    @property
    def shared_prefixes(self) -> Sequence[int]:
        """With how many tokens each row begins like the one before it, where both are answers of one conversation; else 0."""
        locations = (location for chunk in self._chunks for location in chunk.batch["place"].to_pylist())
        return prefixes.shared_with_previous(locations, lambda row: self[row].ids)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(int(chunk.tokens.starts[-1] - chunk.tokens.starts[0]) for chunk in self._chunks)

    @property
    def documents(self) -> bool:
        """Whether the rows are texts and not conversations; those of one data set are alike."""
        return len(self) > 0 and next(self.stream()).conversation.is_document

    def location(self, number: int) -> str:
        """Where the row came from, as file:line."""
        chunk, row = self._find(number)
        return str(chunk.batch["place"][row])

    def items(self) -> list[Item]:
        """The rows as conversations."""
        return list(self.stream())

    def stream(self) -> Iterator[Item]:
        """The rows as conversations, one at a time; the pieces of a document share its text."""
        return items_in(chunk.batch for chunk in self._chunks)

    def _find(self, number: int) -> tuple["_Chunk", int]:
        """The chunk that has this row, and the row's number in it."""
        number = range(len(self))[number]
        at = bisect_right(self._firsts, number) - 1
        return self._chunks[at], number - self._firsts[at]


class _Chunk:
    """Some rows of a split as they lie in the file."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self.tokens = _Tokens(batch["ids"], batch["learn"])
        self.rejected_tokens = _Tokens(batch["rejected_ids"], batch["rejected_learn"])

    def __len__(self) -> int:
        return int(self.batch.num_rows)


def items_in(batches: Iterable[pa.RecordBatch]) -> Iterator[Item]:
    """The rows of these batches as conversations, one at a time."""
    conversation = Conversation(())
    names = ("id", "place", "group", "messages", "rejected", "tools", "references", "label")
    for batch in batches:
        columns = (_column(batch, name) for name in names)
        for id, location, group, messages, rejected, tools, references, label in zip(*columns, strict=True):
            if messages is not None:
                conversation = Conversation(
                    tuple(map(_message_from_json, json.loads(messages))),
                    rejected,
                    tuple(json.loads(tools)),
                    tuple(json.loads(references or "[]")),
                    label,
                )
            yield Item(id, location, group, conversation)


def rows_in(batch: pa.RecordBatch) -> Iterator[PreparedRow]:
    """The tokens of a batch's rows, one at a time."""
    tokens = _Tokens(batch["ids"], batch["learn"])
    return (tokens[number] for number in range(batch.num_rows))


def _column(batch: pa.RecordBatch, name: str) -> list[Any]:
    """A column's values; nothing in each row where the file was written before there was such a column."""
    if name not in batch.schema.names:
        return [None] * int(batch.num_rows)
    values: list[Any] = batch[name].to_pylist()
    return values


class _Tokens:
    """Two columns of lists, tokens and their loss masks, as rows."""

    def __init__(self, ids: pa.Array, loss_mask: pa.Array) -> None:
        self.starts = ids.offsets.to_numpy()
        self._ids = ids.values.to_numpy()
        self._loss_mask = loss_mask.values  # a bit a token in the file, unpacked for a row when it is asked for

    def __getitem__(self, number: int) -> PreparedRow:
        start, end = int(self.starts[number]), int(self.starts[number + 1])
        return PreparedRow(self._ids[start:end], self._loss_mask[start:end].to_numpy(zero_copy_only=False))


def _message_to_json(message: Message) -> list[object]:
    """A message as it is kept: role and content, and the rest where it has any."""
    plain = message.in_loss and message.reasoning is None and message.name is None and message.tool_call_id is None
    if plain and not message.tool_calls:
        return [message.role, message.content]
    rest = {key: value for key, value in asdict(message).items() if key not in ("role", "content", "in_loss") and value}
    rest |= {} if message.in_loss else {"in_loss": False}
    return [message.role, message.content, *([rest] if rest else ())]


def _message_from_json(kept: list[Any]) -> Message:
    role, content, *rest = kept
    more = dict(rest[0]) if rest else {}
    calls = tuple(ToolCall(**call) for call in more.pop("tool_calls", ()))
    return Message(role, content, tool_calls=calls, **more)


def _chunks(rows: Iterable[tuple[Item, Encoded]]) -> Iterator[list[tuple[Item, Encoded]]]:
    """As many rows as a batch of the file has."""
    chunk: list[tuple[Item, Encoded]] = []
    characters = 0
    for item, encoded in rows:
        characters += size_of(item, encoded, before=chunk[-1][0] if chunk else None)
        chunk.append((item, encoded))
        if len(chunk) >= ROWS_PER_CHUNK or characters >= CHARACTERS_PER_CHUNK:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def size_of(item: Item, encoded: Encoded, *, before: Item | None) -> int:
    """About how much of a batch a row takes behind another one: characters and tokens."""
    same = before is not None and before.conversation is item.conversation
    return len(encoded.ids) + (0 if same else sum(len(message.content) for message in item.conversation.messages))


def record_batch(rows: Sequence[tuple[Item, Encoded]], *, before: Item | None) -> pa.RecordBatch:
    """Rows as they lie in the file; `before` is the item of the row that precedes them there."""
    items = [item for item, _ in rows]
    earlier = [before, *items][: len(items)]
    new = [
        other is None or item.conversation is not other.conversation for item, other in zip(items, earlier, strict=True)
    ]
    said = [item.conversation if is_new else None for item, is_new in zip(items, new, strict=True)]
    rejected = [row.rejected for _, row in rows]
    columns: dict[str, Any] = {
        "id": [item.id for item in items],
        "place": [item.location for item in items],
        "group": [group_name(item.group) for item in items],
        "messages": [one and _to_json([_message_to_json(message) for message in one.messages]) for one in said],
        "tools": [one and _to_json(one.tools) for one in said],
        "ids": _lists([row.ids for _, row in rows], np.dtype(np.int32)),
        "learn": _lists([row.loss_mask for _, row in rows], np.dtype(np.bool_)),
        "rejected": [one and one.rejected for one in said],
        "rejected_ids": _lists([row.ids if row else [] for row in rejected], np.dtype(np.int32)),
        "rejected_learn": _lists([row.loss_mask if row else [] for row in rejected], np.dtype(np.bool_)),
        "references": [one and _to_json(one.references) for one in said],
        "label": [one and one.label for one in said],
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, SCHEMA.field(name).type)
        for name, column in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _lists(values: Sequence[Sequence[int]], kind: np.dtype[Any]) -> pa.Array:
    """Lists of numbers as a column."""
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(each) for each in values], out=offsets[1:])
    if kind == np.bool_:
        flat = np.frombuffer(b"".join(map(bytes, values)), np.bool_)
    else:
        flat = np.fromiter(chain.from_iterable(values), kind, int(offsets[-1]))
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))


def _to_json(value: Sequence[object]) -> str:
    return _JSON.encode(value) if value else "[]"


def group_name(group: str) -> str:
    """The group itself, or of a long one its beginning and a digest of all of it: equal for equal groups only."""
    if len(group) <= LONGEST_GROUP:
        return group
    return f"{group[: LONGEST_GROUP // 2]}… ({hashlib.blake2b(group.encode('utf-8'), digest_size=16).hexdigest()})"
