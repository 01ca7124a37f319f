"""What is watched besides the score: guards before and after training, and the kinds of errors in the answers."""

import json
from collections.abc import Sequence
from typing import Any

from luthier.evaluate import error_analysis, guards
from luthier.evaluate.answers.file import Line
from luthier.evaluate.context import Desk
from luthier.model.loading import LanguageModel
from luthier.runs.durable import write_atomic


def ask_guards(desk: Desk, lm: LanguageModel, arm: str) -> None:
    """Put the guards' material to the base model, which training will change, or to the tuned one."""
    path = desk.run.folder / "evaluation" / "guard-answers.jsonl"
    guards.ask(lm, arm, _case(desk), path, desk.progress(arm, "guard"))
    told = guards.left_out(path)
    if told and all(event["message"] != told for event in desk.run.events("warning")):
        desk.run.record("warning", message=told)


def watch(desk: Desk, result: dict[str, Any], lines: Sequence[Line]) -> dict[str, Any]:
    """The verdict with what the guards found; a guard that fails is named in its sentence. Writes guards.json."""
    path = desk.run.folder / "evaluation"
    found = guards.findings(_case(desk), path / "guard-answers.jsonl", lines)
    told = {"guards": [finding.to_json() for finding in found]}
    write_atomic(path / "guards.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    desk.run.record("guards", findings=guards.summary(found))
    return guards.beside(result, found)


def analyse_errors(desk: Desk) -> None:
    """Write errors.json from the answers that are there: of the base model before training, of both after it."""
    case, lines = _case(desk), desk.sheet("answers").lines()
    if case.documents or not lines:
        return
    analysis = error_analysis.analyse(case.train, lines, desk.recipe.evaluate, base_arm=guards.base_arm(lines))
    path = desk.run.folder / "evaluation" / "errors.json"
    write_atomic(path, json.dumps(analysis, indent=2, ensure_ascii=False) + "\n")
    desk.run.record("errors", sentence=analysis["sentence"])


def _case(desk: Desk) -> guards.Case:
    """The run as a guard sees it."""
    recipe = desk.recipe
    material = guards.Own.of(desk.run.folder / "data" / "guards.json")
    return guards.Case(
        desk.items("test"), desk.items("train"), recipe.evaluate, recipe.data.system, recipe.train.seed, material
    )
