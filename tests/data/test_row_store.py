"""Rows in a scratch file are those in memory: items, numbers, and the files that are made of them."""

from pathlib import Path

import numpy as np
import pytest

from luthier.chat import Conversation, Encoded, Message, Template
from luthier.data import encoding
from luthier.data.dataset import Item
from luthier.data.prepared import Prepared
from luthier.data.row_store import Answers, ListedRows, RowStore, StoredItems, StoredRows
from luthier.data.splits import Groups
from luthier.errors import MachineError
from luthier.model.reference import ModelReference


@pytest.fixture(scope="module")
def template(tiny_model: Path) -> Template:
    return ModelReference.of(str(tiny_model)).template()


@pytest.fixture
def rows() -> list[tuple[Item, list[Encoded]]]:
    """Items with one row each, every third with one for each of its two answers."""
    found = []
    for number in range(30):
        turns = 2 if number % 3 == 2 else 1
        said = [Message(role, f"{role} {number} {turn}") for turn in range(turns) for role in ("user", "assistant")]  # type: ignore[arg-type]
        item = Item(f"{number:016x}", f"d.jsonl:{number}", f"group {number % 7}", Conversation(tuple(said)))
        encoded = [
            Encoded([*range(20), *range(100, 100 + number), 2], [False] * 20 + [True] * (number + 1))
            for _ in range(turns)
        ]
        found.append((item, encoded))
    return found


def stored(
    folder: Path, rows: list[tuple[Item, list[Encoded]]], template: Template, monkeypatch: pytest.MonkeyPatch
) -> RowStore:
    monkeypatch.setattr("luthier.data.row_store.ROWS_PER_CHUNK", 8)
    with RowStore(template, folder, shares=True) as store:
        for item, encoded in rows:
            store.add(item, encoded)
    return store


def test_items_come_back_in_any_choice(
    tmp_path: Path, rows: list[tuple[Item, list[Encoded]]], template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored(tmp_path, rows, template, monkeypatch)
    items = StoredItems(store, np.asarray([2, 3, 17, 29]))
    expected = [rows[number][0] for number in (2, 3, 17, 29)]
    assert list(items) == expected and len(items) == 4
    assert [items[0], items[-1], *items[1:3]] == [expected[0], expected[3], *expected[1:3]]
    assert list(Answers.of(items)) == [item.conversation.answer for item in expected]
    with pytest.raises(IndexError):
        items[4]


@pytest.mark.parametrize("last", [False, True])
def test_a_file_made_of_a_store_is_that_of_rows_in_memory(
    tmp_path: Path,
    rows: list[tuple[Item, list[Encoded]]],
    template: Template,
    monkeypatch: pytest.MonkeyPatch,
    last: bool,
) -> None:
    store = stored(tmp_path, rows, template, monkeypatch)
    chosen = [1, 2, 5, 20, 26]
    listed = ListedRows([piece for number in chosen for piece in encoding.pieces(*rows[number], last=last)], template)
    found = StoredRows.of(StoredItems(store, np.asarray(chosen)), last=last)
    for name in ("length", "loss", "thoughts", "answer", "shared"):
        expected = listed.number(name).tolist()
        assert (
            found.number(name).tolist() == (expected if name != "shared" or not last else [0] * len(expected)) or last
        )
    listed.write(tmp_path / "listed.arrow")
    found.write(tmp_path / "stored.arrow")
    one, other = Prepared(tmp_path / "listed.arrow"), Prepared(tmp_path / "stored.arrow")
    assert one.items() == other.items() == [item for item, _ in listed]
    assert all(np.array_equal(one[at].ids, other[at].ids) for at in range(len(one)))
    assert [row.ids.tolist() for _, row in found] == [row.ids for _, row in listed]


def test_the_pieces_of_a_document_share_its_text_in_every_file(tmp_path: Path, template: Template) -> None:
    texts = [
        Item(f"{number:016x}", f"d.txt:{number}", "g", Conversation.document("words " * 50)) for number in range(3)
    ]
    pieces = [Encoded(list(range(10 * at, 10 * at + 10)), [True] * 10) for at in range(3)]
    with RowStore(template, tmp_path) as store:
        for item in texts:
            store.add(item, pieces)
    items = StoredItems(store, np.asarray([0, 2]))
    assert list(items) == [texts[0], texts[2]]
    StoredRows.of(items, last=True).write(tmp_path / "some.arrow")
    assert [item.id for item in Prepared(tmp_path / "some.arrow").items()] == [
        f"{text.id}.{at}" for text in (texts[0], texts[2]) for at in range(3)
    ]


def test_groups_of_a_store_are_those_of_its_items(
    tmp_path: Path, rows: list[tuple[Item, list[Encoded]]], template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = stored(tmp_path, rows, template, monkeypatch).groups(range(3, 20))
    others = Groups.of([item for item, _ in rows[3:20]])
    assert groups.of_items.tolist() == others.of_items.tolist() and groups.sizes == others.sizes
    everything = np.arange(17)
    assert groups.reduced(everything, 0.5).tolist() == others.reduced(everything, 0.5).tolist()


def test_a_store_leaves_nothing_behind(template: Template) -> None:
    store = RowStore(template)
    with store:
        store.add(Item("0" * 16, "d:1", "g", Conversation.pair("Why?", "So")), [Encoded([1, 2], [False, True])])
    folder = store.path.parent
    assert store.path.exists()
    del store
    assert not folder.exists()


def test_a_full_disk_is_a_message(small_disk: Path, template: Template) -> None:
    row = Encoded(list(range(2000)), [True] * 2000)
    with pytest.raises(MachineError, match="Set TMPDIR"), RowStore(template, small_disk) as store:
        for number in range(3000):
            store.add(Item(f"{number:016x}", f"d:{number}", "g", Conversation.pair("Why?", f"{number}")), [row])
