"""A run that the first 0.1 wrote, before its modules had their names of today: without weights, else complete.

run-0.1.tar.gz was made on the tiny model: 12 questions, 4 steps, the arms zero-shot and fine-tuned.
"""

import json
import shutil
from pathlib import Path

import pytest

from luthier import recipe as recipes
from luthier import report, runs
from luthier.data.prepared import Prepared
from luthier.runs import Run, verify


@pytest.fixture
def old(tmp_path: Path) -> Run:
    shutil.unpack_archive(Path(__file__).parent / "run-0.1.tar.gz", tmp_path, filter="data")
    return Run(tmp_path / "run")


def test_an_old_run_is_found_with_its_state_its_recipe_and_its_events(old: Run) -> None:
    (found,), unreadable = runs.find(old.folder.parent)
    assert (found.name, found.state, unreadable) == ("run", "complete", [])
    assert recipes.load(old.folder / "recipe.toml").train.max_steps == 4
    assert [event["step"] for event in old.events("step")] == [1, 2, 3, 4]
    assert [item.conversation.answer for item in Prepared(old.folder / "data" / "test.arrow").items()]


def test_an_old_run_has_a_report(old: Run) -> None:
    report.write(old.folder)
    content = json.loads((old.folder / "report.json").read_text())
    assert "NOT SHOWN" in json.dumps(content)
    assert "NOT SHOWN" in (old.folder / "report.html").read_text()


def test_an_old_run_is_verified_file_by_file(old: Run) -> None:
    findings = list(verify.verify(old))
    problems = {finding.name: finding.problem for finding in findings if finding.problem}
    assert problems and all(name.startswith("model/") and problem == "is missing" for name, problem in problems.items())
    assert {"data/train.arrow", "evaluation/verdict.json", "recipe.toml", "run.json"} <= {
        finding.name for finding in findings if finding.problem is None
    }


def test_an_old_run_can_be_locked_and_added_to(old: Run) -> None:
    with old.working():
        old.record("warning", message="later")
    assert Run(old.folder).events("warning")[-1]["message"] == "later"
