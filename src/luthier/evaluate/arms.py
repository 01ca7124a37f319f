"""What answers a held-out question: prompts of rising strength over the base model, and the tuned model.

An arm is a function from an item to the messages that are sent. All arms share the weights they start from, the decoder, the
parser and the token budget; examples come from the training rows only.
"""

import hashlib
import importlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import bm25s

from luthier.chat import Message, Template
from luthier.data.dataset import Item
from luthier.errors import Mistake, choose

Prompt = Callable[[Item], tuple[Message, ...]]
LABELS_AT_MOST = 20
VALUES_AT_MOST = 12


@dataclass(frozen=True)
class Bench:
    """What the prompt arms may use. `budget` is the longest prompt in tokens: the context less the answer."""

    train: Sequence[Item]
    template: Template
    shots: int
    budget: int
    instruction: str | None


def zero_shot(bench: Bench) -> Prompt:
    """The instruction, if the data shows one, and the question."""
    return lambda item: _asked(item, (), bench)


def few_shot(bench: Bench) -> Prompt:
    """The same examples before every question: typical in length, and for labels one of each in turn."""
    examples = fixed_examples(bench.train, bench.shots)
    return lambda item: _asked(item, examples, bench)


def retrieved(bench: Bench) -> Prompt:
    """The training rows whose questions are most like this one (BM25), the most similar last."""
    tokens = bm25s.tokenize([item.conversation.question for item in bench.train], stopwords=None, show_progress=False)
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    count = min(bench.shots, len(bench.train))

    def prompt(item: Item) -> tuple[Message, ...]:
        query = bm25s.tokenize([item.conversation.question], stopwords=None, show_progress=False, return_ids=False)
        found, _ = index.retrieve(query, k=count, show_progress=False, backend_selection="numpy")
        return _asked(item, [bench.train[number] for number in reversed(found[0].tolist())], bench)

    return prompt


def plain(bench: Bench) -> Prompt:
    """The question as in training: what a tuned model needs."""
    return lambda item: item.conversation.prompt


@dataclass(frozen=True)
class Arm:
    """How an arm builds prompts, and whether the tuned model answers them or the base model."""

    build: Callable[[Bench], Prompt]
    tuned: bool = False


ARMS: dict[str, Arm] = {
    "zero-shot": Arm(zero_shot),
    "few-shot": Arm(few_shot),
    "retrieved": Arm(retrieved),
    "fine-tuned": Arm(plain, tuned=True),
}
"""Arms by the word in `evaluate.arms`; a dotted name "package.module:function" builds prompts for the base model."""


def resolve(name: str) -> Arm:
    """The arm of this name, from the table or from the user's own code."""
    if ":" not in name:
        return choose("arm", name, ARMS, where="evaluate.arms")
    module, _, function = name.partition(":")
    try:
        return Arm(getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError) as error:
        raise Mistake(f'cannot load the arm "{name}": {error}.', where="evaluate.arms") from None


def fixed_examples(train: Sequence[Item], count: int) -> list[Item]:
    """Examples that fit any question: no longer than half again the median, in an order that a hash fixes.

    Where answers repeat (labels), each answer gets its turn, so that no label is missing before another comes twice.
    """
    sizes = sorted(len(item.conversation.question) + len(item.conversation.answer) for item in train)
    limit = sizes[len(sizes) // 2] * 1.5
    typical = [item for item in train if len(item.conversation.question) + len(item.conversation.answer) <= limit]
    shuffled = sorted(typical, key=lambda item: hashlib.sha256(item.id.encode()).digest())
    by_answer: dict[str, list[Item]] = defaultdict(list)
    for item in shuffled:
        by_answer[item.conversation.answer].append(item)
    turns = [item for turn in zip_longest(*by_answer.values()) for item in turn if item is not None]
    return turns[:count]


def instruction(references: Sequence[str]) -> str | None:
    """What the answers' form asks for, in words a prompt can carry; None where they are free text.

    Without it, fine-tuning would win by knowing the format alone.
    """
    objects = [value for text in references if isinstance(value := _json(text), dict)]
    if len(objects) >= 0.95 * len(references):
        return f"Answer with one JSON object and nothing else. Its fields: {_fields(objects)}."
    labels = Counter(reference.strip() for reference in references)
    if len(labels) <= LABELS_AT_MOST and len(references) >= 3 * len(labels) and max(map(len, labels)) <= 40:
        return f"Answer with exactly one of these and nothing else: {', '.join(sorted(labels))}."
    return None


def _fields(objects: Sequence[dict[str, object]]) -> str:
    """Each field with the values it takes, or their kind where they are many."""
    described = []
    for name in dict.fromkeys(name for value in objects for name in value):
        values = Counter(json.dumps(value.get(name), ensure_ascii=False) for value in objects)
        if len(values) <= VALUES_AT_MOST and len(objects) >= 3 * len(values):
            described.append(f"{name} (one of {', '.join(sorted(values))})")
        else:
            kinds = {_KINDS.get(type(value.get(name)), "text") for value in objects}
            described.append(f"{name} ({' or '.join(sorted(kinds))})")
    return "; ".join(described)


_KINDS = {bool: "true or false", int: "number", float: "number", type(None): "null", list: "list", dict: "object"}


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _asked(item: Item, examples: Sequence[Item], bench: Bench) -> tuple[Message, ...]:
    """System text, examples as earlier turns, the item's own turns; fewer examples where they would not fit."""
    own = item.conversation.prompt
    systems = [bench.instruction] if bench.instruction else []
    systems += [message.content for message in own if message.role == "system"]
    head = (Message("system", "\n\n".join(systems)),) if systems else ()
    turns = tuple(message for message in own if message.role != "system")
    chosen = list(examples)
    while True:
        shown = tuple(
            message for example in chosen for message in example.conversation.messages if message.role != "system"
        )
        messages = (*head, *shown, *turns)
        if not chosen or len(bench.template.prompt(messages)) <= bench.budget:
            return messages
        chosen.pop(0)
