"""What is watched besides the score: guards before and after training, and the kinds of errors in the answers."""

import json
from collections.abc import Sequence
from typing import Any

from luthier.evaluate import error_analysis, guards
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.context import Context
from luthier.model.loading import LanguageModel
from luthier.runs.durable import write_atomic


def ask_guards(context: Context, lm: LanguageModel, arm: str) -> None:
    """Put the guards' material to the base model, which training will change, or to the tuned one."""
    path = context.run.folder / "evaluation" / "guard-answers.jsonl"
    guards.ask(lm, arm, _case(context), path, context.progress(arm, "guard"))
    told = guards.left_out_sentence(path)
    if told and all(event["message"] != told for event in context.run.events("warning")):
        context.run.record("warning", message=told)


def watch(context: Context, result: dict[str, Any], records: Sequence[AnswerRecord]) -> dict[str, Any]:
    """The verdict with what the guards found; a guard that fails is named in its sentence. Writes guards.json."""
    path = context.run.folder / "evaluation"
    found = guards.check_results(_case(context), path / "guard-answers.jsonl", records)
    told = {"guards": [finding.to_json() for finding in found]}
    write_atomic(path / "guards.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    context.run.record("guards", findings=guards.summary(found))
    return guards.add_to_verdict(result, found)


def analyse_errors(context: Context) -> None:
    """Write errors.json from the answers that are there: of the base model before training, of both after it."""
    case, records = _case(context), context.answers_file("answers").records()
    if case.documents or not records:
        return
    analysis = error_analysis.analyse(case.train, records, context.recipe.evaluate, base_arm=guards.base_arm(records))
    path = context.run.folder / "evaluation" / "errors.json"
    write_atomic(path, json.dumps(analysis, indent=2, ensure_ascii=False) + "\n")
    context.run.record("errors", sentence=analysis["sentence"])


def _case(context: Context) -> guards.GuardInputs:
    """The run as a guard sees it."""
    recipe = context.recipe
    material = guards.UserMaterial.of(context.run.folder / "data" / "guards.json")
    return guards.GuardInputs(
        context.items("test"), context.items("train"), recipe.evaluate, recipe.data.system, recipe.train.seed, material
    )
