"""What is left of a benchmark: a summary, and every item's scores, so that anybody can do the sums again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState
from luthier.evaluate.benchmark.results import TaskResult, compare
from luthier.runs.durable import read_json_lines, write_atomic

Line = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """`summary` is what evaluation/benchmarks.json holds, `lines` what benchmark-answers.jsonl does: a line an item and arm."""

    summary: Line
    lines: list[Line]


def record(
    results: Mapping[str, Sequence[TaskResult]], setting: Mapping[str, object], notes: Sequence[str], *, alpha: float
) -> Card:
    """The results by arm, the first of them compared with the second, if there are two.

    `setting` is what all tasks were asked with; it is told for each task, since a later run may differ.
    """
    arms = list(results)
    tasks = compare(results[arms[0]], results[arms[1]] if len(arms) > 1 else None, alpha=alpha)
    summary: Line = {"arms": arms, "notes": list(notes), "tasks": [task | dict(setting) for task in tasks]}
    return Card(summary, [line for arm, tasks_of in results.items() for line in _lines(arm, tasks_of)])


def _lines(arm: str, results: Sequence[TaskResult]) -> list[Line]:
    found = []
    for task in results:
        scored = [metric for metric in task.metrics if metric.items is not None]
        for number in sorted({number for metric in scored for number in metric.items or ()}):
            scores = {metric.name: metric.items[number] for metric in scored if metric.items and number in metric.items}
            place = {"place": task.places[number]} if task.places.get(number) else {}
            found.append({"task": task.name, "item": number, **place, "arm": arm, "scores": scores})
    return found


def keep(folder: Path, card: Card) -> Line:
    """Put the card into a run's evaluation folder; tasks from before stay, unless they were asked again. Returns the whole."""
    file, answers = folder / "benchmarks.json", folder / "benchmark-answers.jsonl"
    asked = {task["task"] for task in card.summary["tasks"]}
    before: Line = {"arms": [], "notes": [], "tasks": []}
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise CorruptedState("not valid JSON; remove it to measure anew.", where=str(file)) from None
    lines = [line for line in read_json_lines(answers) if line["task"] not in asked] + card.lines
    whole: Line = {
        "arms": list(dict.fromkeys([*before["arms"], *card.summary["arms"]])),
        "notes": list(dict.fromkeys([*before["notes"], *card.summary["notes"]])),
        "tasks": [task for task in before["tasks"] if task["task"] not in asked] + card.summary["tasks"],
    }
    write_atomic(answers, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_atomic(file, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    return whole
