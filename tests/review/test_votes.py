"""Votes from files and from reviews, checked line by line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.errors import UserError
from luthier.evaluate.judge.ratings import Vote
from luthier.review import marks, votes
from luthier.review.sheet import make_sheet
from luthier.runs import Run
from luthier.runs.durable import append_json_lines

MakeRun = Callable[..., Run]


def file(tmp_path: Path, content: str) -> Path:
    (tmp_path / "v.csv").write_text(content)
    return tmp_path / "v.csv"


def test_a_winner_is_a_side_a_name_or_nobody(tmp_path: Path) -> None:
    path = file(tmp_path, "a,b,winner,item\nX,Y,a,1\nX,Y,B,1\nX,Y,y,\nX,Y,tie,\n")
    same = f"{path}:1"
    assert votes.read([path]) == [
        Vote("X", "Y", "X", same), Vote("X", "Y", "Y", same), Vote("X", "Y", "Y"), Vote("X", "Y", None)
    ]  # fmt: skip


def test_what_is_wrong_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        votes.read([file(tmp_path, "a,b,winner\nX,Y,Z\nX,X,a\n")])
    first, second = str(caught.value).splitlines()
    assert 'v.csv:2: winner is "Z"; expected a, b, tie, "X" or "Y".' in first
    assert "v.csv:3: a vote needs two different players" in second


def test_other_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column winner, found a, b"):
        votes.read([file(tmp_path, "a,b\nX,Y\n")])


def test_reviews_of_runs_meet_in_the_prompt_that_they_share(make_run: MakeRun) -> None:
    folders = []
    for name, chosen in (("one", "fine-tuned"), ("two", "tie")):
        run = make_run(name)
        make_sheet(run, 5)
        append_json_lines(run.folder / marks.FILE, [{"reviewer": "x", "item": "i01", "chosen": chosen}])
        folders.append(run.folder)
    assert [(vote.first, vote.second, vote.winner) for vote in votes.read(folders)] == [
        ("one", "tiny · few-shot", "one"), ("two", "tiny · few-shot", None)
    ]  # fmt: skip


def test_a_run_without_marks_is_told_what_to_do(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"no marks yet\. `luthier review"):
        votes.read([make_run().folder])
