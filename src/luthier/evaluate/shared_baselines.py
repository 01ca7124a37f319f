"""Answers that a run takes over from another one, of the same base model to the same questions: the points of a sweep.

The prompts were selected and asked once, with all the training rows to take demonstrations from; a point that trains on fewer
of them is compared with the same prompts. The run that takes over freezes a plan of its own before it uses the test answers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.evaluate.context import Context
from luthier.evaluate.prompts.arms import TUNED
from luthier.evaluate.verdict import analysis_plan
from luthier.runs.durable import append_json_lines, read_json_lines, write_atomic

SELECTION_FILE, ANSWERS_FILE = "lent-choice.json", "lent-answers.jsonl"


def share(source: Path, target: Path) -> None:
    """Copy what the base model has answered in one run to another run's folder, with what was selected for its prompts."""
    ours, theirs = source / "evaluation", target / "evaluation"
    plan = analysis_plan.read(ours / "plan.json")
    if plan is None or (theirs / SELECTION_FILE).exists():
        return
    for name, copy in (("dev-answers.jsonl", "dev-answers.jsonl"), ("answers.jsonl", ANSWERS_FILE)):
        records = [record for record in read_json_lines(ours / name) if record["arm"] != TUNED]
        _append_missing(records, theirs / copy)
    write_atomic(theirs / SELECTION_FILE, json.dumps(plan.content["chosen"], indent=2, ensure_ascii=False) + "\n")


def shared_selection(context: Context) -> Mapping[str, Any] | None:
    """What was selected for the prompts in the run that shares its answers; None where no run does."""
    path = context.run.folder / "evaluation" / SELECTION_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def take_over_answers(context: Context) -> None:
    """Put the shared test answers among the run's own, once test is open."""
    records = read_json_lines(context.run.folder / "evaluation" / ANSWERS_FILE)
    _append_missing(records, context.answers_file("answers").path)


def _append_missing(records: list[dict[str, Any]], path: Path) -> None:
    """Append the records of arms and items that the file has not."""
    known = {(record["arm"], record["item"]) for record in read_json_lines(path)}
    if missing := [record for record in records if (record["arm"], record["item"]) not in known]:
        append_json_lines(path, missing)
