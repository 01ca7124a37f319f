"""A sweep's folder → sweep.html and sweep.svg: the answer in words, the chart, and every point with a link to its report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from luthier.report import sweep_chart
from luthier.report.formatting import duration, moment, or_dash, rounded
from luthier.report.run_contents import WHOLE_TEXT
from luthier.report.score_units import BITS, POINTS, metric_name
from luthier.report.sweep_chart import Level, Series, Spot
from luthier.runs.durable import write_atomic


def write(folder: Path) -> Path:
    """Write the page and the chart from sweep.json; gives the page's path."""
    record = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    chart = draw(record)
    write_atomic(folder / "sweep.svg", sweep_chart.standalone(chart))
    environment = Environment(
        loader=PackageLoader("luthier.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("sweep.html.jinja").render(
        record=record,
        chart=chart,
        style=Markup(sweep_chart.STYLE + sweep_chart.DARK),
        rows=[_row(each, record) for each in record["results"]],
        columns=_columns(record),
        metric=metric_name(record["metric"]),
        created=moment(record["created"]),
        missing=len(record["points"]) - len(record["results"]),
    )
    write_atomic(folder / "sweep.html", page.encode("utf-8", "replace"))
    return folder / "sweep.html"


def draw(record: Mapping[str, Any]) -> Markup:
    """The chart of a sweep's results."""
    results: Sequence[Mapping[str, Any]] = record["results"]
    names = list(dict.fromkeys(each["series"] for each in results))
    members = {name: [each for each in results if each["series"] == name] for name in names}
    categories = all(len(each) == 1 for each in members.values())
    series = [
        Series(name, sorted((_spot(each, number, categories) for each in members[name]), key=lambda spot: spot.at))
        for number, name in enumerate(names)
    ]
    levels: dict[str, Level] = {}
    for each in results:
        name = f"best prompt ({each['best_prompt_arm']})"
        several = len({other["model"] for other in results}) > 1
        key = f"{Path(each['model']).name}: {each['best_prompt_arm']}" if several else name
        levels.setdefault(key, Level(key, each["prompt_mean"], tuple(each["prompt_interval"])))
    bits = record["metric"] == WHOLE_TEXT
    unit = BITS if bits else POINTS
    return sweep_chart.draw(
        series,
        list(levels.values()),
        y_title=metric_name(record["metric"]) + (" (lower is better)" if bits else ""),
        x_title="base model or settings" if categories else "training rows (logarithmic)",
        description=" ".join(record["answers"])
        + " "
        + "; ".join(
            f"{each['name']}: {unit.score(each['mean'])} [{unit.interval(each['interval'])}]" for each in results
        ),
        factor=unit.factor,
    )


def _spot(each: Mapping[str, Any], number: int, categories: bool) -> Spot:
    low, high = each["interval"]
    if categories:
        return Spot(number, each["mean"], (low, high), each["series"].replace(", ", "\n"))
    return Spot(each["rows"], each["mean"], (low, high), f"{each['rows']:,}\n{each['amount']:g} %")


def _columns(record: Mapping[str, Any]) -> list[str]:
    several = len({each["series"] for each in record["results"]}) > 1
    return [
        *(["series"] if several else []),
        "data",
        "score",
        "against the best prompt",
        "verdict",
        "dev loss",
        "training",
    ]


def _row(each: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """A point's line of the table."""
    unit = BITS if record["metric"] == WHOLE_TEXT else POINTS
    low, high = each["difference_interval"]
    cells = {
        "series": each["series"],
        "data": f"{each['rows']:,} rows ({each['amount']:g} %)",
        "score": f"{unit.score(each['mean'])} [{unit.interval(each['interval'])}]",
        "against the best prompt": f"{unit.signed(each['difference'])} [{unit.signed(low)}, {unit.signed(high)}]",
        "verdict": each["verdict"],
        "dev loss": or_dash(each["dev_loss"], ".3f"),
        "training": duration(each["train_seconds"]),
    }
    return {
        "name": each["name"],
        "report": f"{each['folder']}/report.html",
        "model": f"{each['model']}, {rounded(each['parameters'])} parameters",
        "cells": cells,
    }
