"""The screen of `luthier benchmark`: a table of scores, the base model's beside them."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from luthier.cli.screens.terminal import COLOURS, console
from luthier.evaluate.statistics import p_in_words

POINTS = ("acc", "exact_match", "f1", "em", "mcc", "pass@")
"""Beginnings of the names of metrics that go from 0 to 1, and are shown in hundredths."""


def show_scores(found: Mapping[str, Any]) -> None:
    """A line for each task and metric."""
    out = console()
    paired = len(found["arms"]) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    levels = [metric["confidence"] for task in found["tasks"] for metric in task["metrics"] if "confidence" in metric]
    interval = f"{100 * levels[0]:g} % interval" if levels else "interval"
    titles = ["task", "items", "metric", found["arms"][0]]
    for title in titles + (["base", "difference", interval, "p", "fixed", "broken", ""] if paired else []):
        table.add_column(title, justify="left" if title in ("task", "metric", "") else "right", overflow="fold")
    for task in found["tasks"]:
        for metric in task["metrics"]:
            cells = [
                escape(task["task"]),
                f"{task['items']:,}",
                escape(metric["metric"]),
                _number(metric, metric["value"]),
            ]
            table.add_row(*cells, *(_beside(metric) if paired else ()))
    out.print(table)
    for note in found["notes"]:
        out.print(f"[yellow]Note[/]  {escape(note)}.")
    comparisons = sum("word" in metric for task in found["tasks"] for metric in task["metrics"])
    if comparisons > 3:
        out.print(f"[dim]{comparisons} comparisons: one in twenty looks like a difference where there is none.[/]")


def _beside(metric: Mapping[str, Any]) -> list[str]:
    """The base model's score, and what the pairs of answers say about the difference."""
    if "base" not in metric:
        return [""] * 7
    cells = [_number(metric, metric["base"]), _number(metric, metric["difference"], sign=True)]
    if "word" not in metric:
        return [*cells, "", "", "", "", ""]
    low, high = metric["interval"]
    word = f"[{COLOURS[metric['word']]}]{metric['word']}[/]"
    interval = f"{_number(metric, low, sign=True)} – {_number(metric, high, sign=True)}"
    p_value = p_in_words(metric["p_value"]).removeprefix("p ").removeprefix("= ")
    return [*cells, interval, p_value, str(metric["fixed"]), str(metric["broken"]), word]


def _number(metric: Mapping[str, Any], value: float, *, sign: bool = False) -> str:
    """In points of a hundred for accuracies and the like."""
    hundredths = str(metric["metric"]).startswith(POINTS)
    return f"{value * (100 if hundredths else 1):{'+' if sign else ''}.{1 if hundredths else 3}f}"
