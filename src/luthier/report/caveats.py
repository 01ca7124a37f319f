"""What a sceptic should hold against a result: each rule here looks at the evidence and yields its doubts."""

from collections.abc import Iterator
from dataclasses import dataclass

from luthier.report import fields
from luthier.report.evidence import Evidence, Verdict
from luthier.report.wording import Unit, listed, plural, visible_effect

FEW_ITEMS = 100
"""Below this many test items only large differences can be seen."""

FEW_GROUPS = 20
"""Below this many independent groups an interval itself is rough."""


@dataclass(frozen=True)
class Doubt:
    """A limit of the evidence: what it is, and what it means for the reader."""

    what: str
    why: str


def about(evidence: Evidence, unit: Unit) -> Iterator[Doubt]:
    """What a sceptic should hold against this result."""
    verdict, data = evidence.verdict, evidence.data
    if data and not data.adds_up:
        told = f"{data.read:,} read, {data.kept:,} kept and {data.dropped_rows:,} dropped"
        yield Doubt(
            "The row ledger does not add up.", f"{told}: some rows are unaccounted for. Please report this defect."
        )
    if verdict:
        yield from _of_size(verdict, unit)
        yield from _of_choice(verdict, unit)
        yield from _of_cutting(verdict)
    yield from _of_training(evidence)


def _of_size(verdict: Verdict, unit: Unit) -> Iterator[Doubt]:
    yield Doubt(
        "Run-to-run variation was not measured.",
        "This is one training run with one seed; another `train.seed` shows how far the result moves.",
    )
    if verdict.n < FEW_ITEMS:
        why = "Chance moves so small a sample a lot; more `data.test_items` would make the verdict firmer."
        yield Doubt(f"Only {plural(verdict.n, 'test item')}.", why)
    if verdict.groups is not None and verdict.groups < FEW_GROUPS:
        why = "Items of one group are alike, so groups count, not items; under 20 the interval itself is rough."
        yield Doubt(f"Only {plural(verdict.groups, 'group')} in the test items.", why)
    if effect := visible_effect(verdict, unit):
        yield Doubt(f"Effects under {effect} could hide.", "A true difference smaller than that may well be missed.")
    elif verdict.smallest_visible_effect:
        yield Doubt("No effect of any size could have been seen.", "There are too few test items to tell anything.")


def _of_choice(verdict: Verdict, unit: Unit) -> Iterator[Doubt]:
    prompts = [arm for arm in verdict.arms if arm.prompts_base]
    chosen = verdict.arm(verdict.best_prompt_arm)
    if not chosen or not prompts:
        return
    if len(prompts) > 1 and verdict.chosen_on == "test":
        why = "That favours prompting: its score is the best of several on these very items."
        yield Doubt(f"{chosen.name} was chosen among {len(prompts)} prompt arms on the test items.", why)
    elif len(prompts) > 1:
        yield Doubt(
            f"Dev items chose {chosen.name} among {len(prompts)} prompt arms, and the checkpoint.",
            "Scores on dev are therefore flattering; the test items took part in no choice.",
        )
    sign = 1 if verdict.higher_is_better else -1
    best = max(prompts, key=lambda arm: sign * arm.mean)
    if sign * best.mean > sign * chosen.mean:
        scores = f"{unit.score(best.mean)} against {unit.score(chosen.mean)}"
        yield Doubt(
            f"On the test items {best.name} scored higher than the arm chosen on dev ({scores}).",
            "The planned comparison stands, since a choice on test would favour prompting; yet that arm is a rival.",
        )


def _of_cutting(verdict: Verdict) -> Iterator[Doubt]:
    cut = [f"{arm.cut:,} of {arm.n:,} answers by {arm.name}" for arm in verdict.arms if arm.cut]
    if cut:
        why = "A cut answer scores lower than it might. Raise `evaluate.max_new_tokens`, the same for every arm."
        yield Doubt(f"Cut at the token limit: {listed(cut)}.", why)
    open_ended = [
        f"{arm.still_thinking:,} of {arm.n:,} answers by {arm.name}" for arm in verdict.arms if arm.still_thinking
    ]
    if open_ended:
        why = "They count as none, and would not with more room: raise `evaluate.thinking_tokens` in a new run."
        yield Doubt(f"Still thinking at the token limit: {listed(open_ended)}.", why)
    if full := [f"{arm.no_room:,} of {arm.n:,} prompts of {arm.name}" for arm in verdict.arms if arm.no_room]:
        why = "They count as not answered by that arm. Shorten rows or instruction, or name a model with a longer context."
        yield Doubt(f"Did not fit into the model's context: {listed(full)}.", why)
    wanted = {arm.name: fields.count(arm.planned, "shots") or 0 for arm in verdict.arms}
    fewer = [
        f"{arm.shots:.1f} instead of {wanted[arm.name]} by {arm.name}"
        for arm in verdict.arms
        if arm.shots is not None and arm.shots < wanted[arm.name]
    ]
    if fewer:
        why = "More did not fit into the model's context beside the question and its answer, or are not among this run's rows."
        yield Doubt(f"Fewer examples shown than chosen, on average {listed(fewer)}.", why)


def _of_training(evidence: Evidence) -> Iterator[Doubt]:
    before = next((check.loss for check in evidence.dev if check.step == 0), None)
    checks = [check for check in evidence.dev if check.loss is not None and check.step > 0]
    trained = evidence.trained
    if trained and trained.best_loss is not None and before is not None and trained.best_loss >= before:
        why = "Training made dev loss no better than the base model's. A lower `train.learning_rate` may help."
        yield Doubt(f"Dev loss was {before:.3f} before training and never fell below it.", why)
    kept = evidence.kept_check
    if kept and kept.accuracy is not None and evidence.verdict:
        why = "People may prefer an answer that scores lower; `luthier review` asks them."
        yield Doubt("The score compares answers with the chosen ones; preference was measured on dev pairs only.", why)
    if kept and kept.step and kept.chosen_reward is not None and kept.chosen_reward < 0:
        why = "A higher `train.dpo_beta` or a lower `train.learning_rate` holds the model closer to the one it started from."
        yield Doubt("On dev, the chosen answers became less likely than before training.", why)
    if trained and len(checks) > 1:
        if trained.best_step == checks[-1].step:
            yield Doubt(
                "Dev loss was still falling at the end.", "More `train.epochs` may give a better model than this one."
            )
        elif trained.best_step == checks[0].step:
            why = "The model learnt by heart from then on: a lower `train.learning_rate` or fewer epochs may do better."
            yield Doubt("Dev loss was never lower than at its first check.", why)
    lost = sum(1 for step in evidence.steps if step.loss is None)
    if lost:
        yield Doubt(f"{plural(lost, 'step')} without a finite loss.", "They are left out of the curve.")
    for warning in evidence.warnings:
        yield Doubt("There was a warning.", warning)
