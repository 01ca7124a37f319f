"""A sweep's points are planned once, answer the same questions, and are written by one process."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from luthier import pipeline, sweep
from luthier import recipe as recipes
from luthier.errors import EnvironmentMistake
from luthier.model import machine
from luthier.recipe import Recipe
from luthier.runs import Run, alone


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


def test_a_sweep_with_a_test_file_plans_each_point_once(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Recipe] = []
    plan = pipeline.plan
    monkeypatch.setattr(pipeline, "plan", lambda one, *kept: planned.append(one) or plan(one, *kept))
    answers = itertools.cycle([("fp32", "slower"), ("bf16", "faster")])
    monkeypatch.setattr(machine, "precision", lambda device: next(answers))
    folder = sweep.run(asked, tmp_path / "s", amounts=[50, 100])
    record: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    assert [(each["amount"], each["rows"]) for each in record["results"]] == [(100, 27), (50, 13)]
    assert len(planned) == 3, "once for what all points share, once for each point"
    assert Run(folder / "points" / "50pct").events("borrowed")[0]["of"] == "100pct"
    recipes_of = [recipes.load(folder / "points" / name / "recipe.toml") for name in ("100pct", "50pct")]
    assert [one.train.precision for one in recipes_of] == ["fp32", "fp32"], "they share what one timing said"


def test_a_sweep_that_is_in_use_is_left_as_it_is(asked: Recipe, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with (
        alone(tmp_path / "s"),
        pytest.raises(EnvironmentMistake, match=r"in use by process \d+ .* another folder with --folder"),
    ):
        sweep.run(asked, tmp_path / "s", amounts=[50, 100])
    assert not (tmp_path / "s" / "sweep.json").exists()
