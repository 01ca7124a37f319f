"""What answers a held-out question: prompts of rising strength over the base model, the tuned model, other models.

An arm is a function from an item to the messages that are sent, and a word for who is asked. Prompts on the base model share
the weights they start from, the decoder, the parser and the token budget; examples come from the training rows only.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.chat import Message, Template
from luthier.data.dataset import Item
from luthier.errors import UserError, choose, unknown
from luthier.evaluate.prompts import demonstrations
from luthier.evaluate.prompts.passages import Passage
from luthier.evaluate.prompts.retrieval import Index
from luthier.recipe import Endpoint

Prompt = Callable[[Item], tuple[Message, ...]]
Who = Literal["base", "tuned", "endpoint"]
TUNED = "fine-tuned"
ENDPOINT = "endpoint:"


@dataclass(frozen=True)
class PromptResources:
    """What the arms may use. `budget` is the longest prompt in tokens: the context less the answer."""

    train: Sequence[Item]
    template: Template
    shots: int
    """Examples of the arm that retrieves them."""
    budget: int
    instruction: str | None
    examples: Sequence[Item] = ()
    """The examples of the fixed few-shot prompt, as chosen on dev."""
    passages: Sequence[Passage] = ()
    """What can be looked up."""
    passages_shown: int = 0
    optimised: str | None = None
    """The instruction that was found by optimisation."""


def zero_shot(resources: PromptResources) -> Prompt:
    """The instruction, if the data shows one, and the question."""
    return lambda item: _asked(item, (), resources)


def few_shot(resources: PromptResources) -> Prompt:
    """The same examples before every question."""
    return lambda item: _asked(item, resources.examples, resources)


def retrieved(resources: PromptResources) -> Prompt:
    """The training rows whose questions are most like this one (BM25), the most similar last."""
    alike = demonstrations.alike(resources.train, resources.shots)
    return lambda item: _asked(item, alike(item), resources)


def rag(resources: PromptResources) -> Prompt:
    """The passages of the user's documents that are most like the question (BM25), the best one last, before it."""
    index = Index([passage.text for passage in resources.passages])

    def prompt(item: Item) -> tuple[Message, ...]:
        numbers = index.most_like(item.conversation.question, resources.passages_shown)
        found = [resources.passages[number] for number in reversed(numbers)]
        while True:
            messages = _with_passages(_asked(item, (), resources), found)
            if not found or len(resources.template.prompt(messages)) <= resources.budget:
                return messages
            found.pop(0)

    return prompt


def optimised(resources: PromptResources) -> Prompt:
    """The instruction that optimisation found, and the question."""
    return lambda item: _asked(item, (), resources, instruction=resources.optimised)


def plain(resources: PromptResources) -> Prompt:
    """The question as in training: what a tuned model needs."""
    return lambda item: item.conversation.prompt


@dataclass(frozen=True)
class Arm:
    """How an arm builds prompts, and who answers them."""

    build: Callable[[PromptResources], Prompt]
    who: Who = "base"

    @property
    def tuned(self) -> bool:
        return self.who == "tuned"


ARMS: dict[str, Arm] = {
    "zero-shot": Arm(zero_shot),
    "few-shot": Arm(few_shot),
    "retrieved": Arm(retrieved),
    "rag": Arm(rag),
    "optimised": Arm(optimised),
    TUNED: Arm(plain, "tuned"),
    "fine-tuned+few-shot": Arm(few_shot, "tuned"),
}
"""Arms by the word in `evaluate.arms`. A dotted name "package.module:function" builds prompts for the base model, and
"endpoint:NAME" asks the model behind `evaluate.endpoints.NAME` with the prompts of the arm that stands there."""


def resolve(name: str, endpoints: Mapping[str, Endpoint] | None = None) -> Arm:
    """The arm of this name, from the table, from the endpoints, or from the user's own code."""
    if name.startswith(ENDPOINT):
        return _endpoint(name, endpoints or {})
    if ":" not in name:
        if name not in ARMS:
            raise unknown("arm", name, [*ARMS, f"{ENDPOINT}NAME", "package.module:function"], where="evaluate.arms")
        return ARMS[name]
    module, _, function = name.partition(":")
    try:
        return Arm(getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError) as error:
        raise UserError(f'cannot load the arm "{name}": {error}.', where="evaluate.arms") from None


def ladder(names: Iterable[str], endpoints: Mapping[str, Endpoint] | None = None) -> dict[str, Arm]:
    """The arms of these names; a verdict needs the tuned model and at least one prompt on the base model."""
    found = {name: resolve(name, endpoints) for name in names}
    if TUNED not in found or all(arm.who != "base" for arm in found.values()):
        raise UserError(
            f'a verdict needs "{TUNED}" and at least one other arm that prompts the base model, such as zero-shot.',
            where="evaluate.arms",
        )
    return found


def sent(arm: str, prompt: Prompt, item: Item, template: Template) -> tuple[tuple[Message, ...], list[int]]:
    """What an arm sends for an item, as messages and as tokens; where the template refuses, the UserError names both."""
    try:
        messages = prompt(item)
        return messages, template.prompt(messages)
    except UserError as user_error:
        told = f'{user_error.message} This is what the arm "{arm}" sends for this row'
        raise UserError(
            f"{told}; leave the arm out of evaluate.arms, or use another model.", where=item.place
        ) from None


def secondary(names: Iterable[str], *, against: str) -> list[str]:
    """The arms that are not in the planned comparison; what is said about them needs a correction for many tests."""
    return [name for name in names if name not in (TUNED, against)]


def _endpoint(name: str, endpoints: Mapping[str, Endpoint]) -> Arm:
    """The arm that sends another arm's prompts to an endpoint."""
    settings = choose("endpoint", name.removeprefix(ENDPOINT), endpoints, where="evaluate.arms")
    where = f"evaluate.endpoints.{name.removeprefix(ENDPOINT)}.prompt"
    prompts = {known: arm for known, arm in ARMS.items() if arm.who == "base"}
    return Arm(choose("arm", settings.prompt, prompts, where=where).build, "endpoint")


def _with_passages(messages: tuple[Message, ...], passages: Sequence[Passage]) -> tuple[Message, ...]:
    """The messages with passages in front of the last question."""
    if not passages:
        return messages
    shown = "\n\n".join(f"[{passage.place}]\n{passage.text}" for passage in passages)
    question = f"These passages may help:\n\n{shown}\n\n{messages[-1].content}"
    return (*messages[:-1], Message(messages[-1].role, question))


def _asked(
    item: Item, shown: Sequence[Item], resources: PromptResources, *, instruction: str | None = None
) -> tuple[Message, ...]:
    """System text, examples as earlier turns, the item's own turns; fewer examples where they would not fit."""
    own = item.conversation.prompt
    stated = instruction or resources.instruction
    systems = [stated] if stated else []
    systems += [message.content for message in own if message.role == "system"]
    head = (Message("system", "\n\n".join(systems)),) if systems else ()
    turns = tuple(message for message in own if message.role != "system")
    chosen = list(shown)
    while True:
        before = tuple(
            message for example in chosen for message in example.conversation.messages if message.role != "system"
        )
        messages = (*head, *before, *turns)
        if not chosen or len(resources.template.prompt(messages)) <= resources.budget:
            return messages
        chosen.pop(0)
