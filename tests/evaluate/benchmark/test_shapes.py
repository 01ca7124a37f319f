"""A file of questions is recognised by its columns, and what is wrong with a row is said with its line."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import UserError
from luthier.evaluate.benchmark import shapes

from .questions import ARC, HELLASWAG, MMLU, TRUTHFULQA, Rows, write


@pytest.mark.parametrize(
    ("rows", "shape", "names"),
    [
        (ARC, "ARC", ["mine"]),
        (HELLASWAG, "HellaSwag", ["mine"]),
        (MMLU, "MMLU", ["mine"]),
        (TRUTHFULQA, "TruthfulQA", ["mine_mc1", "mine_mc2"]),
    ],
)
def test_each_shape_is_known_by_its_columns(tmp_path: Path, rows: Rows, shape: str, names: list[str]) -> None:
    tasks = shapes.read(write(tmp_path, "mine.jsonl", rows))
    assert [task.shape for task in tasks] == [shape] * len(names)
    assert [task.name for task in tasks] == names
    assert [doc["place"] for doc in tasks[0].docs] == [f"{tmp_path}/mine.jsonl:{line + 1}" for line in range(len(rows))]


def test_a_csv_file_says_the_same_as_jsonl(tmp_path: Path) -> None:
    with (tmp_path / "arc.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["question", "choices", "answerKey"], extrasaction="ignore")
        writer.writeheader()
        writer.writerow(ARC[0] | {"choices": json.dumps(ARC[0]["choices"])})
        writer.writerow(ARC[1] | {"choices": str(ARC[1]["choices"])})  # as pandas writes it
    (from_csv,), (from_jsonl,) = shapes.read(tmp_path / "arc.csv"), shapes.read(write(tmp_path, "arc.jsonl", ARC))
    assert [doc | {"place": ""} for doc in from_csv.docs] == [doc | {"place": ""} for doc in from_jsonl.docs]


def test_mmlu_s_own_csv_has_a_column_for_each_choice(tmp_path: Path) -> None:
    (tmp_path / "spiders.csv").write_text(
        "question,A,B,C,D,answer\nHow many legs has a spider?,six,eight,ten,twelve,B\n"
    )
    (task,) = shapes.read(tmp_path / "spiders.csv")
    assert task.docs[0]["choices"] == ["six", "eight", "ten", "twelve"]
    assert task.docs[0]["letters"] == ["A", "B", "C", "D"]
    assert task.docs[0]["answer"] == 1


def test_hellaswag_rows_need_no_more_than_a_context(tmp_path: Path) -> None:
    rows = [{"ctx": "She opens the door.", "endings": ["She goes in.", "The door eats her."], "label": 0}]
    (task,) = shapes.read(write(tmp_path, "doors.jsonl", rows))
    assert task.docs[0]["query"] == "She opens the door."


def test_a_file_with_one_kind_of_targets_is_one_task(tmp_path: Path) -> None:
    rows = [{name: value for name, value in TRUTHFULQA[0].items() if name != "mc2_targets"}]
    assert [task.name for task in shapes.read(write(tmp_path, "fish.jsonl", rows))] == ["fish_mc1"]


def test_the_share_of_true_answers_is_their_share_of_the_probability() -> None:
    doc = {"mc2_targets": {"labels": [1, 1, 0]}}
    results = [(-1000.0, False), (-1000.0, False), (-1000.0, True)]  # too small to be numbers before they are compared
    assert shapes.true_share(doc, results) == {"acc": pytest.approx(2 / 3)}


def changed(rows: Rows, **values: Any) -> Rows:
    return [rows[0], rows[-1] | values]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            changed(ARC, answerKey="E"),
            r'mine.jsonl:2: "answerKey" is "E", expected one of the labels 1, 2, 3. Put this row',
        ),
        (changed(ARC, question=" "), r'mine.jsonl:2: "question" is " ", expected text'),
        (changed(ARC, choices=["a", "b"]), r'"choices" is \["a", "b"\], expected \{"text"'),
        (changed(ARC, choices={"text": ["a", "b"], "label": ["1", "2", "3"]}), "2 texts and 3 labels"),
        (changed(HELLASWAG, label="4"), r'"label" is "4", expected which of the 4 answers is right: 0 to 3, or A to D'),
        (changed(HELLASWAG, endings=["one"]), "expected a list of at least 2 texts"),
        (changed(MMLU, answer="F"), "expected which of the 4 answers is right"),
        ([MMLU[0], {"question": "x", "answer": 0}], r"mine.jsonl:2: .*expected a list of at least 2 texts"),
        (
            [ARC[0], {"question": "x", "answerKey": "A"}],
            r"mine.jsonl:2: the row has no 'choices' as ARC-shaped rows need",
        ),
        (changed(TRUTHFULQA, mc1_targets={"choices": ["a", "b"], "labels": [1, 1]}), "2 right answers, expected one"),
        (
            changed(TRUTHFULQA, mc2_targets={"choices": ["a", "b"], "labels": [0, 0]}),
            "a 1 or 0 for each choice, and a 1",
        ),
        (changed(TRUTHFULQA, mc1_targets="a"), r'expected \{"choices"'),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_its_line(tmp_path: Path, rows: Rows, message: str) -> None:
    with pytest.raises(UserError, match=message):
        shapes.read(write(tmp_path, "mine.jsonl", rows))


def test_a_file_of_another_shape_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.jsonl", [{"prompt": "a", "reply": "b"}])
    with pytest.raises(
        UserError, match=r"found the columns prompt, reply. Expected one of TruthfulQA: .*; ARC: question, ch"
    ):
        shapes.read(path)


def test_an_empty_file_has_no_questions(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("")
    with pytest.raises(UserError, match="the file is empty"):
        shapes.read(tmp_path / "mine.jsonl")
    (tmp_path / "mine.csv").write_text("question,choices,answer\n")
    with pytest.raises(UserError, match="the file has no rows"):
        shapes.read(tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("word", "is_file"),
    [("mine.jsonl", True), ("a/b.csv.gz", True), ("arc_easy", False), ("mine.yaml", False), ("mmlu.pro", False)],
)
def test_files_differ_from_tasks_by_their_ending(word: str, is_file: bool) -> None:
    assert shapes.is_data_file(word) == is_file
