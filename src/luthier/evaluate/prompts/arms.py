"""What answers a held-out question: prompts of rising strength over the base model, the tuned model, other models.

An arm builds prompts (item → messages) and says who answers them. All arms share the decoder, the parser and the token budget;
demonstrations come from the training rows only. A new arm is a function `PromptResources → Prompt` and a line in `ARMS`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from luthier.chat import Message, Template
from luthier.data.dataset import Item
from luthier.data.documents.passages import Passage
from luthier.errors import UserError, unknown
from luthier.evaluate.prompts import demonstrations
from luthier.evaluate.prompts.retrieval import Index
from luthier.extensions import import_function, look_up
from luthier.recipe import Endpoint

Prompt = Callable[[Item], tuple[Message, ...]]
AnsweredBy = Literal["base", "tuned", "endpoint"]
TUNED = "fine-tuned"
ENDPOINT = "endpoint:"


@dataclass(frozen=True)
class PromptResources:
    """What the arms may use."""

    train: Sequence[Item]
    template: Template
    shots: int
    """Demonstrations of the arm that retrieves them."""
    max_prompt_tokens: int
    """The context less the tokens that thoughts and answer may take."""
    instruction: str | None
    demonstrations: Sequence[Item] = ()
    """Those of the fixed few-shot prompt, as selected on dev."""
    passages: Sequence[Passage] = ()
    """What can be looked up."""
    passages_shown: int = 0
    optimised_instruction: str | None = None
    """The one that prompt optimization found."""

    def fits(self, messages: Sequence[Message], item: Item) -> bool:
        """Whether the item's functions and these messages leave room for an answer."""
        return len(self.template.prompt(messages, tools=item.conversation.tools)) <= self.max_prompt_tokens


def zero_shot(resources: PromptResources) -> Prompt:
    """The instruction, if the data shows one, and the question."""
    return lambda item: _compose(item, (), resources)


def few_shot(resources: PromptResources) -> Prompt:
    """The same demonstrations before every question."""
    return lambda item: _compose(item, resources.demonstrations, resources)


def retrieved(resources: PromptResources) -> Prompt:
    """The training rows whose questions are most like this one (BM25), the most similar last."""
    most_similar = demonstrations.retriever(resources.train, resources.shots)
    return lambda item: _compose(item, most_similar(item), resources)


def rag(resources: PromptResources) -> Prompt:
    """The passages of the user's documents that are most like the question (BM25), the best one last, before it."""
    index = Index([f"{passage.heading}\n{passage.text}" for passage in resources.passages])

    def prompt(item: Item) -> tuple[Message, ...]:
        numbers = index.most_like(item.conversation.question, resources.passages_shown)
        found = [resources.passages[number] for number in reversed(numbers)]
        while True:
            messages = _with_passages(_compose(item, (), resources), found)
            if not found or resources.fits(messages, item):
                return messages
            found.pop(0)

    return prompt


def optimised(resources: PromptResources) -> Prompt:
    """The instruction that prompt optimization found, and the question."""
    return lambda item: _compose(item, (), resources, instruction=resources.optimised_instruction)


def question_only(resources: PromptResources) -> Prompt:
    """The question as in training: what a tuned model needs."""
    return lambda item: item.conversation.prompt


@dataclass(frozen=True)
class Arm:
    """How an arm builds prompts, and who answers them."""

    build: Callable[[PromptResources], Prompt]
    answered_by: AnsweredBy = "base"


ARMS: dict[str, Arm] = {
    "zero-shot": Arm(zero_shot),
    "few-shot": Arm(few_shot),
    "retrieved": Arm(retrieved),
    "rag": Arm(rag),
    "optimised": Arm(optimised),
    TUNED: Arm(question_only, "tuned"),
    "fine-tuned+few-shot": Arm(few_shot, "tuned"),
}
"""Arms by the word in `evaluate.arms`. A dotted name "package.module:function" builds prompts for the base model, and
"endpoint:NAME" asks the model behind `evaluate.endpoints.NAME` with the prompts of the arm that its `prompt` names."""


def resolve(name: str, endpoints: Mapping[str, Endpoint] | None = None) -> Arm:
    """The arm of this name, from the table, from the endpoints, or from the user's own code."""
    if name.startswith(ENDPOINT):
        return _endpoint(name, endpoints or {})
    if ":" not in name:
        if name not in ARMS:
            raise unknown("arm", name, [*ARMS, f"{ENDPOINT}NAME", "package.module:function"], where="evaluate.arms")
        return ARMS[name]
    return Arm(import_function(name, where="evaluate.arms"))


def resolve_all(names: Iterable[str], endpoints: Mapping[str, Endpoint] | None = None) -> dict[str, Arm]:
    """The arms by name. Raises a UserError without the tuned model or without a prompt on the base model: no verdict then."""
    found = {name: resolve(name, endpoints) for name in names}
    if TUNED not in found or all(arm.answered_by != "base" for arm in found.values()):
        raise UserError(
            f'a verdict needs "{TUNED}" and at least one other arm that prompts the base model, such as zero-shot.',
            where="evaluate.arms",
        )
    return found


def render(arm: str, prompt: Prompt, item: Item, template: Template) -> tuple[tuple[Message, ...], list[int]]:
    """What an arm sends for an item, as messages and as tokens; the UserError of a template that refuses names arm and row."""
    try:
        messages = prompt(item)
        return messages, template.prompt(messages, tools=item.conversation.tools)
    except UserError as error:
        refusal = f'{error.message} This is what the arm "{arm}" sends for this row'
        raise UserError(
            f"{refusal}; leave the arm out of evaluate.arms, or use another model.", where=item.location
        ) from None


def secondary(names: Iterable[str], *, against: str) -> list[str]:
    """The arms that are not in the planned comparison; what is said about them needs a correction for many tests."""
    return [name for name in names if name not in (TUNED, against)]


def _endpoint(name: str, endpoints: Mapping[str, Endpoint]) -> Arm:
    """The arm that sends another arm's prompts to an endpoint."""
    settings = look_up("endpoint", name.removeprefix(ENDPOINT), endpoints, where="evaluate.arms")
    where = f"evaluate.endpoints.{name.removeprefix(ENDPOINT)}.prompt"
    prompts = {known: arm for known, arm in ARMS.items() if arm.answered_by == "base" or known == TUNED}
    return Arm(look_up("arm", settings.prompt, prompts, where=where).build, "endpoint")


def _with_passages(messages: tuple[Message, ...], passages: Sequence[Passage]) -> tuple[Message, ...]:
    """The messages with passages in front of the last question."""
    if not passages:
        return messages
    heads = (" ".join(part for part in (passage.location, passage.heading) if part) for passage in passages)
    shown = "\n\n".join(f"[{head}]\n{passage.text}" for head, passage in zip(heads, passages, strict=True))
    last = max(number for number, message in enumerate(messages) if message.role == "user")
    question = f"These passages may help:\n\n{shown}\n\n{messages[last].content}"
    return (*messages[:last], replace(messages[last], content=question), *messages[last + 1 :])


def _compose(
    item: Item, shown: Sequence[Item], resources: PromptResources, *, instruction: str | None = None
) -> tuple[Message, ...]:
    """System text, demonstrations as earlier turns, the item's own turns; fewer demonstrations where they would not fit."""
    own_turns = item.conversation.prompt
    stated = instruction or resources.instruction
    systems = [stated] if stated else []
    systems += [message.content for message in own_turns if message.role == "system"]
    head = (Message("system", "\n\n".join(systems)),) if systems else ()
    turns = tuple(message for message in own_turns if message.role != "system")
    kept = list(shown)
    while True:
        before = tuple(message for shot in kept for message in shot.conversation.messages if message.role != "system")
        messages = (*head, *before, *turns)
        if not kept or resources.fits(messages, item):
            return messages
        kept.pop(0)
