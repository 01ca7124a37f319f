"""A sweep's points are prepared once, answer the same questions, and are written by one process."""

import itertools
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import thinking
from luthier import recipe as recipes
from luthier.errors import Interrupted, MachineError
from luthier.evaluate.statistics import Interval
from luthier.evaluate.statistics.scaling import Doubling, Word
from luthier.model import machine
from luthier.pipeline import preparation, sweep
from luthier.pipeline.sweep.results import in_words
from luthier.recipe import Recipe
from luthier.report.score_units import POINTS
from luthier.runs import Run, lock


def write(path: Path, numbers: range) -> Path:
    path.write_text("".join(json.dumps({"question": f"{n}?", "answer": f"{n}."}) + "\n" for n in numbers))
    return path


@pytest.fixture
def asked(tiny_model: Path, tmp_path: Path) -> Recipe:
    values = {
        "model": str(tiny_model), "data.path": write(tmp_path / "d.jsonl", range(30)), "evaluate.guards": [],
        "data.test_path": write(tmp_path / "t.jsonl", range(100, 108)), "evaluate.max_new_tokens": 4, "train.max_steps": 2,
        "evaluate.arms": ["zero-shot", "fine-tuned"],
    }  # fmt: skip
    return recipes.replace(Recipe(), values)


def test_a_sweep_with_a_test_file_prepares_each_point_once(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[Recipe] = []
    prepare = preparation.prepare
    monkeypatch.setattr(
        preparation, "prepare", lambda one, *first, **more: asked_for.append(one) or prepare(one, *first, **more)
    )
    answers = itertools.cycle([("fp32", "slower"), ("bf16", "faster")])
    monkeypatch.setattr(machine, "precision", lambda device: next(answers))
    folder = sweep.run(asked, tmp_path / "s", amounts=[50, 100])
    record: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    assert [(each["amount"], each["rows"]) for each in record["results"]] == [(100, 27), (50, 13)]
    assert len(asked_for) == 3, "once for what all points share, once for each point"
    assert Run(folder / "points" / "50pct").events("borrowed")[0]["of"] == "100pct"
    recipes_of = [recipes.load(folder / "points" / name / "recipe.toml") for name in ("100pct", "50pct")]
    assert [one.train.precision for one in recipes_of] == ["fp32", "fp32"], "they share what one timing said"


def test_a_sweep_is_stopped_by_who_started_it_and_goes_on(asked: Recipe, tmp_path: Path) -> None:
    points: list[str] = []

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "point":
            points.append(event["name"])

    with pytest.raises(Interrupted, match=r"Continue with: luthier sweep --folder .*/s$"):
        sweep.run(asked, tmp_path / "s", amounts=[50, 100], listen=listen, stop=lambda: len(points) == 2)
    assert Run(tmp_path / "s" / "points" / "100pct").state == "complete"
    assert not (tmp_path / "s" / "points" / "50pct").exists()
    sweep.run(Recipe(), tmp_path / "s")
    assert Run(tmp_path / "s" / "points" / "50pct").state == "complete"


def test_a_sweep_that_is_in_use_is_left_as_it_is(asked: Recipe, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with (
        lock(tmp_path / "s"),
        pytest.raises(MachineError, match=r"in use by process \d+ .* another folder with --folder"),
    ):
        sweep.run(asked, tmp_path / "s", amounts=[50, 100])
    assert not (tmp_path / "s" / "sweep.json").exists()


@pytest.mark.parametrize(
    ("word", "interval", "room", "told"),
    [
        ("MORE HELPS", (0.021, 0.04), 0.3, "would likely gain 2.1 to 4.0 points."),
        ("MORE HELPS", (0.0001, 0.04), 0.3, "would likely gain up to 4.0 points."),
        (
            "MORE HELPS",
            (0.03, 0.03),
            0.03,
            "would likely gain 3.0 points, and could reach the best possible score.",
        ),
        (
            "MORE HURTS",
            (-0.04, -0.0001),
            0.3,
            "would likely lose up to 4.0 points. Look at the rows before you add more.",
        ),
        ("LITTLE CHANGE", (0.0, 0.0), 0.0, "cannot help: the score is already the best possible."),
        ("LITTLE CHANGE", (-0.0001, 0.0), 0.3, "would likely change little: between 0.0 and 0.0 points."),
    ],
)
def test_what_more_data_would_bring_is_told_without_zeros_that_are_none(
    word: Word, interval: tuple[float, float], room: float, told: str
) -> None:
    flat = Interval(-0.0001, 0.0)
    fit = Doubling(word, interval[1], Interval(*interval), 100, 0.0, flat, 50, 0.0, room)
    assert in_words("", fit, POINTS, "") == (
        f"Doubling the data, from 100 to 200 training rows, {told} "
        "The last step, from 50 to 100 rows, brought 0.0 points [95 % CI 0.0, 0.0]."
    )


def test_points_of_one_model_have_the_same_room_for_thoughts_and_all_the_same_day(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = itertools.chain([date(2026, 11, 28)], itertools.repeat(date(2026, 11, 29)))
    monkeypatch.setattr(preparation, "today", lambda: next(days))
    model = thinking.make(tmp_path / "m", ["0? 1? 2. 3."], template=thinking.DATED)
    folder = sweep.run(recipes.replace(asked, {"model": str(model)}), tmp_path / "s", amounts=[50, 100])
    made = [recipes.load(folder / "points" / name / "recipe.toml") for name in ("100pct", "50pct")]
    assert [one.evaluate.thinking_tokens for one in made] == [128, 128]
    assert made[0].chat.date == made[1].chat.date is not None
