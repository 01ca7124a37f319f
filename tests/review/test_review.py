"""A sheet tells nobody whose answer is whose; the run can tell; what comes back is checked line by line."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier import review
from luthier.errors import MachineError, UserError
from luthier.review.sheet import COLUMNS
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

MakeRun = Callable[..., Run]
Judge = Callable[[dict[str, str]], str]


def export(run: Run, path: Path, items: int = 50) -> list[dict[str, str]]:
    review.write_csv(review.make_sheet(run, items), path, items=items)
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def fill(rows: list[dict[str, str]], path: Path, judge: Judge, reviewer: str = "Ada") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "mark": judge(row), "reviewer": reviewer} for row in rows)
    return path


def likes(arm: str) -> Judge:
    return lambda row: "A" if row["answer_a"].startswith(arm) else "B"


def imported(run: Run, *files: Path) -> review.Result:
    return review.import_marks(run, files)


def refusal(run: Run, *files: Path) -> str:
    with pytest.raises(UserError) as caught:
        review.import_marks(run, files)
    assert not (run.folder / "review" / "marks.jsonl").exists()
    return str(caught.value)


def test_a_sheet_has_both_answers_in_an_order_that_it_does_not_tell(make_run: MakeRun, tmp_path: Path) -> None:
    rows = export(make_run(items=200), tmp_path / "s.csv", 200)
    first = Counter(row["answer_a"].split()[0] for row in rows)
    assert set(first) == {"fewshot", "finetuned"} and 70 < first["fewshot"] < 130
    assert all({row[f"answer_{side}"].split()[0] for side in "ab"} == set(first) for row in rows)
    assert "few-shot" not in (text := (tmp_path / "s.csv").read_text()) and "fine-tuned" not in text
    assert "i00" not in text, "an item's id would lead to the answers"


def test_two_runs_with_the_same_answers_have_different_orders(make_run: MakeRun, tmp_path: Path) -> None:
    one, two = (export(make_run(name), tmp_path / f"{name}.csv") for name in ("x", "y"))
    assert [row["question"] for row in one] != [row["question"] for row in two]


def test_a_larger_sheet_continues_a_smaller_one(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    small, large = export(run, tmp_path / "s.csv", 5), export(run, tmp_path / "l.csv", 20)
    assert large[:5] == small and len(large) == 20
    assert export(run, tmp_path / "s2.csv", 5) == small


def test_answers_that_are_alike_are_not_asked_about(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(items=6, same=(0, 3))
    rows = export(run, tmp_path / "s.csv")
    assert sorted(row["question"] for row in rows) == [f"Question {number}?" for number in (1, 2, 4, 5)]
    result = imported(run, fill(rows, tmp_path / "m.csv", likes("fine")))
    assert result.same_answer == 2 and "2 more test questions got the same answer" in result.sentence


def test_the_key_undoes_the_blinding(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    rows = export(run, tmp_path / "s.csv")
    result = imported(run, fill(rows, tmp_path / "m.csv", likes("fine")))
    assert result.counts == {"fine-tuned": 30, "few-shot": 0, "tie": 0, "both bad": 0}
    assert result.preference == 1 and result.interval[0] > 0.8
    assert result.sentence.startswith("People prefer fine-tuned: fine-tuned was better in 100 % of 30 questions")
    assert json.loads((run.folder / "review" / "result.json").read_text())["preference"] == 1


def test_who_always_marks_a_prefers_nobody_and_it_shows(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One draw in twenty is a preference by chance.
    monkeypatch.setattr("secrets.token_hex", lambda count: "7" * 2 * count)
    run = make_run(items=100)
    result = imported(run, fill(export(run, tmp_path / "s.csv", 100), tmp_path / "m.csv", lambda row: "a"))
    assert result.first_chosen == 1 and result.interval[0] < 0.5 < result.interval[1]
    assert "NOT SHOWN" in result.sentence


def test_ties_count_half_and_empty_marks_do_not_count(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(items=8)
    rows = export(run, tmp_path / "s.csv")
    words = {"1": "TIE", "2": "both bad", "3": "", "4": ""}
    result = imported(run, fill(rows, tmp_path / "m.csv", lambda row: words.get(row["number"], likes("few")(row))))
    assert (result.questions, result.preference) == (6, pytest.approx(1 / 6))
    assert result.counts == {"fine-tuned": 0, "few-shot": 4, "tie": 1, "both bad": 1}


def test_only_ties_are_no_proof_of_anything(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(items=8)
    result = imported(run, fill(export(run, tmp_path / "s.csv"), tmp_path / "m.csv", lambda row: "tie"))
    assert result.preference == 0.5 and result.interval[0] < 0.4 and result.interval[1] > 0.6


def test_several_reviewers_are_told_apart_and_compared(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(items=4)
    rows = export(run, tmp_path / "s.csv")
    first = fill(rows, tmp_path / "ada.csv", likes("fine"))
    second = fill(rows, tmp_path / "bob.csv", lambda row: likes("few" if row["number"] == "1" else "fine")(row), "")
    result = imported(run, first, second)
    assert result.reviewers == {"Ada": 4, "bob": 4}, "without a name, the file's"
    assert result.preference == pytest.approx((0.5 + 3) / 4)
    assert result.agreement and (result.agreement["kind"], result.agreement["same"]) == ("Cohen's kappa", 0.75)


def test_a_reviewers_new_file_replaces_the_old_one(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(items=4)
    rows = export(run, tmp_path / "s.csv")
    imported(run, fill(rows, tmp_path / "m.csv", likes("few")))
    result = imported(run, fill(rows[:3], tmp_path / "m.csv", likes("fine")))
    assert result.counts["fine-tuned"] == 3 and result.counts["few-shot"] == 0
    assert len(read_json_lines(run.folder / "review" / "marks.jsonl")) == 3


def test_a_sheet_of_another_run_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run, other = make_run("x"), make_run("y")
    export(run, tmp_path / "s.csv")
    marks = fill(export(other, tmp_path / "o.csv"), tmp_path / "m.csv", likes("fine"))
    assert "m.csv:2: belongs to the sheet" in (told := refusal(run, marks)) and "this run's sheet is" in told


def test_all_that_is_wrong_in_marks_is_told_at_once_with_lines(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(items=4)
    rows = export(run, tmp_path / "s.csv")
    rows = [rows[0], {**rows[1], "number": "99"}, rows[2], rows[0]]
    marks = fill(rows, tmp_path / "m.csv", lambda row: "bth bad" if row == rows[2] else "A")
    told = refusal(run, marks).splitlines()
    assert 'm.csv:3: the sheet has no question "99"; it has 1 to 4.' in told[0]
    assert 'm.csv:4: unknown mark "bth bad", did you mean "both bad"? expected A, B, tie or both bad.' in told[1]
    assert "m.csv:5: Ada marks question 1 twice" in told[2]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sheet,number\nx,1\n", "no column mark, found sheet, number"),
        ("", "empty"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused(make_run: MakeRun, tmp_path: Path, content: str, told: str) -> None:
    run = make_run(items=4)
    export(run, tmp_path / "s.csv")
    (tmp_path / "m.csv").write_text(content)
    assert told in refusal(run, tmp_path / "m.csv")


def test_an_unmarked_sheet_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(items=4)
    export(run, tmp_path / "s.csv")
    assert "no marks in it" in refusal(run, tmp_path / "s.csv")


def test_marks_without_a_sheet_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    assert "this run has no sheet yet" in refusal(make_run(), tmp_path / "m.csv")


def test_answers_that_changed_after_the_sheet_are_noticed(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    export(run, tmp_path / "s.csv")
    path = run.folder / "evaluation" / "answers.jsonl"
    path.write_text(path.read_text().replace("finetuned answers 3", "something else"))
    with pytest.raises(UserError, match="the answers have changed since the sheet was made"):
        review.make_sheet(run, 50)


def test_a_run_with_nothing_to_compare_says_so(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both arms gave the same answer to every test question"):
        review.make_sheet(make_run(items=3, same=(0, 1, 2)), 50)


def test_no_answer_becomes_a_formula_in_a_spreadsheet(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(items=2)
    path = run.folder / "evaluation" / "answers.jsonl"
    path.write_text(path.read_text().replace('"finetuned answers 0"', '"=HYPERLINK(1)"'))
    rows = export(run, tmp_path / "s.csv")
    assert any("'=HYPERLINK(1)" in (row["answer_a"], row["answer_b"]) for row in rows)


def test_sheets_and_marks_are_written_only_by_who_holds_the_lock(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    marks = fill(export(run, tmp_path / "s.csv", 5), tmp_path / "m.csv", likes("finetuned"))
    before = {file: file.read_bytes() for file in (run.folder / "review").iterdir()}
    with Run(run.folder).lock():
        for write in (lambda: review.make_sheet(run, 9), lambda: review.import_marks(run, [marks])):
            with pytest.raises(MachineError, match="the run is in use by process"):
                write()
    assert {file: file.read_bytes() for file in (run.folder / "review").iterdir()} == before
