"""What a benchmark leaves in the run folder: a summary, and every item's scores, so that anybody can do the sums again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState
from luthier.evaluate.benchmark.results import TaskResult, compare
from luthier.runs.durable import read_json_lines, write_atomic

Json = dict[str, Any]


@dataclass(frozen=True)
class BenchmarkRecord:
    """`summary` is what evaluation/benchmarks.json holds, `items` what benchmark-answers.jsonl does: a line an item and arm."""

    summary: Json
    items: list[Json]


def make_record(
    results: Mapping[str, Sequence[TaskResult]], setting: Mapping[str, object], notes: Sequence[str], *, alpha: float
) -> BenchmarkRecord:
    """The results by arm, the first of them compared with the second, if there are two.

    `setting` is what all tasks were asked with; it is noted for each task, since a later run may differ.
    """
    arms = list(results)
    tasks = compare(results[arms[0]], results[arms[1]] if len(arms) > 1 else None, alpha=alpha)
    summary: Json = {"arms": arms, "notes": list(notes), "tasks": [task | dict(setting) for task in tasks]}
    return BenchmarkRecord(summary, [item for arm, found in results.items() for item in _scored_items(arm, found)])


def _scored_items(arm: str, results: Sequence[TaskResult]) -> list[Json]:
    items = []
    for task in results:
        scored = [metric for metric in task.metrics if metric.items is not None]
        for number in sorted({number for metric in scored for number in metric.items or ()}):
            scores = {metric.name: metric.items[number] for metric in scored if metric.items and number in metric.items}
            location = {"place": task.locations[number]} if task.locations.get(number) else {}
            items.append({"task": task.name, "item": number, **location, "arm": arm, "scores": scores})
    return items


def save_record(folder: Path, record: BenchmarkRecord) -> Json:
    """Add the record to a run's evaluation folder, in place of earlier results of the same tasks. Returns the whole summary."""
    file, answers = folder / "benchmarks.json", folder / "benchmark-answers.jsonl"
    asked = {task["task"] for task in record.summary["tasks"]}
    before: Json = {"arms": [], "notes": [], "tasks": []}
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise CorruptedState("not valid JSON; remove it to measure anew.", where=str(file)) from None
    items = [item for item in read_json_lines(answers) if item["task"] not in asked] + record.items
    whole: Json = {
        "arms": list(dict.fromkeys([*before["arms"], *record.summary["arms"]])),
        "notes": list(dict.fromkeys([*before["notes"], *record.summary["notes"]])),
        "tasks": [task for task in before["tasks"] if task["task"] not in asked] + record.summary["tasks"],
    }
    write_atomic(answers, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    write_atomic(file, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    return whole
