"""The table of arms (what was asked, what it scored, what it cost), and the cost of the tuned model in a sentence."""

from dataclasses import dataclass

from luthier.report import json_fields
from luthier.report.formatting import DASH, or_dash, plural
from luthier.report.run_contents import TUNED, WHOLE_TEXT, Arm, Verdict
from luthier.report.score_units import BITS, POINTS, Unit, metric_name


@dataclass(frozen=True)
class TableRow:
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
class ArmsTable:
    """Arms with their secondary scores and costs; a column that no arm fills is left out."""

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    note: str


def arms_table(verdict: Verdict, unit: Unit) -> ArmsTable:
    """Every arm's scores and costs in words."""
    cells = {arm.name: _cells(arm, verdict, unit) for arm in verdict.arms}
    columns = [name for name in next(iter(cells.values())) if any(cell[name] != DASH for cell in cells.values())]
    rows = []
    for arm in verdict.arms:
        chosen = arm.name == verdict.best_prompt_arm
        rows.append(
            TableRow(
                arm=arm,
                label=arm.name,
                explanation=_explanation(arm, verdict),
                tag=f"chosen on {verdict.chosen_on}" if chosen and len(verdict.arms) > 2 else "",
                chosen=chosen,
                tuned=arm.name == TUNED,
                mean=unit.score(arm.mean),
                interval=unit.interval(arm.interval) if arm.interval else "",
                cells=tuple(cells[arm.name][name] for name in columns),
            )
        )
    return ArmsTable(tuple(columns), tuple(rows), _note(verdict, unit, columns))


def _note(verdict: Verdict, unit: Unit, columns: list[str]) -> str:
    """How to read the columns."""
    parts = ["Scores run from 0 to 100." if unit is POINTS else "Lower is better."]
    if "seconds" in columns:
        parts.append("Tokens and seconds are means per answer; answers were generated in batches.")
    if any(arm.thought_tokens for arm in verdict.arms):
        parts.append("In brackets: how many of the answer's tokens are thoughts before it.")
    if "cut" in columns:
        parts.append("Cut: answers that reached the token limit.")
    return " ".join(parts)


def _explanation(arm: Arm, verdict: Verdict) -> str:
    """What an arm puts before the question, and who answers; empty for an arm of the user's own."""
    if verdict.metric == WHOLE_TEXT:
        return {"zero-shot": "the base weights", TUNED: "the trained weights"}.get(arm.name, "")
    if arm.plan.get("who") == "endpoint":
        prompt = json_fields.text(arm.plan, "prompt")
        return f"{json_fields.text(arm.plan, 'model')}, another model, with the prompt of {prompt}"
    shots, passages = json_fields.count(arm.plan, "shots"), json_fields.count(arm.plan, "passages")
    examples = plural(shots, "training example") if shots else "training examples"
    shown = plural(passages, "passage") if passages else "passages"
    return {
        "zero-shot": "the question, no examples",
        "few-shot": f"the same {examples} before every question",
        "retrieved": f"the {examples} most similar to the question (BM25) before it",
        "rag": f"the {shown} of the documents most similar to the question before it",
        "optimised": "an instruction that was optimised on training rows, no examples",
        TUNED: "the trained weights, no examples",
        "fine-tuned+few-shot": f"the trained weights, {examples}",
    }.get(arm.name, "")


def _cells(arm: Arm, verdict: Verdict, unit: Unit) -> dict[str, str]:
    """An arm's dev mean, secondary scores and costs, by the column's heading."""
    names = dict.fromkeys(name for each in verdict.arms for name in each.scores if name != verdict.metric)
    return {
        "on dev": DASH if arm.dev_mean is None else unit.score(arm.dev_mean),
        **{metric_name(name): _secondary_score(name, arm.scores.get(name)) for name in names},
        "prompt tokens": or_dash(arm.prompt_tokens or None, ",.0f"),
        "answer tokens": or_dash(arm.answer_tokens or None, ",.0f")
        + (f" ({arm.thought_tokens:,.0f})" if arm.thought_tokens else ""),
        "seconds": or_dash(arm.seconds or None, ",.2f"),
        "cut": or_dash(None if verdict.metric == WHOLE_TEXT else arm.cut, ",d"),
    }


def _secondary_score(metric: str, value: float | None) -> str:
    """A secondary score in its own unit: documents have no points."""
    unit = BITS if metric == WHOLE_TEXT else POINTS
    return DASH if value is None else unit.score(value)


def cost(verdict: Verdict) -> str:
    """What the tuned model costs per answer, compared with the best prompt arm."""
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
        speed = f"{ratio:.1f} times faster" if ratio > 1 else f"{1 / ratio:.1f} times slower"
        equal = 0.95 < ratio < 1.05  # both would be written as 1.0 times
        parts.append(f"answers {'about as fast' if equal else speed}{'' if parts or equal else than}")
    return f"Per question, the fine-tuned model {' and '.join(parts)}." if parts else ""
