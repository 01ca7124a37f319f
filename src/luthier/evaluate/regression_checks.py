"""What is checked besides the score: guards before and after training, and the kinds of errors in the answers."""

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
    guards.ask(lm, arm, _guard_inputs(context), path, context.progress(arm, "guard"), context.ask_model)
    message = guards.left_out_sentence(path)
    if message and all(event["message"] != message for event in context.run.events("warning")):
        context.run.record("warning", message=message)


def add_guard_results(context: Context, verdict: dict[str, Any], records: Sequence[AnswerRecord]) -> dict[str, Any]:
    """The verdict with what the guards found; a guard that fails is named in its sentence. Writes guards.json."""
    folder = context.run.folder / "evaluation"
    results = guards.check_results(_guard_inputs(context), folder / "guard-answers.jsonl", records)
    content = {"guards": [result.to_json() for result in results]}
    write_atomic(folder / "guards.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    context.run.record("guards", findings=guards.summary(results))
    return guards.add_to_verdict(verdict, results)


def analyse_errors(context: Context) -> None:
    """Write errors.json from the answers so far: the base model's before training, both models' after it."""
    inputs, records = _guard_inputs(context), context.answers_file("answers").records()
    if inputs.documents or not records:
        return
    analysis = error_analysis.analyse(inputs.train, records, context.recipe.evaluate, base_arm=guards.base_arm(records))
    path = context.run.folder / "evaluation" / "errors.json"
    write_atomic(path, json.dumps(analysis, indent=2, ensure_ascii=False) + "\n")
    context.run.record("errors", sentence=analysis["sentence"])


def _guard_inputs(context: Context) -> guards.GuardInputs:
    """The run as a guard sees it."""
    recipe = context.recipe
    material = guards.UserMaterial.of(context.run.folder / "data" / "guards.json")
    return guards.GuardInputs(
        context.items("test"), context.items("train"), recipe.evaluate, recipe.data.system, recipe.train.seed, material
    )
