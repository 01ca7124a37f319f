"""The stages of a run: what is done is passed over, and whoever started it can stop it."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from luthier import pipeline
from luthier import recipe as recipes
from luthier.errors import Interrupted
from luthier.model.identity import fingerprint
from luthier.pipeline import proof
from luthier.pipeline.proof import Job, Stage
from luthier.recipe import Recipe
from luthier.runs import Run


@pytest.fixture
def asked(tiny_model: Path, tmp_path: Path) -> Recipe:
    rows = [{"question": f"{n}?", "answer": f"{n}."} for n in range(40)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "model": str(tiny_model), "data.path": tmp_path / "d.jsonl", "train.precision": "fp32", "evaluate.guards": [],
        "evaluate.max_new_tokens": 4, "evaluate.arms": ["zero-shot", "fine-tuned"], "train.max_steps": 6,
    }  # fmt: skip
    return recipes.replace(Recipe(), values)


def test_a_run_in_a_thread_is_stopped_by_who_started_it_and_goes_on_to_the_same_weights(
    asked: Recipe, tmp_path: Path
) -> None:
    """Python hears signals in the main thread only; this needs none."""
    stop, ended = threading.Event(), []

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 3:
            stop.set()

    def work() -> None:
        try:
            pipeline.run(asked, tmp_path / "stopped", listen=listen, stop=stop.is_set)
        except Interrupted as stopped:
            ended.append(str(stopped))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    current = Run(tmp_path / "stopped")
    assert ended == ["stopped after step 3 of 6; its checkpoint is saved."]
    assert current.state == "interrupted" and len(current.events("stopping")) == 1

    pipeline.run(Recipe(), tmp_path / "stopped")
    calm = pipeline.run(asked, tmp_path / "calm")
    assert Run(tmp_path / "stopped").state == "complete"
    assert fingerprint(tmp_path / "stopped" / "model") == fingerprint(calm.folder / "model")


def test_a_run_that_is_told_to_stop_while_its_data_is_read_has_written_nothing(asked: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="nothing was written yet"):
        pipeline.run(asked, tmp_path / "r", stop=lambda: True)
    assert not (tmp_path / "r").exists()


def test_stages_that_are_done_are_passed_over_and_a_run_stops_between_two(tmp_path: Path) -> None:
    made: list[str] = []

    def stage(name: str, *, done: bool = False) -> Stage:
        return Stage(name, lambda job: done, lambda job: made.append(name))

    stages = [stage("the first"), stage("the second", done=True), stage("the third")]
    job = Job(Run.create(tmp_path / "r"), stop=lambda: False)
    proof.go_through(stages, job)
    assert made == ["the first", "the third"]
    made.clear()
    job.stop = lambda: bool(made)
    with pytest.raises(Interrupted, match="stopped before the second; what was complete is kept"):
        proof.go_through(stages, job)
    assert made == ["the first"]


def test_a_model_that_was_taken_away_is_made_again(asked: Recipe, tmp_path: Path) -> None:
    """The way out that `luthier verify` names for a damaged model."""
    current = pipeline.run(asked, tmp_path / "r")
    before = fingerprint(current.folder / "model")
    for file in sorted((current.folder / "model").iterdir()):
        file.unlink()
    (current.folder / "model").rmdir()
    assert fingerprint(pipeline.run(Recipe(), tmp_path / "r").folder / "model") == before
