"""What limits a result: each rule here looks at the run and yields its caveats."""

from collections.abc import Iterator
from dataclasses import dataclass

from luthier.report import json_fields
from luthier.report.formatting import listed, plural
from luthier.report.run_contents import RunContents, Verdict
from luthier.report.score_units import Unit, visible_effect

FEW_ITEMS = 100
"""With fewer test items, only large differences can be shown."""

FEW_GROUPS = 20
"""With fewer independent groups, an interval itself is rough."""


@dataclass(frozen=True)
class Caveat:
    """A limit of the result: what it is; and why it matters, or what to do about it."""

    what: str
    why: str


def caveats(run: RunContents, unit: Unit) -> Iterator[Caveat]:
    """Everything that limits this run's result, the gravest first."""
    verdict, data = run.verdict, run.data
    if data and not data.adds_up:
        counts = f"{data.read:,} read, {data.kept:,} kept and {data.dropped_rows:,} dropped"
        yield Caveat(
            "The rows do not add up.", f"{counts}: some rows are unaccounted for. This is a defect; please report it."
        )
    if data and data.synthetic:
        rows = "All rows are" if data.synthetic == data.kept else f"{data.synthetic:,} of {data.kept:,} rows are"
        why = "Rules or a model made them, so the test asks what they would ask. Questions that people asked, in a file of "
        yield Caveat(f"{rows} synthetic.", f"{why}their own (`data.test_path`), make the verdict one about people.")
    if verdict:
        yield from _of_size(verdict, unit)
        yield from _of_choice(verdict, unit)
        yield from _of_limits(verdict)
    yield from _of_training(run)


def _of_size(verdict: Verdict, unit: Unit) -> Iterator[Caveat]:
    """One run, few items, few groups, effects that would go unnoticed."""
    yield Caveat(
        "Run-to-run variation was not measured.",
        "This is one training run with one seed. Runs with another `train.seed` show how much the result varies.",
    )
    if verdict.n < FEW_ITEMS:
        why = "Scores on so few items vary a lot by chance. More `data.test_items` make the verdict more certain."
        yield Caveat(f"Only {plural(verdict.n, 'test item')}.", why)
    if verdict.groups is not None and verdict.groups < FEW_GROUPS:
        why = (
            "Items of one group are alike, so groups count, not items. With fewer than 20 the interval itself is rough."
        )
        yield Caveat(f"Only {plural(verdict.groups, 'group')} in the test items.", why)
    if effect := visible_effect(verdict, unit):
        why = "This test may well miss a true difference that is smaller."
        yield Caveat(f"Effects under {effect} could go unnoticed.", why)
    elif verdict.smallest_visible_effect:
        yield Caveat("No effect of any size could have been shown.", "There are too few test items to show anything.")


def _of_choice(verdict: Verdict, unit: Unit) -> Iterator[Caveat]:
    """On which items the best prompt was chosen, and whether another one did better on test."""
    prompts = [arm for arm in verdict.arms if arm.prompts_base]
    chosen = verdict.arm(verdict.best_prompt_arm)
    if not chosen or not prompts:
        return
    if len(prompts) > 1 and verdict.chosen_on == "test":
        why = "That favours prompting: its score is the best of several on these very items."
        yield Caveat(f"{chosen.name} was chosen among {len(prompts)} prompt arms on the test items.", why)
    elif len(prompts) > 1:
        yield Caveat(
            f"{chosen.name} was chosen among {len(prompts)} prompt arms on the dev items, and so was the checkpoint.",
            "Scores on dev are therefore too good. Nothing was chosen on the test items.",
        )
    sign = 1 if verdict.higher_is_better else -1
    best = max(prompts, key=lambda arm: sign * arm.mean)
    if sign * best.mean > sign * chosen.mean:
        scores = f"{unit.score(best.mean)} against {unit.score(chosen.mean)}"
        yield Caveat(
            f"On the test items {best.name} scored higher than the arm chosen on dev ({scores}).",
            "The planned comparison stands, since choosing on test would favour prompting. That arm may still be better.",
        )


def _of_limits(verdict: Verdict) -> Iterator[Caveat]:
    """Answers that were cut or never came, prompts that did not fit, examples that were left out."""
    if cut := [f"{arm.cut:,} of {arm.n:,} answers by {arm.name}" for arm in verdict.arms if arm.cut]:
        why = "A cut answer may score too low. Raise `evaluate.max_new_tokens`, which holds for every arm."
        yield Caveat(f"Cut at the token limit: {listed(cut)}.", why)
    if unfinished := [
        f"{arm.still_thinking:,} of {arm.n:,} answers by {arm.name}" for arm in verdict.arms if arm.still_thinking
    ]:
        why = "They count as no answer. Raise `evaluate.thinking_tokens` in a new run, so that the model can finish."
        yield Caveat(f"Still thinking at the token limit: {listed(unfinished)}.", why)
    if full := [f"{arm.no_room:,} of {arm.n:,} prompts of {arm.name}" for arm in verdict.arms if arm.no_room]:
        why = "They count as not answered. Shorten rows or instruction, or use a model with a longer context."
        yield Caveat(f"Did not fit into the model's context: {listed(full)}.", why)
    wanted = {arm.name: json_fields.count(arm.plan, "shots") or 0 for arm in verdict.arms}
    if fewer := [
        f"{arm.name} {arm.shots:.1f} instead of {wanted[arm.name]}"
        for arm in verdict.arms
        if arm.shots is not None and arm.shots < wanted[arm.name]
    ]:
        why = (
            "The others did not fit into the model's context beside question and answer, or this run has no more rows."
        )
        yield Caveat(f"Fewer examples shown than planned, on average: {listed(fewer)}.", why)


def _of_training(run: RunContents) -> Iterator[Caveat]:
    """What the losses, the preferences and the warnings say."""
    before = next((check.loss for check in run.dev if check.step == 0), None)
    checks = [check for check in run.dev if check.loss is not None and check.step > 0]
    trained = run.trained
    if trained and trained.best_loss is not None and before is not None and trained.best_loss >= before:
        why = "Training made dev loss no better than the base model's. A lower `train.learning_rate` may help."
        yield Caveat(f"Dev loss was {before:.3f} before training and never fell below it.", why)
    kept = run.best_check
    if kept and kept.accuracy is not None and run.verdict:
        why = "People may prefer an answer that scores lower; `luthier review` asks them."
        them, where = ("chosen", "dev pairs") if kept.kl is None else ("liked", "dev")
        yield Caveat(f"The score compares answers with the {them} ones; preference was measured on {where} only.", why)
    if kept and kept.step and kept.chosen_reward is not None and kept.chosen_reward < 0:
        why = "A higher `train.dpo_beta` or a lower `train.learning_rate` keeps the model closer to where it started."
        them = "chosen" if kept.kl is None else "liked"
        yield Caveat(f"On dev, the {them} answers became less likely than before training.", why)
    if trained and len(checks) > 1:
        if trained.best_step == checks[-1].step:
            why = "More `train.epochs` may give a better model than this one."
            yield Caveat("Dev loss was still falling at the end.", why)
        elif trained.best_step == checks[0].step:
            why = "From then on the model memorised its rows. A lower `train.learning_rate` or fewer epochs may help."
            yield Caveat("Dev loss was lowest at its first check.", why)
    lost = sum(1 for step in run.steps if step.loss is None)
    if lost:
        yield Caveat(f"{plural(lost, 'step')} without a finite loss.", "They are left out of the curve.")
    for warning in run.warnings:
        yield Caveat("There was a warning.", warning)
