"""What is read from a run folder, and which answers become examples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import CorruptedState, UserError
from luthier.report import run_contents

MakeRun = Callable[..., Path]


def test_the_ledger_counts_every_row_once(make_run: MakeRun) -> None:
    data = run_contents.read(make_run()).data
    assert data is not None
    assert (data.read, data.kept, data.dropped_rows) == (1439, 1394, 45)
    assert data.adds_up


def test_a_ledger_with_a_lost_row_does_not_add_up(make_run: MakeRun) -> None:
    data = run_contents.read(make_run(data={"kept": 1393})).data
    assert data is not None and not data.adds_up


def test_steps_that_a_continued_run_repeats_are_counted_once_and_the_later_line_holds(make_run: MakeRun) -> None:
    folder = make_run(steps=50)
    with (folder / "events.jsonl").open("a") as events:
        events.write('{"time": "", "kind": "step", "step": 50, "steps": 50, "loss": 0.25}\n')
    steps = run_contents.read(folder).steps
    assert [step.step for step in steps] == list(range(1, 51))
    assert steps[-1].loss == 0.25


def test_a_line_torn_by_a_crash_is_passed_over(make_run: MakeRun) -> None:
    folder = make_run(steps=50)
    for name in ("events.jsonl", "evaluation/answers.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"kind": "step", "st')
    read = run_contents.read(folder)
    assert len(read.steps) == 50 and read.answered["fine-tuned"] == 140


def test_a_loss_that_is_not_finite_is_left_out(make_run: MakeRun) -> None:
    folder = make_run(steps=50)
    with (folder / "events.jsonl").open("a") as events:
        events.write('{"time": "", "kind": "step", "step": 51, "steps": 51, "loss": NaN}\n')
    assert run_contents.read(folder).steps[-1].loss is None


def test_examples_are_ordered_by_what_fine_tuning_changed(make_run: MakeRun) -> None:
    scores = {"0" * 16: (0.5, 0.1), f"{1:016x}": (0.5, 0.9), f"{2:016x}": (0.9, 0.0), f"{3:016x}": (0.3, 0.3)}

    def edit(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for line in answers:
            if line["item"] in scores and line["arm"] in ("retrieved", "fine-tuned"):
                line["score"] = scores[line["item"]][line["arm"] == "fine-tuned"]
        return [line for line in answers if line["item"] in scores]

    pairs = run_contents.read(make_run(edit=edit)).pairs
    assert [pair.tuned.location for pair in run_contents.largest_losses(pairs)] == [
        "tickets.jsonl:120",
        "tickets.jsonl:118",
    ]
    assert [pair.tuned.location for pair in run_contents.largest_gains(pairs)] == ["tickets.jsonl:119"]


def test_examples_compare_with_the_arm_that_dev_chose(make_run: MakeRun) -> None:
    pairs = run_contents.read(make_run(verdict={"best_prompt_arm": "few-shot"})).pairs
    assert len(pairs) == 140
    assert {pair.prompt.arm for pair in pairs} == {"few-shot"}


def test_documents_have_no_examples(make_run: MakeRun) -> None:
    assert run_contents.read(make_run(documents=True)).pairs == ()


def test_a_folder_that_is_no_run_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        run_contents.read(tmp_path)


@pytest.mark.parametrize("content", ['{"verdict": "BET', "[1, 2]"])
def test_a_damaged_verdict_names_its_file_and_what_to_do(make_run: MakeRun, content: str) -> None:
    folder = make_run()
    (folder / "evaluation" / "verdict.json").write_text(content)
    with pytest.raises(CorruptedState, match=r"verdict\.json: not a JSON object; restore the file from a copy"):
        run_contents.read(folder)


def test_a_recipe_edited_into_nonsense_is_still_shown(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "recipe.toml").write_text("model = = =")
    read = run_contents.read(folder)
    assert read.recipe_text == "model = = =" and read.recipe == {}


def test_a_run_whose_process_died_counts_as_interrupted(make_run: MakeRun) -> None:
    folder = make_run(stop_at_step=20)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"state": "running", "reason": None}))
    assert run_contents.read(folder).state == "interrupted"
