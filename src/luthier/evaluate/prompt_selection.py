"""The strongest prompts that we can build: what they need is found on train and dev, before the plan is frozen."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import fsum
from typing import Any

from luthier.chat import Message, Template
from luthier.data.dataset import Item
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.endpoint import Unavailable
from luthier.evaluate.context import Context, endpoint_of
from luthier.evaluate.prompts import arms, demonstration_selection, demonstrations, optimization, passages
from luthier.evaluate.prompts.arms import Arm, Prompt, PromptResources
from luthier.evaluate.prompts.demonstration_selection import Candidate, TokenCosts
from luthier.model import replies
from luthier.model.loading import LanguageModel

REFLECTION_TOKENS = 512


@dataclass(frozen=True)
class PromptSelection:
    """What was found for the prompts: goes into the plan, and is taken from there afterwards."""

    few_shot: dict[str, Any] | None = None
    """`shots`, `set`, the ids of the `examples`, and the ranking of all candidates."""
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


def prompt_resources(context: Context, lm: LanguageModel, selection: PromptSelection) -> PromptResources:
    """What the arms may use."""
    settings = context.recipe.evaluate
    train = context.items("train")
    by_id = {item.id: item for item in train}
    return PromptResources(
        train=train,
        template=lm.template,
        shots=settings.shots or 1,
        max_prompt_tokens=lm.context - context.token_budget.tokens,
        instruction=settings.instruction,
        # a point of a sweep may train on fewer rows than its prompts, selected once for all points, show
        demonstrations=[by_id[name] for name in (selection.few_shot or {}).get("examples", ()) if name in by_id],
        passages=passages.load(context.run.folder / "data" / "passages.jsonl"),
        passages_shown=settings.passages,
        optimised_instruction=(selection.optimised or {}).get("instruction"),
    )


def select_prompts(
    context: Context, wanted: Mapping[str, Arm], base: LanguageModel
) -> tuple[PromptSelection, dict[str, str]]:
    """What these arms need to know, and the arms that had to be excluded, with the reason.

    The prompts on the base model then answer the dev questions, to find the best of them.
    """
    few_shot, optimised, excluded = None, None, {}
    if uses(wanted, arms.few_shot):
        few_shot = _select_demonstrations(context, base, keep_answers="few-shot" in wanted)
    if uses(wanted, arms.optimised):
        try:
            optimised = _optimize_instruction(context, base)
        except Unavailable as error:
            for name in (name for name, arm in wanted.items() if arm.build is arms.optimised):
                excluded[name] = f"the reflecting model gave no answer: {error}"
                context.exclude_arm(name, excluded[name])
    selection = PromptSelection(few_shot, optimised)
    resources = prompt_resources(context, base, selection)
    for name, arm in wanted.items():
        if arm.answered_by == "base" and name not in excluded:
            context.ask(base, context.dev_items(), name, arm.build(resources), split="dev", file="dev-answers")
    return selection, excluded


def _select_demonstrations(context: Context, base: LanguageModel, *, keep_answers: bool) -> dict[str, Any]:
    """How many demonstrations the fixed few-shot prompt has, and which: the best of some candidates on dev.

    `keep_answers`: the best candidate's answers become those of the arm few-shot.
    """
    settings, items, train = context.recipe.evaluate, context.dev_items(), context.items("train")
    assert settings.shots_tried and settings.dev_budget, "a run's own recipe has every value"
    candidates, tokens = demonstration_selection.affordable_candidates(
        settings.shots_tried, len(items), _token_costs(context, base.template), settings.dev_budget
    )
    resources = prompt_resources(context, base, PromptSelection())
    most = max(candidate.shots for candidate in candidates)
    draws = {candidate.draw for candidate in candidates}
    sets = {draw: demonstrations.fixed_set(train, most, draw=draw) for draw in draws}

    def shown(candidate: Candidate) -> list[Item]:
        return sets[candidate.draw][: candidate.shots]

    def prompt(candidate: Candidate) -> Prompt:
        return arms.few_shot(replace(resources, demonstrations=shown(candidate)))

    def mean_score(candidate: Candidate, questions: int) -> float:
        asked, build = items[:questions], prompt(candidate)
        records = context.ask(base, asked, candidate.name, build, split="dev", file="choice-answers")
        return fsum(record["score"] for record in records) / len(records)

    ranking = demonstration_selection.successive_halving(candidates, len(items), mean_score)
    best = ranking[0].candidate
    if keep_answers:
        records = context.answers_file("choice-answers").records_of(best.name, items)
        context.answers_file("dev-answers").copy_records(records, arm="few-shot")
    selected = {
        "shots": best.shots,
        "set": best.draw + 1,
        "examples": [item.id for item in shown(best)],
        "questions": len(items),
        "tokens": tokens,
        "candidates": [
            {"shots": of.candidate.shots, "set": of.candidate.draw + 1, "questions": of.questions, "mean": of.mean}
            for of in ranking
        ],
    }
    context.run.record("choice", arm="few-shot", **selected)
    return selected


def _token_costs(context: Context, template: Template) -> TokenCosts:
    """What asking costs, from the lengths of the training rows and of their answers."""
    rows = context.rows("train")
    answer_lengths = [int(rows[number].loss_mask.sum()) for number in range(len(rows))]
    definitions = demonstrations.definition_tokens(template, context.items("train"))
    return TokenCosts.of(rows.lengths, answer_lengths, context.token_budget.tokens, definitions)


def _optimize_instruction(context: Context, base: LanguageModel) -> dict[str, Any]:
    """A better instruction, searched for on training rows."""
    settings = context.recipe.evaluate
    resources = prompt_resources(context, base, PromptSelection())

    def ask(instruction: str, items: Sequence[Item]) -> list[AnswerRecord]:
        name = f"optimised {hashlib.sha256(instruction.encode()).hexdigest()[:12]}"
        prompt = arms.optimised(replace(resources, optimised_instruction=instruction))
        return context.ask(base, items, name, prompt, split="train", file="choice-answers")

    numbers = count(1)

    def reflect(prompt: str) -> str:
        context.run.record("reflecting", arm="optimised", instruction=next(numbers))
        messages = (Message("user", prompt),)
        # A question must still fit behind the instruction.
        most = min(REFLECTION_TOKENS, resources.max_prompt_tokens // 2)
        budget = replace(context.token_budget, answer=most)
        if settings.reflection == "base":
            ids = base.template.prompt(messages)[-(base.context - budget.tokens) :]
            return replies.ask(base, [ids], budget)[0].text
        endpoint = endpoint_of(context.recipe, settings.reflection)
        text = endpoint.ask(messages, max_new_tokens=budget.tokens).answer.text
        tokens, _ = base.template.tokenizer.encode(text)
        return text if len(tokens) <= most else base.template.tokenizer.decode(tokens[:most])

    found = optimization.optimize_prompt(
        context.items("train"),
        start=settings.instruction,
        ask=ask,
        reflect=reflect,
        budget=settings.optimise_budget,
        seed=context.recipe.train.seed,
        folder=context.run.folder / "evaluation",
    )
    context.run.record("choice", arm="optimised", **found.to_json())
    return found.to_json()
