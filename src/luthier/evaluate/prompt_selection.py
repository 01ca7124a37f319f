"""The strongest prompts that we can build: what they need is found on train and dev, before the plan is frozen."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import fsum
from typing import Any

from luthier.chat import Message
from luthier.data.dataset import Item
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.endpoint import Unavailable
from luthier.evaluate.context import Context, endpoint_of
from luthier.evaluate.prompts import arms, demonstration_selection, demonstrations, optimization, passages
from luthier.evaluate.prompts.arms import Arm, Prompt, PromptResources
from luthier.model import replies
from luthier.model.loading import LanguageModel

REFLECTION_TOKENS = 512


@dataclass(frozen=True)
class Chosen:
    """What was found for the prompts: goes into the plan, and is taken from there afterwards."""

    few_shot: dict[str, Any] | None = None
    """`shots`, `set`, the ids of the `examples`, and the standings of all candidates."""
    optimised: dict[str, Any] | None = None
    """The instruction that was found, with its scores and its cost."""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if value is not None}

    def lacks(self, wanted: Mapping[str, Arm]) -> bool:
        """Whether one of these arms needs something that was not looked for."""
        few_shot = uses(wanted, arms.few_shot) and self.few_shot is None
        return few_shot or (uses(wanted, arms.optimised) and self.optimised is None)


def uses(wanted: Mapping[str, Arm], build: object) -> bool:
    """Whether one of these arms sends the prompts that `build` builds."""
    return any(arm.build is build for arm in wanted.values())


def prompt_resources(context: Context, lm: LanguageModel, chosen: Chosen) -> PromptResources:
    """What the arms may use."""
    settings = context.recipe.evaluate
    train = context.items("train")
    by_id = {item.id: item for item in train}
    return PromptResources(
        train=train,
        template=lm.template,
        shots=settings.shots or 1,
        max_prompt_tokens=lm.context - context.room.tokens,
        instruction=settings.instruction,
        # a point of a sweep may learn fewer rows than its prompts, chosen once for all points, show
        demonstrations=[by_id[name] for name in (chosen.few_shot or {}).get("examples", ()) if name in by_id],
        passages=passages.load(context.run.folder / "data" / "passages.jsonl"),
        passages_shown=settings.passages,
        optimised_instruction=(chosen.optimised or {}).get("instruction"),
    )


def choose(context: Context, wanted: Mapping[str, Arm], base: LanguageModel) -> tuple[Chosen, dict[str, str]]:
    """What these arms need to know, and the arms that had to be left out, with the reason.

    The prompts on the base model then answer the dev questions, to find the best of them.
    """
    few_shot = _choose_examples(context, base, kept="few-shot" in wanted) if uses(wanted, arms.few_shot) else None
    optimised, left_out = None, {}
    if uses(wanted, arms.optimised):
        try:
            optimised = _optimise(context, base)
        except Unavailable as trouble:
            for name in (name for name, arm in wanted.items() if arm.build is arms.optimised):
                left_out[name] = f"the reflecting model gave no answer: {trouble}"
                context.leave_out(name, left_out[name])
    chosen = Chosen(few_shot, optimised)
    resources = prompt_resources(context, base, chosen)
    for name, arm in wanted.items():
        if arm.answered_by == "base" and name not in left_out:
            context.ask(base, context.dev_items(), name, arm.build(resources), split="dev", file="dev-answers")
    return chosen, left_out


def _choose_examples(context: Context, base: LanguageModel, *, kept: bool) -> dict[str, Any]:
    """How many examples the fixed few-shot prompt has, and which: the best of some candidates on dev.

    `kept`: the best one's answers are those of the arm few-shot.
    """
    settings, items, rows = context.recipe.evaluate, context.dev_items(), context.rows("train")
    assert settings.shots_tried and settings.dev_budget, "a run's own recipe has every value"
    train = context.items("train")
    learnt = [int(rows[number].learn.sum()) for number in range(len(rows))]
    costs = demonstration_selection.TokenCosts.of(rows.lengths, learnt, context.room.tokens)
    candidates, tokens = demonstration_selection.affordable_candidates(
        settings.shots_tried, len(items), costs, settings.dev_budget
    )
    resources = prompt_resources(context, base, Chosen())
    most = max(candidate.shots for candidate in candidates)
    sets = {
        draw: demonstrations.fixed_set(train, most, draw=draw) for draw in {candidate.draw for candidate in candidates}
    }

    def shown(candidate: demonstration_selection.Candidate) -> list[Item]:
        return sets[candidate.draw][: candidate.shots]

    def prompt(candidate: demonstration_selection.Candidate) -> Prompt:
        return arms.few_shot(replace(resources, demonstrations=shown(candidate)))

    def ask(candidate: demonstration_selection.Candidate, questions: int) -> float:
        asked, build = items[:questions], prompt(candidate)
        records = context.ask(base, asked, candidate.name, build, split="dev", file="choice-answers")
        return fsum(record["score"] for record in records) / len(records)

    standings = demonstration_selection.successive_halving(candidates, len(items), ask)
    best = standings[0].candidate
    if kept:
        records = context.answers_file("choice-answers").records_of(best.name, items)
        context.answers_file("dev-answers").copy_records(records, arm="few-shot")
    chosen = {
        "shots": best.shots,
        "set": best.draw + 1,
        "examples": [item.id for item in shown(best)],
        "questions": len(items),
        "tokens": tokens,
        "candidates": [
            {"shots": at.candidate.shots, "set": at.candidate.draw + 1, "questions": at.questions, "mean": at.mean}
            for at in standings
        ],
    }
    context.run.record("choice", arm="few-shot", **chosen)
    return chosen


def _optimise(context: Context, base: LanguageModel) -> dict[str, Any]:
    """A better instruction, searched for on training rows."""
    settings = context.recipe.evaluate
    resources = prompt_resources(context, base, Chosen())

    def answers(instruction: str, items: Sequence[Item]) -> list[AnswerRecord]:
        name = f"optimised {hashlib.sha256(instruction.encode()).hexdigest()[:12]}"
        prompt = arms.optimised(replace(resources, optimised_instruction=instruction))
        return context.ask(base, items, name, prompt, split="train", file="choice-answers")

    written = count(1)

    def reflect(prompt: str) -> str:
        context.run.record("reflecting", arm="optimised", instruction=next(written))
        asked = (Message("user", prompt),)
        most = min(
            REFLECTION_TOKENS, resources.max_prompt_tokens // 2
        )  # a question must still fit behind the instruction
        room = replace(context.room, answer=most)
        if settings.reflection == "base":
            ids = base.template.prompt(asked)[-(base.context - room.tokens) :]
            return replies.ask(base, [ids], room)[0].text
        text = endpoint_of(context.recipe, settings.reflection).ask(asked, max_new_tokens=room.tokens).said.text
        tokens, _ = base.template.tokenizer.encode(text)
        return text if len(tokens) <= most else base.template.tokenizer.decode(tokens[:most])

    found = optimization.optimize_prompt(
        context.items("train"),
        start=settings.instruction,
        answers=answers,
        reflect=reflect,
        budget=settings.optimise_budget,
        seed=context.recipe.train.seed,
        folder=context.run.folder / "evaluation",
    )
    context.run.record("choice", arm="optimised", **found.to_json())
    return found.to_json()
