"""A folder or file of documents is data: rows with quotes, divided by document; or texts, which is said."""

import json
from pathlib import Path

import pytest

from luthier.chat import Conversation
from luthier.data import held_out_files, reading
from luthier.errors import UserError
from luthier.recipe import Data

FAQ = "# {0}\n\n## When?\n\nAt {1}.\n\n## Is it hot?\n\nNo, not at {1}.\n\n## Who cleans the {0}?\n\nAda.\n"
THINGS = ["kiln", "oven", "shop", "office", "garden", "library"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, thing in enumerate(THINGS):
        (tmp_path / f"{thing}.md").write_text(FAQ.format(thing, number + 5))
    return tmp_path


def test_a_folder_becomes_pairs_whose_documents_stay_in_one_split(folder: Path) -> None:
    data, held_out = held_out_files.load(Data(path=folder))
    assert held_out.test is not None and held_out.dev is not None
    groups = [{item.group for item in part} for part in (data.items, held_out.dev, held_out.test)]
    assert [len(part) for part in groups] == [3, 1, 2] and len(set.union(*groups)) == 6
    assert (data.ledger.read, data.ledger.kept, data.ledger.synthetic) == (18, 18, 18)
    assert sorted(data.files) == sorted(str(folder / f"{thing}.md") for thing in THINGS)
    row = data.ledger.evidence[0]
    assert str(row["passage"])[int(str(row["start"])) : int(str(row["end"]))] == row["quote"]
    assert data.choice.sentence().startswith("read as question-answer (columns question, answer")


def test_rows_of_a_place_have_locations_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text("# T\n\n| K | Price | Size |\n|--|--|--|\n| a | 1 | 2 |\n| b | 3 | 4 |\n")
    (tmp_path / "u.md").write_text("# U\n\n## Is it hot?\n\nYes.")
    locations = [item.location for item in reading.load(Data(path=tmp_path)).items]
    assert locations == ["t.md:3", "t.md:3, pair 2", "t.md:3, pair 3", "t.md:3, pair 4", "u.md:3"]


def test_one_list_of_questions_is_divided_by_question(folder: Path) -> None:
    data, held_out = held_out_files.load(Data(path=folder / "kiln.md"))
    assert held_out.test is None and [item.conversation.answer for item in data.items] == [
        "At 5.",
        "No, not at 5.",
        "Ada.",
    ]
    assert len({item.group for item in data.items}) == 3


def test_a_text_without_questions_stays_a_text_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The kiln is hot.\n\nIt opens at 7.\n")
    data = reading.load(Data(path=tmp_path / "notes.txt"))
    assert data.choice.format == "text" and data.items[0].conversation.answer.startswith("The kiln is hot.")
    (remark,) = data.remarks
    assert remark.startswith("rules find no questions and answers in it; `luthier pairs ")


def test_documents_are_texts_where_that_is_asked_for(folder: Path) -> None:
    data = reading.load(Data(path=folder, format="text"))
    assert len(data.items) == 6 and data.remarks == [] and data.items[0].conversation.is_document


def test_what_cannot_be_read_is_named_and_a_folder_of_nothing_else_is_refused(tmp_path: Path, folder: Path) -> None:
    (folder / "empty.md").write_text("")
    assert reading.load(Data(path=folder)).ledger.ignored == ["empty.md (no text in it)"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.md").write_text("")
    with pytest.raises(UserError, match=r"no document could be read\. a\.md: no text in it"):
        reading.load(Data(path=tmp_path / "none"))


def row(**changes: object) -> dict[str, object]:
    passage = "## When?\n\nAt 7."
    whole = {"document": "k.md", "passage": passage, "quote": "At 7.", "start": 10, "end": 15, "synthetic": True}
    return {"question": f"When? {len(changes)}", "answer": "At 7.", **whole, **changes}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quote": "At 8."}, "the quote does not stand at its place in the passage"),
        ({"start": 9}, "the quote does not stand at its place in the passage"),
        ({"end": 99}, "no quote inside its passage"),
        ({"start": "a"}, "start and end of the quote are no numbers"),
    ],
)
def test_a_quote_is_checked_whenever_rows_are_read(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    rows = [row(), row(**change)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    data = reading.load(Data(path=tmp_path / "pairs.jsonl"))
    assert [item.conversation.answer for item in data.items] == ["At 7."] and list(data.ledger.dropped) == [reason]


def test_rows_that_name_their_split_are_divided_by_it(tmp_path: Path) -> None:
    rows = [row(question=f"When {split} {number}?", split=split, document=f"{split}.md")
            for split in ("test", "dev", "train") for number in range(3)]  # fmt: skip
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    data, held_out = held_out_files.load(Data(path=file))
    assert {item.group for item in data.items} == {"train.md"} and {item.group for item in held_out.test or ()} == {
        "test.md"
    }
    file.write_text("".join(json.dumps(each) + "\n" for each in rows[:6]))
    with pytest.raises(UserError, match="no row is for train"):
        held_out_files.load(Data(path=file))


def test_a_chat_of_whatsapp_is_not_said_to_be_a_document(tmp_path: Path) -> None:
    lines = ["09:15 - Ann: When does the kiln open?", "09:16 - Studio: At 7.", "09:20 - Ann: Thanks"]
    path = tmp_path / "chat.txt"
    path.write_text("".join(f"12/03/2026, {line}\n" for line in lines))
    found = reading.load(Data(path=path))
    assert found.sentence() == "read as messages (a chat of two people written by WhatsApp, a conversation a day)"
    assert [item.conversation for item in found.items] == [Conversation.pair("When does the kiln open?", "At 7.")]
