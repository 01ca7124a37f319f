"""What the report says in words, the same for the page, the Markdown and the JSON. Nothing here opens a file or draws."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.data.formats.formats import named
from luthier.report import training_text
from luthier.report.arms_table import ArmsTable, arms_table, cost
from luthier.report.caveats import Caveat, caveats
from luthier.report.formatting import moment, plural, rounded
from luthier.report.run_contents import (
    WHOLE_TEXT,
    AnswerPair,
    Data,
    Model,
    RunContents,
    Verdict,
    largest_gains,
    largest_losses,
)
from luthier.report.score_units import METRICS, Unit, metric_name, unit_of, visible_effect
from luthier.report.training_text import EstimateRow

MARKS = {"BETTER": "▲", "WORSE": "▼", "EQUIVALENT": "=", "NOT SHOWN": "?", "WITHHELD": "!"}
"""A sign beside the verdict's word, for readers who do not see its colour."""


@dataclass(frozen=True)
class Fact:
    """One of the facts under the headline."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class ReportText:
    """Everything that the report says, section by section."""

    title: str
    word: str
    mark: str
    claim: str
    particulars: str
    unit: Unit
    metric: str
    facts: tuple[Fact, ...]
    test: str
    """The statistical test, and the smallest effect that it could have shown."""
    table: ArmsTable | None
    cost: str
    training: str
    estimates: tuple[EstimateRow, ...]
    worse: tuple[AnswerPair, ...]
    better: tuple[AnswerPair, ...]
    no_examples: str
    caveats: tuple[Caveat, ...]
    missing: tuple[str, ...]
    continue_command: str | None
    created: str


def compose(run: RunContents) -> ReportText:
    """The text of a run's report."""
    verdict = run.verdict
    unit = unit_of(verdict)
    claim, particulars = split_sentence(verdict.sentence) if verdict else progress(run)
    return ReportText(
        title=run.folder.resolve().name,
        word=verdict.verdict if verdict else "NO VERDICT YET",
        mark=MARKS.get(verdict.verdict, "") if verdict else "…",
        claim=claim,
        particulars=particulars,
        unit=unit,
        metric=metric_name(verdict.metric) if verdict else "",
        facts=tuple(facts(run)),
        test=test_sentence(verdict, unit) if verdict else "",
        table=arms_table(verdict, unit) if verdict and verdict.arms else None,
        cost=cost(verdict) if verdict else "",
        training=training_text.caption(run),
        estimates=tuple(training_text.estimate_rows(run.estimates)),
        worse=tuple(largest_losses(run.pairs)),
        better=tuple(largest_gains(run.pairs)),
        no_examples=_no_examples(verdict, run.pairs),
        caveats=tuple(caveats(run, unit)),
        missing=tuple(missing(run)),
        continue_command=continue_command(run.folder) if run.state not in ("running", "complete") else None,
        created=moment(run.created),
    )


def facts(run: RunContents) -> Iterator[Fact]:
    """Task, data, base model, test items."""
    verdict, data, model = run.verdict, run.data, run.model
    if verdict:
        task = METRICS.get(verdict.metric, ("", "answering questions"))[1]
        why = f" ({reason})" if (reason := verdict.metric_reason.strip().rstrip(".")) else ""
        yield Fact("Task", task, f"scored by {metric_name(verdict.metric)}{why}")
    if data:
        names = ", ".join(Path(name).name for name in data.files[:2]) or "data"
        more = f" and {len(data.files) - 2} more files" if len(data.files) > 2 else ""
        yield Fact(
            "Data", f"{names}{more}", f"{data.kept:,} of {plural(data.read, 'row')} kept, read as {named(data.format)}"
        )
    if model:
        yield Fact("Base model", model.name, _method(model))
    if verdict:
        groups = f"{plural(verdict.groups, 'group')}, each in one split only" if verdict.groups else "held out"
        if run.evaluation.leakage.get("held_out") is False:
            groups = "not held out: training has seen some of them"
        yield Fact("Test items", f"{verdict.n:,}", groups)
    elif data:
        yield Fact("Splits", f"{data.train:,} · {data.dev:,} · {data.test:,}", "train · dev · test items")


def split_sentence(sentence: str) -> tuple[str, str]:
    """A verdict's sentence as its claim and its particulars, which stand after the first colon."""
    claim, _, particulars = sentence.partition(": ")
    return claim, particulars[:1].upper() + particulars[1:]


def test_sentence(verdict: Verdict, unit: Unit) -> str:
    """What the verdict's sentence leaves out: the test, and the smallest effect that it could have shown."""
    groups = f" over {plural(verdict.groups, 'group')}" if verdict.groups and verdict.groups != verdict.n else ""
    parts = [f"{verdict.test[:1].upper()}{verdict.test[1:]} test{groups}."] if verdict.test else []
    if effect := visible_effect(verdict, unit):
        parts.append(f"The smallest effect that it could have shown is {effect}.")
    return " ".join(parts)


def progress(run: RunContents) -> tuple[str, str]:
    """What happened to a run without a verdict, and how far it came."""
    event, reached = run.last_event, "it had just begun"
    match event.get("kind"):
        case "step" | "dev" if run.steps:
            reached = f"training was at step {run.steps[-1].step:,} of {run.steps[-1].steps:,}"
        case "dev":
            reached = "training was about to start"
        case "arm":
            answered = f"{event.get('done')} of {event.get('of')} {event.get('split')} questions"
            reached = f"{event.get('arm')} had answered {answered}"
        case "trained":
            reached = "training was done"
        case "model":
            reached = "the base model was loaded"
        case "data":
            reached = "the data was read"
    if run.state == "running":
        return "The run is not finished", f"{reached[:1].upper()}{reached[1:]} when this page was written."
    word = "failed" if run.state == "failed" else "stopped"
    return f"The run {word} before there was a verdict", _as_sentence(run.reason or reached)


def missing(run: RunContents) -> Iterator[str]:
    """What the report of a finished run has and this one has not."""
    if not run.data:
        yield "The data report: the data has not been read."
    if not run.steps:
        yield "The loss curves: training has not begun."
    elif not run.dev:
        yield "Dev loss: training has not reached its first dev check."
    if not run.verdict:
        answers = ", ".join(f"{arm} {count:,}" for arm, count in run.answered.items())
        so_far = f"test answers so far: {answers}" if answers else "no test question has been asked yet"
        yield f"Verdict, arms and examples: {so_far}."
    if not run.recipe_text:
        yield "The recipe: recipe.toml is not in the run folder."


def continue_command(folder: Path) -> str:
    """The command that continues a run where it stopped."""
    return f"luthier resume {shlex.quote(str(folder))}"


def row_sum(data: Data) -> str:
    """63 rows read = 60 kept + 3 dropped."""
    return f"{plural(data.read, 'row')} read = {data.kept:,} kept + {data.dropped_rows:,} dropped"


def _as_sentence(text: str) -> str:
    """A reason as a sentence; one that begins with a name, such as tickets.jsonl, keeps its small letter."""
    text = text.strip()
    first = text.split(" ", 1)[0]
    opened = text[:1].upper() + text[1:] if first.isalpha() else text
    return opened if opened.endswith((".", "?", "!")) else f"{opened}."


def _method(model: Model) -> str:
    """135 M weights, all trained in bf16 on cpu."""
    size = f"{rounded(model.parameters)} weights, " if model.parameters else ""
    return f"{size}{model.trainable or model.method} trained in {model.precision} on {model.device}"


def _no_examples(verdict: Verdict | None, pairs: Sequence[AnswerPair]) -> str:
    """Why the page shows no answers; empty where it shows some."""
    if verdict is None or pairs:
        return ""
    if verdict.metric == WHOLE_TEXT:
        return "Documents are scored on their own text, so there are no answers to show."
    return "evaluation/answers.jsonl has no question that both arms have answered, so there are no examples to show."
