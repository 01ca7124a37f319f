"""Answers that a run takes over from another one, of the same base model to the same questions: the points of a sweep.

The prompts were chosen and asked once, with all the training rows to take examples from; a point that learns fewer of them
is compared with the same prompts. The borrower freezes a plan of its own before it takes the test answers over.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.evaluate.context import Desk
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
        there = {(line["arm"], line["item"]) for line in read_json_lines(theirs / target)}
        lines = [line for line in read_json_lines(ours / source) if line["arm"] != TUNED_ARM]
        if lines := [line for line in lines if (line["arm"], line["item"]) not in there]:
            append_json_lines(theirs / target, lines)
    write_atomic(theirs / CHOSEN, json.dumps(made.content["chosen"], indent=2, ensure_ascii=False) + "\n")


def choice(desk: Desk) -> Mapping[str, Any] | None:
    """What was chosen for the prompts in the lending run; None for a run that borrows nothing."""
    path = desk.run.folder / "evaluation" / CHOSEN
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def take_over(desk: Desk) -> None:
    """The lent test answers, once test is open."""
    sheet = desk.sheet("answers")
    there = {(line["arm"], line["item"]) for line in sheet.lines()}
    lines = read_json_lines(desk.run.folder / "evaluation" / ANSWERS)
    if lines := [line for line in lines if (line["arm"], line["item"]) not in there]:
        append_json_lines(sheet.path, lines)
