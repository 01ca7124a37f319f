"""Every kind of prompt that a run will need, tried on real items before anything is asked or trained.

A chat template may refuse what an arm or a guard puts together: a system message, demonstrations as earlier turns. The user
reads the template's own words before the base model has answered hundreds of questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from luthier.chat import Template
from luthier.data.dataset import Item
from luthier.data.splits import Splits
from luthier.errors import UserError
from luthier.evaluate import guards
from luthier.evaluate.prompts import arms, demonstrations, optimization, passages
from luthier.evaluate.prompts.arms import Arm, PromptResources
from luthier.model.replies import TokenBudget
from luthier.recipe import Recipe

SIMILAR_AMONG = 1000
"""Training rows among which similar ones are looked for here: a template takes one like another."""


def try_prompts(
    recipe: Recipe,
    template: Template,
    context_tokens: int,
    splits: Splits,
    wanted: Mapping[str, Arm],
    material: guards.UserMaterial,
) -> None:
    """Raises a UserError where the template refuses a prompt: with its words, and the arm or guard and the row."""
    if not splits.test[0].conversation.is_document:
        resources = _prompt_resources(recipe, template, context_tokens, splits.train[:SIMILAR_AMONG])
        counts = {name: _shot_counts(recipe, arm) for name, arm in wanted.items()}
        fixed = demonstrations.fixed_set(splits.train, max((max(each) for each in counts.values()), default=0))
        for name, arm in wanted.items():
            for count in counts[name]:
                prompt = arm.build(replace(resources, demonstrations=fixed[:count]))
                for item in _one_of_each_pattern([*splits.dev, *splits.test]):
                    arms.render(name, prompt, item, template)
    inputs = guards.GuardInputs(
        splits.test, splits.train, recipe.evaluate, recipe.data.system, recipe.train.seed, material
    )
    for name, guard in guards.active_guards(inputs).items():
        _try_guard(name, guard, inputs, template)


def _prompt_resources(
    recipe: Recipe, template: Template, context_tokens: int, train: Sequence[Item]
) -> PromptResources:
    """What the arms may use, as far as it is known before anything is selected."""
    settings = recipe.evaluate
    assert settings.max_new_tokens, "every value is set"
    return PromptResources(
        train=train,
        template=template,
        shots=settings.shots or 1,
        max_prompt_tokens=context_tokens - TokenBudget(settings.max_new_tokens, settings.thinking_tokens or 0).tokens,
        instruction=settings.instruction,
        passages=passages.read(settings.documents)[0] if settings.documents is not None else (),
        passages_shown=settings.passages,
        optimised_instruction=settings.instruction or optimization.START,
    )


def _shot_counts(recipe: Recipe, arm: Arm) -> set[int]:
    """Numbers of demonstrations to try an arm with: of a fixed prompt, the fewest and the most that it may have."""
    counts = recipe.evaluate.shots_tried or (1,)
    return {min(counts), max(counts)} if arm.build is arms.few_shot else {max(counts)}


def _try_guard(name: str, guard: guards.Guard, inputs: guards.GuardInputs, template: Template) -> None:
    """All its questions as both models get them: they are few, and some are made by rule from real ones."""
    locations = {item.id: item.location for item in inputs.test}
    for task in (task for task in guard.make_tasks(inputs) if isinstance(task, guards.Question)):
        for messages in dict.fromkeys(guards.messages_for(task, inputs, arm) for arm in (guards.BASE, guards.TUNED)):
            try:
                template.render(messages, tools=task.tools)
            except UserError as error:
                rest = ",".join(other for other in guards.active_guards(inputs) if other != name)
                refusal = f'{error.message} This is a question of the guard "{name}"'
                raise UserError(
                    f"{refusal}; leave it out with evaluate.guards={rest or '[]'}, or use another model.",
                    where=locations.get(str(task.extra.get("asked"))) or f'"{messages[-1].content}"',
                ) from None


def _one_of_each_pattern(items: Sequence[Item]) -> list[Item]:
    """The first item of each pattern of roles, calls and tools: what a template refuses, it refuses for these."""
    found: dict[tuple[object, ...], Item] = {}
    for item in items:
        messages = item.conversation.messages
        pattern = (bool(item.conversation.tools), *((message.role, bool(message.tool_calls)) for message in messages))
        found.setdefault(pattern, item)
    return list(found.values())
