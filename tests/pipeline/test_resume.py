"""A run goes on with what it began with: its data files, its settings, and one process at a time."""

import gc
import json
import weakref
from pathlib import Path

import pytest

from luthier import pipeline
from luthier import recipe as recipes
from luthier.data.prepared import Prepared
from luthier.errors import Interrupted, MachineError, UserError
from luthier.evaluate import stages
from luthier.evaluate.benchmark import BenchmarkSettings
from luthier.evaluate.context import Context
from luthier.model import machine, memory
from luthier.pipeline import benchmarks, preparation, resume
from luthier.recipe import Recipe
from luthier.runs import Run


def write(path: Path, numbers: range) -> Path:
    path.write_text("".join(json.dumps({"question": f"{n}?", "answer": f"{n}."}) + "\n" for n in numbers))
    return path


@pytest.fixture
def asked(tiny_model: Path, tmp_path: Path) -> Recipe:
    """A run with three files of its own."""
    values = {
        "model": str(tiny_model), "data.path": write(tmp_path / "d.jsonl", range(30)), "train.precision": "fp32",
        "data.test_path": write(tmp_path / "t.jsonl", range(100, 110)), "evaluate.guards": [], "evaluate.max_new_tokens": 4,
        "data.dev_path": write(tmp_path / "v.jsonl", range(200, 205)), "train.max_steps": 2,
    }  # fmt: skip
    return recipes.replace(Recipe(), values)


def prepared(asked: Recipe, folder: Path) -> Run:
    current, made = pipeline.open_run(asked, folder, command="luthier run")
    assert made
    preparation.write(current, made)
    return current


def test_a_run_with_files_to_test_and_to_choose_by_is_repeated_by_its_own_command(
    asked: Recipe, tmp_path: Path
) -> None:
    prepared(asked, tmp_path / "r")
    again, made = pipeline.open_run(asked, tmp_path / "r", command="luthier run")
    assert made is None
    resume.warn_of_changes(again)
    assert not again.events("warning")


def test_a_test_file_that_has_changed_is_named_with_its_rows(asked: Recipe, tmp_path: Path) -> None:
    prepared(asked, tmp_path / "r")
    exam = write(tmp_path / "t.jsonl", range(100, 111))
    with pytest.raises(UserError, match=rf"{exam} was \d+ bytes.*; 1 row added \({exam}:11\)\. Continue with"):
        pipeline.open_run(asked, tmp_path / "r", command="luthier run")
    resume.warn_of_changes(current := Run(tmp_path / "r"))
    assert "t.jsonl was" in current.events("warning")[0]["message"]


def test_rows_that_a_run_left_out_are_not_told_as_new(asked: Recipe, tmp_path: Path) -> None:
    half = recipes.replace(asked, {"data.train_share": 0.5, "data.test_items": 6})
    prepared(half, tmp_path / "r")
    write(tmp_path / "d.jsonl", range(31))
    with pytest.raises(UserError, match=r"\); 1 row added\. Continue with"):
        pipeline.open_run(half, tmp_path / "r", command="luthier run")


def test_a_setting_is_changed_only_by_who_holds_the_lock(asked: Recipe, tmp_path: Path) -> None:
    current = prepared(asked, tmp_path / "r")
    before = (tmp_path / "r" / "recipe.toml").read_bytes(), (tmp_path / "r" / "run.json").read_bytes()
    with current.lock():
        with pytest.raises(MachineError, match="the run is in use by process"):
            resume.change_settings(Run(tmp_path / "r"), ["train.tokens_per_batch=64"])
        assert ((tmp_path / "r" / "recipe.toml").read_bytes(), (tmp_path / "r" / "run.json").read_bytes()) == before
    resume.change_settings(Run(tmp_path / "r"), ["train.tokens_per_batch=64"])
    assert "tokens_per_batch = 64" in (tmp_path / "r" / "recipe.toml").read_text()
    assert Run(tmp_path / "r").mismatch("recipe.toml") is None


def test_a_number_beyond_what_there_is_becomes_what_there_is(asked: Recipe) -> None:
    wide = {"train.max_tokens": 100_000, "data.test_items": 300, "data.dev_items": 3}
    made = pipeline.prepare(recipes.replace(asked, wide))
    told = {key: (recipes.get(made.recipe, key), made.reasons[key]) for key in wide}
    assert told == {
        "train.max_tokens": (512, "the model's context; 100,000 were asked for"),
        "data.test_items": (10, f"of {asked.data.test_path}, where 300 were asked for"),
        "data.dev_items": (3, "as asked"),
    }


def test_the_rows_in_memory_are_let_go_once_they_are_on_the_disk(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[weakref.ref[pipeline.Preparation]] = []
    prepare = preparation.prepare

    def watched(one: Recipe, **more: object) -> pipeline.Preparation:
        made = prepare(one)
        prepared.append(weakref.ref(made))
        return made

    def stop(*arguments: object) -> None:
        gc.collect()
        raise Interrupted(f"{sum(one() is not None for one in prepared)} of {len(prepared)} are held")

    monkeypatch.setattr(preparation, "prepare", watched)
    monkeypatch.setattr(stages, "ask_base", stop)
    with pytest.raises(Interrupted, match="0 of 1 are held"):
        pipeline.run(asked, tmp_path / "r")


def test_a_run_that_was_not_prepared_keeps_its_first_choices(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = recipes.replace(asked, {"train.precision": None})
    monkeypatch.setattr(machine, "precision", lambda device: ("bf16", "1.4 times as fast"))
    _, made = pipeline.open_run(free, tmp_path / "r", command="luthier run")
    assert made and made.recipe.train.method == "full"
    monkeypatch.setattr(machine, "precision", lambda device: ("fp32", "1.2 times as fast"))
    monkeypatch.setattr(memory, "available", lambda device: 1_000)
    current = Run(tmp_path / "r")
    preparation.write(current, preparation.prepare_again(current))
    assert recipes.load(tmp_path / "r" / "recipe.toml").train == made.recipe.train
    assert current.events("recipe")[0]["settings"]["train.precision"] == ["bf16", "1.4 times as fast"]


def test_a_stage_reads_the_rows_of_a_split_once(asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current = prepared(asked, tmp_path / "r")
    read: list[Prepared] = []
    items = Prepared.items
    monkeypatch.setattr(Prepared, "items", lambda rows: read.append(rows) or items(rows))
    context = Context(current, asked)
    assert [len(context.items("train")) for _ in range(3)] == [30, 30, 30] and len(read) == 1


def test_a_benchmark_of_a_run_that_is_in_use_is_refused_before_it_is_run(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = prepared(asked, tmp_path / "r")
    monkeypatch.setattr(benchmarks.reference, "find_folder", lambda name: None)
    monkeypatch.setattr(benchmarks.harness, "run_benchmark", lambda *arguments: pytest.fail("it was run"))
    with current.lock(), pytest.raises(MachineError, match="the run is in use by process"):
        pipeline.benchmark(str(tmp_path / "r"), BenchmarkSettings(["own.jsonl"]))
