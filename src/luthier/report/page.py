"""A run folder → report.html, report.md and report.json: its contents, text and drawings, put into templates.

The page is one file that loads nothing. Whatever a user or a model wrote is escaped by the templates and has its
control characters made visible, so that a text can neither act on the page nor hide in it.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from luthier.data.formats.formats import named
from luthier.report import charts, exports, json_fields
from luthier.report.arms_table import ArmsTable
from luthier.report.evaluation_details import leakage_sentence
from luthier.report.formatting import DASH, moment, p_value, plural
from luthier.report.run_contents import TUNED, AnswerPair, RunContents, Verdict, read
from luthier.report.text import ReportText, compose, row_sum
from luthier.report.training_events import PREFERENCE_FIELDS
from luthier.runs.durable import write_atomic

HTML_CLAMP = 320
"""Characters of a text that the page shows before "more"."""

HIDDEN = (
    *(code for code in range(32) if chr(code) not in "\n\t"),
    0x7F,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
"""Control characters, and those that turn the direction of the text after them."""

MARKDOWN_CLAMP = 600
"""Characters of a text that the Markdown shows; the rest is in report.json and evaluation/answers.jsonl."""


def write(folder: Path) -> Path:
    """Write the run's report.html, report.md and report.json, each whole or not at all; gives the path of the page.

    The same folder gives the same bytes. A run that stopped early gets a report too: what is missing, how to go on.
    """
    run = read(folder)
    text = compose(run)
    write_atomic(folder / "report.json", machine_readable(run, text))
    write_atomic(folder / "report.md", markdown(run, text))
    page = folder / "report.html"
    write_atomic(page, html(run, text))
    return page


def html(run: RunContents, text: ReportText) -> str:
    """The self-contained page."""
    template = _environment(autoescape=True).get_template("report.html.jinja")
    return _without_surrogates(template.render(run=run, text=text, drawings=_draw(run, text), tuned=TUNED))


def markdown(run: RunContents, text: ReportText) -> str:
    """The same text for a terminal or a merge request."""
    template = _environment(autoescape=False).get_template("report.md.jinja")
    return _without_surrogates(template.render(run=run, text=text, tuned=TUNED, best_step=run.best_step))


def machine_readable(run: RunContents, text: ReportText) -> str:
    """The same for programs: verdict.json, data, training and examples in one JSON object."""
    checks = [
        {key: value for key, value in asdict(check).items() if key not in PREFERENCE_FIELDS or value is not None}
        for check in run.dev
    ]
    first, last = (run.steps[0], run.steps[-1]) if run.steps else (None, None)
    content = {
        "run": {
            "name": text.title,
            "state": run.state,
            "reason": run.reason,
            "created": run.created,
            "luthier": run.version,
            "command": run.command,
            "versions": run.versions,
            "hashes": run.hashes,
        },
        "verdict": _plain(run.verdict_file) or None,
        "data": asdict(run.data) if run.data else None,
        "model": asdict(run.model) if run.model else None,
        "training": {
            "steps": last.step if last else 0,
            "planned_steps": last.steps if last else None,
            "first_loss": first.loss if first else None,
            "last_loss": last.loss if last else None,
            "dev": checks,
            "end": asdict(run.trained) if run.trained else None,
            "foretold": [one.to_json() for one in run.estimates],
        },
        "examples": {
            "worse": [_example(pair) for pair in text.worse],
            "better": [_example(pair) for pair in text.better],
        },
        "beside": _plain(run.evaluation.to_json()),
        "exports": [_plain(asdict(each)) for each in run.exports],
        "doubts": [asdict(caveat) for caveat in text.caveats],
        "missing": list(text.missing),
        "continue": text.continue_command,
    }
    return _without_surrogates(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def visible(text: str) -> str:
    """A text with its invisible control characters shown by their numbers, as [U+0000]."""
    return _without_surrogates(text.replace("\r\n", "\n").translate({code: f"[U+{code:04X}]" for code in HIDDEN}))


def clamp(text: str, most: int) -> tuple[str, str]:
    """The beginning of a text and its rest, cut between words; a rest too short to hide stays with the beginning."""
    text = visible(text)
    if len(text) <= most * 1.25:
        return text, ""
    gap = max(text.rfind(" ", most - 60, most), text.rfind("\n", most - 60, most))
    cut = gap + 1 if gap > 0 else most
    return text[:cut], text[cut:]


def fenced(text: str, most: int = MARKDOWN_CLAMP) -> str:
    """A text as a Markdown code block that it cannot leave: the fence is longer than any run of backticks inside."""
    beginning, rest = clamp(text, most)
    if rest:
        beginning += f"… ({len(rest):,} more characters)"
    fence = "```"
    while fence in beginning:
        fence += "`"
    return f"{fence}text\n{beginning}\n{fence}"


def inline(text: str) -> str:
    """A text inside a Markdown line: marks are escaped and line ends become spaces."""
    escaped = re.sub(r"[\\`*<|]|\](?=[(\[:])", r"\\\g<0>", visible(text))
    return " ".join(escaped.split())


def code(text: str) -> Markup:
    """One of the report's own sentences, with its `words in backticks` set as code."""
    pieces = [escape(piece) for piece in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if number % 2 else piece for number, piece in enumerate(pieces)
    )


def table(arms: ArmsTable) -> str:
    """The arms as a Markdown table whose columns also line up in a terminal."""
    lines = [["arm", "mean", "interval", *arms.columns]]
    for row in arms.rows:
        chosen = " (best prompt)" if row.chosen else ""
        lines.append([inline(row.label) + chosen, row.mean, row.interval or DASH, *row.cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in [lines[0], ruler, *lines[1:]]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def first_five(found: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The locations to show at once, and those to show on request."""
    return found[:5], found[5:]


def beyond(found: json_fields.Locations) -> str:
    """How many more locations there are than a page lists, and where they are."""
    more = len(found) - len(found.first)
    return f", and {more:,} more, all in data/ledger.jsonl" if more else ""


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("luthier.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "visible": visible,
        "clamp": lambda text: clamp(text, HTML_CLAMP),
        "fenced": fenced,
        "inline": inline,
        "first_five": first_five,
        "beyond": beyond,
        "plural": plural,
        "row_sum": row_sum,
        "code": code,
        "table": table,
        "times": lambda count: "once" if count == 1 else f"{count:,} times",
        "format_name": named,
        "leakage": leakage_sentence,
        "moment": moment,
        "p_value": p_value,
        "code_like": lambda text: text.lstrip()[:1] in ("{", "["),
    }
    return environment


NOTHING = Markup()


@dataclass
class Drawings:
    """The page's drawings; empty where there is nothing to draw."""

    loss: Markup = NOTHING
    splits: Markup = NOTHING
    counts: Markup = NOTHING
    difference: Markup = NOTHING
    arms: dict[str, Markup] = field(default_factory=dict)
    axis: Markup = NOTHING
    reliability: Markup = NOTHING
    export_shares: list[list[Markup]] = field(default_factory=list)
    """By export and part."""
    export_scores: list[Markup] = field(default_factory=list)
    export_axis: Markup = NOTHING


def _draw(run: RunContents, text: ReportText) -> Drawings:
    drawings = Drawings()
    train = [(float(step.step), step.loss) for step in run.steps if step.loss is not None]
    dev = [(float(check.step), check.loss) for check in run.dev if check.loss is not None]
    if len(train) > 1 or len(dev) > 1:
        drawings.loss = charts.loss_curves(train, dev, best_step=run.best_step)
    if data := run.data:
        splits = (("train", "solid", data.train), ("dev", "half", data.dev), ("test", "faint", data.test))
        drawings.splits = charts.shares("splits", "Items in each split", [charts.Share(*split) for split in splits])
    if sure := run.evaluation.decisions:
        drawings.reliability = charts.reliability(
            *([(each.confidence, each.right) for each in bins] for bins in (sure.before, sure.after))
        )
    if run.exports:
        drawings.export_shares, drawings.export_scores, drawings.export_axis = exports.draw(run.exports)
    if run.verdict:
        _draw_verdict(drawings, run.verdict, text)
    return drawings


def _draw_verdict(drawings: Drawings, verdict: Verdict, text: ReportText) -> None:
    """Adds the drawings that need a verdict."""
    unit = text.unit
    if verdict.fixed is not None and verdict.same is not None and verdict.broken is not None:
        counts = (
            ("fixed", "solid", verdict.fixed),
            ("same", "faint", verdict.same),
            ("broken", "hatched", verdict.broken),
        )
        drawings.counts = charts.shares(
            "counts", "Answers fixed, same and broken", [charts.Share(*count) for count in counts]
        )
    if verdict.difference is not None and verdict.interval is not None:
        low, high = verdict.interval
        drawings.difference = charts.difference(
            verdict.difference,
            verdict.interval,
            margin=verdict.margin,
            words=(unit.signed(low), unit.signed(verdict.difference), unit.signed(high)),
            title=f"What fine-tuning gains in {text.metric}",
            description=f"{text.claim}: {text.particulars}",
        )
    if not text.table:
        return
    scale = charts.forest_scale([(arm.mean, arm.interval) for arm in verdict.arms])
    chosen = verdict.arm(verdict.best_prompt_arm)
    for row in text.table.rows:
        drawings.arms[row.arm.name] = charts.forest_row(
            row.arm.mean,
            row.arm.interval,
            scale=scale,
            compared=chosen.mean if chosen else None,
            kind="tuned" if row.tuned else "chosen" if row.chosen else "prompt",
            label=f"{row.label}: {row.mean}" + (f", interval {row.interval}" if row.interval else ""),
        )
    drawings.axis = charts.forest_axis(scale, [f"{tick * unit.factor:g}" for tick in scale.ticks])


def _example(pair: AnswerPair) -> dict[str, object]:
    return {
        "item": pair.tuned.item,
        "place": pair.tuned.location,
        "change": pair.change,
        "question": pair.tuned.question,
        "reference": pair.tuned.reference,
        "answers": {answer.arm: {"answer": answer.text, "score": answer.score} for answer in (pair.prompt, pair.tuned)},
    }


def _plain(value: Any) -> Any:
    """JSON without NaN and infinities, which other languages' readers refuse: they become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value


def _without_surrogates(text: str) -> str:
    """Halves of a character, which UTF-8 cannot hold, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
