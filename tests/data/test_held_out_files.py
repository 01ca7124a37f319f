"""Test and dev rows from the user's own files: read like the data, in the same ledger, split off from nothing."""

import json
from pathlib import Path

import pytest

from luthier.data import Dataset, held_out_files, split
from luthier.data.held_out_files import HeldOut
from luthier.errors import UserError
from luthier.recipe import Data

from .conftest import Write


def pairs(*numbers: int) -> str:
    return "".join(json.dumps({"question": f"q{number}", "answer": f"a{number}"}) + "\n" for number in numbers)


def load(**settings: object) -> tuple[Dataset, HeldOut]:
    return held_out_files.load(Data(path=Path("d.jsonl"), **settings))


def refusal(**settings: object) -> str:
    with pytest.raises(UserError) as caught:
        load(**settings)
    return str(caught.value)


def test_the_rows_of_all_files_are_in_one_ledger_with_their_places(write: Write) -> None:
    write("d.jsonl", pairs(1, 2, 3))
    write("t.csv", "question,answer\nq7,a7\nq8,\nq9,a9\n")
    data, held_out = load(test_path=Path("t.csv"))
    assert data.ledger.summary() == "6 rows read, 5 kept; dropped: 1 empty answer (t.csv:3)"
    assert held_out.test and [item.location for item in held_out.test] == ["t.csv:2", "t.csv:4"]
    assert held_out.dev is None and data.files == ["d.jsonl", "t.csv"]


def test_the_hash_covers_the_test_file(write: Write) -> None:
    write("d.jsonl", pairs(1, 2, 3))
    write("t.jsonl", pairs(8, 9))
    alone = load()[0].sha256
    with_test = load(test_path=Path("t.jsonl"))[0].sha256
    write("t.jsonl", pairs(8, 7))
    assert len({alone, with_test, load(test_path=Path("t.jsonl"))[0].sha256}) == 3


def test_nothing_of_the_data_is_held_out_where_both_files_are_given(write: Write) -> None:
    write("d.jsonl", pairs(*range(30)))
    write("t.jsonl", pairs(*range(100, 140)))
    write("v.jsonl", pairs(*range(200, 205)))
    data, held_out = load(test_path=Path("t.jsonl"), dev_path=Path("v.jsonl"))
    splits = split(data.items, test_items=None, dev_items=None, test=held_out.test, dev=held_out.dev)
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [30, 5, 40]
    some = split(data.items, test_items=10, dev_items=None, test=held_out.test)
    assert [len(part) for part in (some.train, some.dev, some.test)] == [27, 3, 10]


def test_a_test_file_of_one_row_cannot_be_compared(write: Write) -> None:
    write("d.jsonl", pairs(1, 2, 3))
    write("t.jsonl", pairs(9))
    assert "t.jsonl: only 1 usable row" in refusal(test_path=Path("t.jsonl"))


def test_the_data_is_not_its_own_test(write: Write) -> None:
    write("d.jsonl", pairs(1, 2, 3))
    assert "data.test_path: d.jsonl is named twice" in refusal(test_path=Path("./d.jsonl"))


def test_questions_do_not_test_documents(write: Write) -> None:
    write("d.jsonl", '{"text": "One."}\n{"text": "Two."}\n{"text": "Three."}\n')
    write("t.jsonl", pairs(8, 9))
    assert "it has questions with answers, but d.jsonl has documents" in refusal(test_path=Path("t.jsonl"))


def test_a_missing_test_file_is_named(write: Write) -> None:
    write("d.jsonl", pairs(1, 2, 3))
    write("tests.jsonl", pairs(8, 9))
    assert 'did you mean "tests.jsonl"?' in refusal(test_path=Path("test.jsonl"))


def test_files_named_as_splits_are_held_out_and_it_is_said(write: Write) -> None:
    rows = [f'{{"question": "Kiln {n}?", "answer": "{n}"}}\n' for n in range(10)]
    write("d/train.jsonl", "".join(rows[:6]))
    write("d/valid.jsonl", rows[6])
    write("d/test.jsonl", "".join(rows[7:9]))
    write("exam.jsonl", "".join(rows[8:10]))
    data, held_out = held_out_files.load(Data(path=Path("d")))
    assert (len(data.items), len(held_out.dev or []), len(held_out.test or [])) == (6, 1, 2)
    assert data.sentence().endswith(
        "; by their names d/train.jsonl is trained on, d/valid.jsonl is dev, d/test.jsonl is test"
    )
    assert data.files == ["d/train.jsonl", "d/valid.jsonl", "d/test.jsonl"]
    assert data.files == held_out_files.files(Data(path=Path("d")))
    assert data.ledger.read == 9
    data, held_out = held_out_files.load(Data(path=Path("d"), test_path=Path("exam.jsonl")))
    assert [item.location for item in held_out.test or []] == ["exam.jsonl:1", "exam.jsonl:2"]
    assert data.ledger.ignored == ["d/test.jsonl (data.test_path is used)"]


def test_a_held_out_file_in_the_folder_of_the_data_is_not_trained_on(write: Write) -> None:
    rows = [f'{{"question": "Kiln {n}?", "answer": "{n}"}}\n' for n in range(8)]
    write("d/faq.jsonl", "".join(rows[:6]))
    write("d/exam.jsonl", "".join(rows[6:]))
    data, held_out = held_out_files.load(Data(path=Path("d"), test_path=Path("d/exam.jsonl")))
    assert (len(data.items), len(held_out.test or [])) == (6, 2)


def test_the_test_split_of_a_folder_can_be_named_as_the_test(write: Write) -> None:
    rows = [f'{{"question": "Kiln {n}?", "answer": "{n}"}}\n' for n in range(8)]
    write("d/train.jsonl", "".join(rows[:2]))
    write("d/test.jsonl", "".join(rows[2:4]))
    write("faq.jsonl", "".join(rows[4:]))
    _, held_out = held_out_files.load(Data(path=Path("faq.jsonl"), test_path=Path("d")))
    assert [item.location for item in held_out.test or []] == ["d/test.jsonl:1", "d/test.jsonl:2"]


def test_few_rows_are_read_like_the_data(write: Write) -> None:
    rows = "".join(f"{'ham' if n % 2 else 'spam'},Message number {n} of the day\n" for n in range(20))
    write("d.csv", "v1,v2\n" + rows)
    write("t.csv", "v1,v2\nham,See you at the pier\nspam,Win a boat now\n")
    _, held_out = held_out_files.load(Data(path=Path("d.csv"), test_path=Path("t.csv")))
    assert [item.conversation.answer for item in held_out.test or ()] == ["ham", "spam"]
