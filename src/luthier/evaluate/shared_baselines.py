"""Answers that a run takes over from another one, of the same base model to the same questions: the points of a sweep.

The prompts were chosen and asked once, with all the training rows to take examples from; a point that learns fewer of them
is compared with the same prompts. The borrower freezes a plan of its own before it takes the test answers over.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.evaluate.context import Context
from luthier.evaluate.verdict import TUNED_ARM, analysis_plan
from luthier.runs.durable import append_json_lines, read_json_lines, write_atomic

CHOSEN, ANSWERS = "lent-choice.json", "lent-answers.jsonl"


def lend(lender: Path, borrower: Path) -> None:
    """Put what the base model has answered in one run at another's disposal, with what was chosen for its prompts."""
    ours, theirs = lender / "evaluation", borrower / "evaluation"
    made = analysis_plan.read(ours / "plan.json")
    if made is None or (theirs / CHOSEN).exists():
        return
    for source, target in (("dev-answers.jsonl", "dev-answers.jsonl"), ("answers.jsonl", ANSWERS)):
        there = {(record["arm"], record["item"]) for record in read_json_lines(theirs / target)}
        records = [record for record in read_json_lines(ours / source) if record["arm"] != TUNED_ARM]
        if records := [record for record in records if (record["arm"], record["item"]) not in there]:
            append_json_lines(theirs / target, records)
    write_atomic(theirs / CHOSEN, json.dumps(made.content["chosen"], indent=2, ensure_ascii=False) + "\n")


def choice(context: Context) -> Mapping[str, Any] | None:
    """What was chosen for the prompts in the lending run; None for a run that borrows nothing."""
    path = context.run.folder / "evaluation" / CHOSEN
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def take_over(context: Context) -> None:
    """The lent test answers, once test is open."""
    answers_file = context.answers_file("answers")
    there = {(record["arm"], record["item"]) for record in answers_file.records()}
    records = read_json_lines(context.run.folder / "evaluation" / ANSWERS)
    if records := [record for record in records if (record["arm"], record["item"]) not in there]:
        append_json_lines(answers_file.path, records)
