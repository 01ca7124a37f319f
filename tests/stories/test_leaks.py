"""The rest of the proof as a person uses it: leaks named, answers reviewed blind, more data tried."""

import csv
import json
from pathlib import Path

import pytest

from luthier.runs import Run
from luthier.runs.durable import read_json_lines

from .conftest import Command


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, content: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.fixture
def parts(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The sixty questions as two files: forty to learn and twenty to be tested with."""
    return write(tmp_path / "train.jsonl", rows(data)[:40]), write(tmp_path / "exam.jsonl", rows(data)[40:])


def verdict(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "evaluation" / "verdict.json").read_text())
    return found


def test_a_test_file_of_ones_own_is_asked_whole(
    luthier: Command, parts: tuple[Path, Path], quick: list[str], tmp_path: Path
) -> None:
    train, exam = parts
    words = [word for word in quick if "test_items" not in word]
    screen = luthier("run", train, *words, f"data.test_path={exam}", "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    assert "60 rows read = 60 kept + 0 dropped" in screen.err and "train 34 · dev 6 · test 20" in screen.err
    lines = read_json_lines(tmp_path / "r" / "evaluation" / "answers.jsonl")
    assert {line["place"] for line in lines} == {f"{exam}:{number}" for number in range(1, 21)}
    found = verdict(tmp_path / "r")
    assert found["n"] == 20 and found["leakage"]["held_out"]
    assert f"all usable rows of {exam}" in (tmp_path / "r" / "recipe.toml").read_text()


def test_a_planted_leak_is_named_and_the_verdict_withheld(
    luthier: Command, parts: tuple[Path, Path], quick: list[str], tmp_path: Path
) -> None:
    train, exam = parts
    write(exam, [*rows(exam), rows(train)[6]])
    words = [word for word in quick if "test_items" not in word and "dev_items" not in word]
    dev = write(tmp_path / "dev.jsonl", rows(train)[30:])
    write(train, rows(train)[:30])
    words += [f"data.test_path={exam}", f"data.dev_path={dev}"]
    screen = luthier("run", train, *words, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    place = f"{exam}:21 as {train}:7"
    assert "Leakage" in screen.err and f"of 21 test rows in train: 1 exact; the first: {place}" in screen.err
    assert "The verdict is WITHHELD" in screen.out and place in screen.out.replace("\n", " ")
    found = verdict(tmp_path / "r")
    assert (found["verdict"], found["leakage"]["clean_n"], found["leakage"]["held_out"]) == ("WITHHELD", 20, False)
    assert "WITHHELD" in luthier("runs", tmp_path).out
    assert "WITHHELD" in (tmp_path / "r" / "report.html").read_text()


def test_a_test_file_is_refused_before_anything_starts(
    luthier: Command, parts: tuple[Path, Path], quick: list[str], tmp_path: Path
) -> None:
    screen = luthier("run", parts[0], *quick, f"data.test_path={tmp_path / 'exma.jsonl'}", "--run", tmp_path / "r")
    assert screen.code == 2 and 'did you mean "' in screen.err and "exam.jsonl" in screen.err
    assert not (tmp_path / "r").exists()


def test_a_blind_sheet_goes_out_and_comes_back_and_runs_are_rated(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    folder, sheet = tmp_path / "r", tmp_path / "sheet.csv"
    luthier("run", data, *quick, "train.max_steps=60", "train.learning_rate=1e-2", "--run", folder)
    assert luthier("review", folder).code == 2
    screen = luthier("review", folder, "--export", sheet, "--items", 6)
    assert screen.code == 0, screen.err
    assert sheet.with_suffix(".html").exists() and "questions on sheet" in screen.out
    content = list(csv.DictReader(sheet.read_text(encoding="utf-8-sig").splitlines()))
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, content[0])
        writer.writeheader()
        writer.writerows({**row, "mark": "A", "reviewer": "Ada"} for row in content)
    screen = luthier("review", folder, "--import", sheet)
    assert screen.code == 0, screen.err
    result = json.loads((folder / "review" / "result.json").read_text())
    assert result["questions"] == len(content) and result["sentence"] in screen.out
    assert luthier("review", folder).out.strip() == result["sentence"]
    rated = luthier("ratings", folder, "-o", tmp_path / "ratings.json")
    assert rated.code == 0 and "Bradley–Terry" in rated.out
    assert {each["name"] for each in json.loads((tmp_path / "ratings.json").read_text())} >= {"r"}


def test_a_sweep_asks_the_prompts_once_and_draws_one_chart(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    screen = luthier("sweep", data, *quick, "--amounts", "25,100", "--folder", folder)
    assert screen.code == 0, screen.err
    assert "Point 1 of 2  100pct" in screen.err and "oubling the data" in screen.out
    record = json.loads((folder / "sweep.json").read_text())
    assert [(each["amount"], each["rows"]) for each in record["results"]] == [(100, 46), (25, 11)]
    lines = {
        name: read_json_lines(folder / "points" / name / "evaluation" / "answers.jsonl") for name in ("100pct", "25pct")
    }
    prompts = [[line for line in each if line["arm"] != "fine-tuned"] for each in lines.values()]
    assert prompts[0] == prompts[1] and len(prompts[0]) == 24, "lent, seconds and all"
    assert Run(folder / "points" / "25pct").events("borrowed")[0]["of"] == "100pct"
    small, large = ({item["place"] for item in _train(folder / "points" / name)} for name in ("25pct", "100pct"))
    assert small < large
    assert (folder / "sweep.svg").read_text().startswith("<?xml") and "<polyline" in (folder / "sweep.html").read_text()
    again = luthier("sweep", "--folder", folder)
    assert again.out == screen.out and again.err.count("(complete)") == 2


def _train(folder: Path) -> list[dict[str, str]]:
    from luthier.data.prepared import Prepared

    return [{"place": item.location} for item in Prepared(folder / "data" / "train.arrow").items()]


def test_a_sweep_over_settings_goes_on_where_it_was_and_takes_more_points(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    words = ["sweep", data, *quick, "--set", "train.learning_rate=1e-4,1e-2", "--folder", folder]
    assert luthier(*words).code == 0
    first = (folder / "points" / "learning_rate=0.0001-100pct" / "evaluation" / "verdict.json").stat().st_mtime_ns
    screen = luthier("sweep", data, *quick, "--set", "train.learning_rate=5e-3", "--folder", folder)
    assert screen.code == 0, screen.err
    assert "The best of these settings on dev is train.learning_rate=" in screen.out
    assert len(json.loads((folder / "sweep.json").read_text())["results"]) == 3
    assert (
        folder / "points" / "learning_rate=0.0001-100pct" / "evaluation" / "verdict.json"
    ).stat().st_mtime_ns == first
    refused = luthier("sweep", data, *quick, "train.seed=3", "--folder", folder)
    assert refused.code == 2 and "train.seed was 0, now 3" in refused.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--amounts", "50"], "one point is no comparison (50pct)"),
        (["--amounts", "50,120"], "--amounts: found 120; an amount is a share of the training rows"),
        (["--amounts", "0.25,0.5"], "--amounts: amounts are per cent; for a share of 0.5 write 50"),
        (["--amounts", "all"], 'found "all"; expected shares of the training rows in per cent'),
        (["--amounts", "50,50"], "--amounts: 50 is named twice"),
        (["--set", "train.learning_rat=1,2"], 'did you mean "train.learning_rate"?'),
        (["--set", "data.test_items=5,6"], "a sweep varies settings of train"),
        (["--set", "train.epochs=1,two"], "train.epochs should be a whole number"),
        (["--set", "train.epochs"], "expected key=value,value"),
        (["--models", "nowhere/a,nowhere/b"], "nowhere/a"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_before_it_starts(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, words: list[str], message: str
) -> None:
    screen = luthier("sweep", data, *quick, *words, "--folder", tmp_path / "s")
    assert screen.code in (2, 4) and message in screen.err
    assert not (tmp_path / "s").exists()


def test_a_sweep_needs_data(luthier: Command, tmp_path: Path) -> None:
    screen = luthier("sweep", "--folder", tmp_path / "s")
    assert screen.code == 2 and "data.path: no data" in screen.err
