"""What the report says in words: one telling of the evidence, the same for the page, the Markdown and the JSON.

Nothing here opens a file or draws.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from luthier.report import fields
from luthier.report.caveats import Doubt, about
from luthier.report.evidence import (
    TUNED,
    WHOLE_TEXT,
    Arm,
    Data,
    Evidence,
    Model,
    Pair,
    Verdict,
    better,
    worse,
)
from luthier.report.figures import DASH, MINUS
from luthier.report.training import SelfTest
from luthier.report.wording import (
    BITS,
    METRICS,
    POINTS,
    Unit,
    duration,
    gigabytes,
    metric_name,
    moment,
    or_dash,
    plural,
    rounded,
    unit_of,
    visible_effect,
)

MARKS = {"BETTER": "▲", "WORSE": "▼", "EQUIVALENT": "=", "NOT SHOWN": "?", "WITHHELD": "!"}
"""A sign beside the verdict's word, for those who do not see its colour."""


@dataclass(frozen=True)
class Fact:
    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Row:
    """An arm of the table; `cells` stand under the table's `columns`."""

    arm: Arm
    label: str
    explanation: str
    tag: str
    chosen: bool
    tuned: bool
    mean: str
    interval: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Arms with their secondary scores and costs; a column that no arm fills is left out."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str


@dataclass(frozen=True)
class Foreseen:
    """A quantity as it was foretold and as it came."""

    what: str
    told_by: str
    foretold: str
    measured: str
    off: str


@dataclass(frozen=True)
class Story:
    """Everything that a reader is told."""

    title: str
    word: str
    mark: str
    claim: str
    particulars: str
    unit: Unit
    metric: str
    facts: tuple[Fact, ...]
    numbers: str
    table: Table | None
    cost: str
    training: str
    foreseen: tuple[Foreseen, ...]
    worse: tuple[Pair, ...]
    better: tuple[Pair, ...]
    no_examples: str
    doubts: tuple[Doubt, ...]
    missing: tuple[str, ...]
    going_on: str | None
    created: str


def tell(evidence: Evidence) -> Story:
    """The evidence in words."""
    verdict = evidence.verdict
    unit = unit_of(verdict)
    claim, particulars = parted(verdict.sentence) if verdict else stage(evidence)
    losses, gains = tuple(worse(evidence.pairs)), tuple(better(evidence.pairs))
    return Story(
        title=evidence.folder.resolve().name,
        word=verdict.verdict if verdict else "NO VERDICT YET",
        mark=MARKS.get(verdict.verdict, "") if verdict else "…",
        claim=claim,
        particulars=particulars,
        unit=unit,
        metric=metric_name(verdict.metric) if verdict else "",
        facts=tuple(facts(evidence)),
        numbers=numbers(verdict, unit) if verdict else "",
        table=arms_table(verdict, unit) if verdict and verdict.arms else None,
        cost=cost(verdict) if verdict else "",
        training=training(evidence),
        foreseen=tuple(foreseen(evidence)),
        worse=losses,
        better=gains,
        no_examples=_no_examples(verdict, evidence.pairs),
        doubts=tuple(about(evidence, unit)),
        missing=tuple(missing(evidence)),
        going_on=continue_command(evidence) if evidence.state not in ("running", "complete") else None,
        created=moment(evidence.created),
    )


def facts(evidence: Evidence) -> Iterator[Fact]:
    """Task, data, base model, test items."""
    verdict, data, model = evidence.verdict, evidence.data, evidence.model
    if verdict:
        task = METRICS.get(verdict.metric, ("", "answering questions"))[1]
        why = f" ({reason})" if (reason := verdict.metric_reason.strip().rstrip(".")) else ""
        yield Fact("Task", task, f"scored by {metric_name(verdict.metric)}{why}")
    if data:
        names = ", ".join(Path(name).name for name in data.files[:2]) or "data"
        more = f" and {len(data.files) - 2} more files" if len(data.files) > 2 else ""
        yield Fact("Data", f"{names}{more}", f"{data.kept:,} of {plural(data.read, 'row')} kept, read as {data.format}")
    if model:
        yield Fact("Base model", model.name, _method(model))
    if verdict:
        groups = f"{plural(verdict.groups, 'group')}; no group is in two splits" if verdict.groups else "held out"
        if evidence.proof.leakage.get("held_out") is False:
            groups = "not held out: training has seen some of them"
        yield Fact("Test items", f"{verdict.n:,}", groups)
    elif data:
        yield Fact("Splits", f"{data.train:,} · {data.dev:,} · {data.test:,}", "train · dev · test items")


def parted(sentence: str) -> tuple[str, str]:
    """A verdict's sentence as its claim and its particulars, which stand after the first colon."""
    claim, _, particulars = sentence.partition(": ")
    return claim, particulars[:1].upper() + particulars[1:]


def numbers(verdict: Verdict, unit: Unit) -> str:
    """What the verdict's sentence leaves out: the test, and what it could have seen."""
    groups = f" over {plural(verdict.groups, 'group')}" if verdict.groups and verdict.groups != verdict.n else ""
    parts = [f"{verdict.test[:1].upper()}{verdict.test[1:]} test{groups}."] if verdict.test else []
    if effect := visible_effect(verdict, unit):
        parts.append(f"The smallest effect that it could have shown is {effect}.")
    return " ".join(parts)


def arms_table(verdict: Verdict, unit: Unit) -> Table:
    """Every arm's scores and costs in words."""
    cells = {arm.name: _cells(arm, verdict, unit) for arm in verdict.arms}
    columns = [name for name in next(iter(cells.values())) if any(cell[name] != DASH for cell in cells.values())]
    rows = [
        Row(
            arm=arm,
            label=arm.name,
            explanation=_explained(arm, verdict),
            tag=f"chosen on {verdict.chosen_on}"
            if arm.name == verdict.best_prompt_arm and len(verdict.arms) > 2
            else "",
            chosen=arm.name == verdict.best_prompt_arm,
            tuned=arm.name == TUNED,
            mean=unit.score(arm.mean),
            interval=unit.interval(arm.interval) if arm.interval else "",
            cells=tuple(cells[arm.name][name] for name in columns),
        )
        for arm in verdict.arms
    ]
    note = ["Scores run from 0 to 100." if unit is POINTS else "Less is better."]
    if "seconds" in columns:
        note.append("Tokens and seconds are means per answer, seconds in a batch.")
    if any(arm.thought_tokens for arm in verdict.arms):
        note.append("In brackets: how many of the answer's tokens are thoughts before it.")
    if "cut" in columns:
        note.append("Cut: answers that reached the token limit.")
    return Table(tuple(columns), tuple(rows), " ".join(note))


def _explained(arm: Arm, verdict: Verdict) -> str:
    """What an arm puts before the question and who answers; empty for an arm of the user's own."""
    if verdict.metric == WHOLE_TEXT:
        return {"zero-shot": "the base weights", TUNED: "the trained weights"}.get(arm.name, "")
    if arm.planned.get("who") == "endpoint":
        how = fields.text(arm.planned, "prompt")
        return f"{fields.text(arm.planned, 'model')}, another model, with the prompt of {how}"
    shots, passages = fields.count(arm.planned, "shots"), fields.count(arm.planned, "passages")
    examples = plural(shots, "training example") if shots else "training examples"
    return {
        "zero-shot": "the question, no examples",
        "few-shot": f"the same {examples} before every question",
        "retrieved": f"the {examples} most like the question (BM25) before it",
        "rag": f"the {plural(passages, 'passage') if passages else 'passages'} of the documents most like the question",
        "optimised": "an instruction that was optimised on training rows, no examples",
        TUNED: "the trained weights, no examples",
        "fine-tuned+few-shot": f"the trained weights, {examples}",
    }.get(arm.name, "")


def _cells(arm: Arm, verdict: Verdict, unit: Unit) -> dict[str, str]:
    """An arm's dev mean, secondary scores and costs, by the column's heading."""
    names = dict.fromkeys(name for each in verdict.arms for name in each.scores if name != verdict.metric)
    return {
        "on dev": DASH if arm.dev_mean is None else unit.score(arm.dev_mean),
        **{metric_name(name): _secondary(name, arm.scores.get(name)) for name in names},
        "prompt tokens": or_dash(arm.prompt_tokens or None, ",.0f"),
        "answer tokens": or_dash(arm.answer_tokens or None, ",.0f")
        + (f" ({arm.thought_tokens:,.0f})" if arm.thought_tokens else ""),
        "seconds": or_dash(arm.seconds or None, ",.2f"),
        "cut": or_dash(None if verdict.metric == WHOLE_TEXT else arm.cut, ",d"),
    }


def cost(verdict: Verdict) -> str:
    """What the tuned model costs per answer beside the best prompt arm."""
    tuned, prompt = verdict.arm(TUNED), verdict.arm(verdict.best_prompt_arm)
    if not tuned or not prompt:
        return ""
    than, parts = f" than {prompt.name}", []
    if tuned.prompt_tokens and prompt.prompt_tokens:
        saved = round(100 * (1 - tuned.prompt_tokens / prompt.prompt_tokens))
        some = f"{abs(saved)} % {'fewer' if saved > 0 else 'more'} prompt tokens{than}"
        parts.append(f"reads {some if saved else f'as many prompt tokens as {prompt.name}'}")
    if tuned.seconds and prompt.seconds:
        ratio = prompt.seconds / tuned.seconds
        pace = f"{ratio:.1f} times faster" if ratio > 1 else f"{1 / ratio:.1f} times slower"
        alike = 0.95 < ratio < 1.05  # both would be written as 1.0 times
        parts.append(f"answers {'about as fast' if alike else pace}{'' if parts or alike else than}")
    return f"Per question, the fine-tuned model {' and '.join(parts)}." if parts else ""


def training(evidence: Evidence) -> str:
    """How training went, in a caption."""
    trained, steps = evidence.trained, evidence.steps
    if not steps:
        return ""
    last = steps[-1]
    parts = [f"{last.step:,} of {last.steps:,} steps" + (f" ({last.epoch:.1f} epochs)" if last.epoch else "")]
    if trained and trained.seconds:
        parts[0] += f" in {duration(trained.seconds)}"
    paces = [step.tokens_per_second for step in steps if step.tokens_per_second]
    if paces:
        parts.append(f"{median(paces):,.0f} tokens/s (median)")
    if trained:
        parts.append(f"stopped because {_stopped(trained.reason)}")
        if trained.best_step is not None and trained.best_loss is not None:
            parts.append(f"kept the weights of step {trained.best_step:,} (dev loss {trained.best_loss:.3f})")
    if pairs := preferences(evidence):
        parts.append(pairs)
    found = [tried(evidence.selftest)] if evidence.selftest else []
    found += [f"Chat template: {evidence.conformance}."] if evidence.conformance else []
    return " ".join(["; ".join(parts) + ".", *found])


def tried(test: SelfTest) -> str:
    """What was tried on the first rows before the first step, in a sentence."""
    ends = ", the last of each row an end token" if test.ends else ""
    apart = "rows in one batch do not notice each other" if test.apart else "this model mixes rows, so each had a batch"
    return f"Tried before on {plural(test.rows, 'row')}: {test.learnt:,} tokens are learnt as marked{ends}; {apart}."


def foreseen(evidence: Evidence) -> Iterator[Foreseen]:
    """Memory and time of the training as they were foretold, beside what was measured."""
    for one in evidence.foresight:
        write = duration if one.unit == "seconds" else gigabytes
        off = f"{MINUS if one.off < 0 else '+'}{abs(100 * one.off):.0f} %" if round(100 * one.off) else "0 %"
        yield Foreseen(one.what, one.told_by, write(one.foretold), write(one.measured), off)


def preferences(evidence: Evidence) -> str:
    """How held-out pairs came out with the weights that were kept; empty where no preferences were learnt."""
    kept = evidence.kept_check
    if kept is None or kept.accuracy is None or kept.margin is None:
        return ""
    first = evidence.dev[0]
    before = f", where it was {first.margin:.3f} at first" if first.step == 0 and first.margin is not None else ""
    share = f"{100 * kept.accuracy:.0f} % of held-out pairs"
    return f"prefers the chosen answer in {share}, by a mean margin of {kept.margin:.3f}{before}"


def stage(evidence: Evidence) -> tuple[str, str]:
    """What happened to a run without a verdict, and how far it came."""
    event, done = evidence.last_event, "it had only begun"
    match event.get("kind"):
        case "step" | "dev" if evidence.steps:
            done = f"it had come to step {evidence.steps[-1].step:,} of {evidence.steps[-1].steps:,} of the training"
        case "dev":
            done = "it was about to train"
        case "arm":
            answered = f"{event.get('done')} of {event.get('of')} {event.get('split')} questions"
            done = f"{event.get('arm')} had answered {answered}"
        case "trained":
            done = "training was done"
        case "model":
            done = "the base model was loaded"
        case "data":
            done = "the data was read"
    if evidence.state == "running":
        return "The run is at work", f"{done[:1].upper()}{done[1:]} when this page was written."
    word = "failed" if evidence.state == "failed" else "stopped"
    return f"The run {word} before there was a verdict", _as_sentence(evidence.reason or done)


def missing(evidence: Evidence) -> Iterator[str]:
    """What a whole report has and this one has not."""
    if not evidence.data:
        yield "The data ledger: the data has not been read."
    if not evidence.steps:
        yield "The loss curves: training has not begun."
    elif not evidence.dev:
        yield "Dev loss: training has not come to its first check."
    if not evidence.verdict:
        answers = ", ".join(f"{arm} {count:,}" for arm, count in evidence.answered.items())
        so_far = f"test answers so far: {answers}" if answers else "no test question was asked yet"
        yield f"Verdict, arms and examples: {so_far}."
    if not evidence.recipe_text:
        yield "The recipe: recipe.toml is not in the run folder."


def continue_command(evidence: Evidence) -> str:
    """The command that takes the run up where it stopped."""
    return f"luthier resume {shlex.quote(str(evidence.folder))}"


def places(found: Sequence[str], most: int = 5) -> tuple[Sequence[str], Sequence[str]]:
    """The places to show at once, and those to show on request."""
    return found[:most], found[most:]


def ledger(data: Data) -> str:
    """The sum, in words."""
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


def _secondary(metric: str, value: float | None) -> str:
    """A secondary score in its own unit: documents have no points."""
    unit = BITS if metric == WHOLE_TEXT else POINTS
    return DASH if value is None else unit.score(value)


def _no_examples(verdict: Verdict | None, pairs: Sequence[Pair]) -> str:
    """Why the page shows no answers; empty where it shows some."""
    if verdict is None or pairs:
        return ""
    if verdict.metric == WHOLE_TEXT:
        return "Documents are scored on their own text, so there are no answers to show."
    return "evaluation/answers.jsonl holds no answers of both arms, so none can be shown."


def _stopped(reason: str) -> str:
    """The event's words as the end of `stopped because`."""
    return {"all steps done": "all steps were done"}.get(
        reason, f"dev loss was {reason}" if reason.startswith("no better") else reason
    )
