"""How the training went, in words: the caption under the loss curves, and the estimates beside what came."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from luthier.report.estimates import Estimate
from luthier.report.formatting import MINUS, duration, gigabytes, plural
from luthier.report.run_contents import RunContents
from luthier.report.training_events import SanityCheck


@dataclass(frozen=True)
class EstimateRow:
    """An estimated and measured quantity, as the table shows it."""

    what: str
    basis: str
    estimated: str
    measured: str
    off: str


def caption(run: RunContents) -> str:
    """Steps, speed, why it stopped, which weights were kept, and what was checked before the first step."""
    trained, steps = run.trained, run.steps
    if not steps:
        return ""
    last = steps[-1]
    made = f"Made {last.step:,} of {last.steps:,} steps" + (f" ({last.epoch:.1f} epochs)" if last.epoch else "")
    if trained and trained.seconds:
        made += f" in {duration(trained.seconds)}"
    speeds = [step.tokens_per_second for step in steps if step.tokens_per_second]
    sentences = [made + (f", at {median(speeds):,.0f} tokens/s (median)." if speeds else ".")]
    if trained:
        sentences.append(f"Stopped because {_stop_reason(trained.reason)}.")
        if trained.best_step is not None and trained.best_loss is not None:
            sentences.append(f"Kept the weights of step {trained.best_step:,} (dev loss {trained.best_loss:.3f}).")
    if pairs := preferences(run):
        sentences.append(f"The model {pairs}.")
    if run.sanity_check:
        sentences.append(sanity_sentence(run.sanity_check))
    if run.conformance:
        sentences.append(f"Chat template: {run.conformance}.")
    return " ".join(sentences)


def sanity_sentence(check: SanityCheck) -> str:
    """What was checked on the first rows before the first step."""
    parts = [f"the loss counts exactly the {check.loss_tokens:,} tokens that it should"]
    if check.ends_with_end_token:
        parts.append("each row ends with an end token")
    parts.append(
        "rows in one batch do not see each other"
        if check.rows_isolated
        else "this model mixes the rows of a batch, so each row got a batch of its own"
    )
    return f"Sanity check on {plural(check.rows, 'row')} before the first step: {'; '.join(parts)}."


def preferences(run: RunContents) -> str:
    """How often the kept weights prefer the answers that people prefer, on dev; empty without preference training."""
    kept = run.best_check
    if kept is None or kept.accuracy is None or kept.margin is None:
        return ""
    first = run.dev[0]
    before = f" ({first.margin:.3f} before training)" if first.step == 0 and first.margin is not None else ""
    if kept.kl is not None:
        share = f"moved {100 * kept.accuracy:.0f} % of the dev answers the way that people want"
        figures = f"a mean margin of {kept.margin:.3f}{before} and a KL of {kept.kl:.3f} nats"
        return f"{share}, liked ones up and disliked ones down, with {figures}"
    share = f"{100 * kept.accuracy:.0f} % of the dev pairs"
    return f"prefers the chosen answer in {share}, by a mean margin of {kept.margin:.3f}{before}"


def estimate_rows(estimates: Sequence[Estimate]) -> Iterator[EstimateRow]:
    """Memory and time of the training: estimated, measured, and the difference in per cent."""
    for one in estimates:
        write = duration if one.unit == "seconds" else gigabytes
        off = f"{MINUS if one.off < 0 else '+'}{abs(100 * one.off):.0f} %" if round(100 * one.off) else "0 %"
        yield EstimateRow(one.what, one.basis, write(one.estimated), write(one.measured), off)


def _stop_reason(reason: str) -> str:
    """The reason in the event "trained", as the end of `stopped because`."""
    if reason == "all steps done":
        return "all steps were done"
    checks = reason.removeprefix("no lower dev loss in ")
    return f"dev loss fell no further in {checks}" if checks != reason else reason
