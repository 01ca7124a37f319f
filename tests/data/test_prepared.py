"""Prepared rows come back as they were written, however many chunks they lie in, and stay on the disk until asked for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from luthier.chat import Conversation, Encoded, Message, ToolCall
from luthier.data import prepared
from luthier.data.dataset import Item
from luthier.data.encoding import pieces
from luthier.data.prepared import Prepared

Rows = list[tuple[Item, Encoded]]


def pairs(count: int) -> Rows:
    """Rows of 1, 2, 3 … tokens, each with a rejected answer of one token more."""
    found = []
    for number in range(1, count + 1):
        conversation = Conversation.pair(f"q{number}", f"a{number}", rejected=f"b{number}")
        ids, learn = list(range(number)), [at % 3 == 0 for at in range(number)]
        found.append((
            Item(f"{number:016x}", f"d.jsonl:{number}", f"group {number // 2}", conversation),
            Encoded(ids, learn, Encoded([*ids, 7], [*learn, True])),
        ))  # fmt: skip
    return found


def document(characters: int, tokens: int) -> Rows:
    """A text of so many characters, a token each, in pieces of so many tokens; its group is its text, as `load` gives it."""
    text = "".join(chr(97 + at * at % 26) for at in range(characters))
    whole = [Encoded([7] * tokens, [True] * tokens) for _ in range(characters // tokens)]
    return pieces(Item("d", "d.txt:1", text, Conversation.document(text)), whole)


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_rows_come_back_from_any_number_of_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(prepared, "ROWS_PER_CHUNK", chunk)
    rows = pairs(10)
    prepared.write(tmp_path / "r.arrow", rows)
    found = Prepared(tmp_path / "r.arrow")
    assert len(found) == 10 and list(found.lengths) == list(range(1, 11)) and found.tokens == 55
    assert found.items() == [item for item, _ in rows]
    for number, (item, encoded) in enumerate(rows):
        assert (found[number].ids.tolist(), found[number].loss_mask.tolist()) == (encoded.ids, encoded.loss_mask)
        other = found.rejected(number)
        assert other and encoded.rejected and other.ids.tolist() == encoded.rejected.ids
        assert other.loss_mask.tolist() == encoded.rejected.loss_mask and found.location(number) == item.location
    assert found[-1].ids.tolist() == list(range(10))
    with pytest.raises(IndexError):
        found[10]


def test_everything_that_a_conversation_says_comes_back(tmp_path: Path) -> None:
    messages = (
        Message("user", "How warm?"),
        Message("assistant", "Warm.", in_loss=False),
        Message("user", "In degrees?"),
        Message("assistant", "", reasoning="Ask.", tool_calls=(ToolCall("weather", '{"city": "Ulm"}', "c1"),)),
        Message("tool", "21", name="weather", tool_call_id="c1"),
        Message("assistant", "21 degrees"),
    )
    said = Conversation(messages, None, ('{"name": "weather"}',), ("21 °C", "21"), False)
    prepared.write(tmp_path / "r.arrow", [(Item("0", "d.jsonl:1", "g", said), Encoded([1, 2], [False, True]))])
    assert Prepared(tmp_path / "r.arrow").items()[0].conversation == said


def test_rows_are_read_from_the_file_and_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "CHARACTERS_PER_CHUNK", 10_000)
    prepared.write(tmp_path / "r.arrow", document(100_000, 1_000))
    before = pa.total_allocated_bytes()
    found = Prepared(tmp_path / "r.arrow")
    row = found[99]
    assert found.tokens == 100_000 and not row.ids.flags.owndata and row.loss_mask.nbytes == 1_000
    assert pa.total_allocated_bytes() - before <= 1_024, "the flags of the row that was asked for"


def test_a_long_document_is_stored_once_however_many_pieces_it_has(tmp_path: Path) -> None:
    sizes = {}
    for characters in (50_000, 400_000):
        prepared.write(tmp_path / "r.arrow", document(characters, 500))
        sizes[characters] = (tmp_path / "r.arrow").stat().st_size
        items = Prepared(tmp_path / "r.arrow").items()
        assert len(items) == characters // 500 and all(item.conversation is items[0].conversation for item in items)
        assert len(items[0].conversation.answer) == characters
    assert sizes[50_000] < 50_000 * (4 + 1 + 2), "four bytes a token, its text, and what rows are told apart by"
    assert sizes[400_000] < 8 * sizes[50_000]


def test_long_groups_are_told_apart_by_all_of_their_text(tmp_path: Path) -> None:
    groups = ["a" * 300, "a" * 300, "a" * 301, "short"]
    rows = [
        (Item(str(n), f"d:{n}", group, Conversation.document("x")), Encoded([1, 2], [True, True]))
        for n, group in enumerate(groups)
    ]
    prepared.write(tmp_path / "r.arrow", rows)
    found = [item.group for item in Prepared(tmp_path / "r.arrow").items()]
    assert found[0] == found[1] != found[2] and found[3] == "short" and max(map(len, found)) < 150


def test_a_split_without_rows_is_empty(tmp_path: Path) -> None:
    prepared.write(tmp_path / "r.arrow", [])
    found = Prepared(tmp_path / "r.arrow")
    assert (len(found), found.items(), list(found.lengths), found.documents) == (0, [], [], False)
    assert np.array(found.lengths).sum() == 0
