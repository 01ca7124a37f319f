"""An inspection → inspect.html: what the data is, and every finding with its places, on one page that loads nothing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from luthier.report import charts
from luthier.report.formatting import listed, moment, plural
from luthier.report.page import HTML_CLAMP, clamp, code, first_five, visible
from luthier.runs.durable import write_atomic

WORDS = {"error": "a run would stop at it", "warning": "it may spoil the result", "note": "worth knowing"}
MARKS = {"error": "✕", "warning": "!", "note": "i"}
LABELS_SHOWN = 12
MOST_ON_THE_PAGE = 500
"""Places of one finding that the page has; --json has all of them."""


def write(path: Path, record: Mapping[str, Any], *, now: datetime | None = None) -> Path:
    """Write the page of an inspection's JSON object."""
    write_atomic(path, html(record, now or datetime.now(UTC)).encode("utf-8", "replace"))
    return path


def html(record: Mapping[str, Any], now: datetime) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("luthier.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "visible": visible,
        "clamp": lambda text: clamp(text, HTML_CLAMP),
        "first_five": first_five,
        "plural": plural,
        "code": code,
    }
    open_findings = [finding for finding in record["findings"] if not finding["action"]]
    worst = open_findings[0]["severity"] if open_findings else None
    return environment.get_template("inspection.html.jinja").render(
        record=record,
        created=moment(now.isoformat()),
        summary=summary(record["findings"]),
        worst=worst,
        tone={"error": "worse", "warning": "open", "note": "equivalent"}.get(worst or "", "better"),
        mark=MARKS.get(worst or "", "✓"),
        marks=MARKS,
        words=WORDS,
        facts=_facts(record),
        findings=[finding | {"shown": _shown(finding)} for finding in record["findings"]],
        most=MOST_ON_THE_PAGE,
        histograms=_histograms(record),
        splits=_splits(record),
        labels=list(record["labels"].items())[:LABELS_SHOWN],
        more_labels=max(0, len(record["labels"]) - LABELS_SHOWN),
    )


def summary(findings: Sequence[Mapping[str, Any]]) -> str:
    """`2 warnings and 3 notes`; accepted findings do not count."""
    severities = [finding["severity"] for finding in findings if not finding["action"]]
    counts = [plural(severities.count(name), name) for name in WORDS if name in severities]
    return listed(counts) if counts else "Nothing found"


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, value and remark of what a reader looks for first."""
    row, unit = record["lengths"]["row"], record["lengths"]["unit"]
    rows = [
        ("rows", f"{record['kept']:,}", f"{record['read']:,} read, {record['read'] - record['kept']:,} dropped"),
        ("format", record["format"], _columns(record)),
        ("task", record["task"], f"{plural(record['groups'], 'group')}, none of which is in two splits"),
        (f"{unit} a row", f"{row['p50']:,}", f"95 % up to {row['p95']:,}, the longest {row['max']:,}"),
    ]
    return rows


def _columns(record: Mapping[str, Any]) -> str:
    named = [column if column == word else f"{column} as {word}" for word, column in record["columns"].items()]
    text = f"from {listed(named)}" if named else ""
    if record["unused"]:
        text += f"{'; ' if text else ''}not used: {', '.join(record['unused'])}"
    if record["alternatives"]:
        text += f"{'; ' if text else ''}could also be {' or '.join(record['alternatives'])}"
    return text


def _shown(finding: Mapping[str, Any]) -> list[str]:
    """The places of a finding with what stands there."""
    pairs = zip(finding["places"][:MOST_ON_THE_PAGE], finding["details"], strict=False)
    return [f"{location}: {detail}" if detail else location for location, detail in pairs]


def _histograms(record: Mapping[str, Any]) -> list[tuple[str, str, Markup]]:
    """Title, figures and drawing for rows, questions and answers; documents have rows only."""
    unit = record["lengths"]["unit"]
    found = []
    for name in ("row",) if record["task"] == "document" else ("row", "question", "answer"):
        size = record["lengths"][name]
        figures = f"median {size['p50']:,}, 95 % up to {size['p95']:,}, longest {size['max']:,} {unit}"
        drawing = charts.histogram(f"{name}-lengths", f"{unit.capitalize()} of each {name}", size["histogram"])
        found.append((f"{name.capitalize()}s", figures, drawing))
    return found


def _splits(record: Mapping[str, Any]) -> Markup | None:
    if not record["splits"]:
        return None
    styles = {"train": "solid", "dev": "half", "test": "faint"}
    parts = [charts.Share(name, style, record["splits"][name]) for name, style in styles.items()]
    return charts.shares("splits", "Items in each split", parts)
