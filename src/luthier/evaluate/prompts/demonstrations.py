"""Which training rows stand as demonstrations before a question: the same ones for all, or those most like it."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import zip_longest

from luthier.data.dataset import Item
from luthier.evaluate.prompts.retrieval import Index


def fixed_set(train: Sequence[Item], count: int, *, draw: int = 0) -> list[Item]:
    """Demonstrations that fit any question: no longer than half again the median, in an order that a hash fixes.

    Each `draw` gives another order. Where answers repeat (labels), each answer gets its turn, so that no label is missing
    before another comes twice.
    """
    sizes = sorted(len(item.conversation.question) + len(item.conversation.answer) for item in train)
    limit = sizes[len(sizes) // 2] * 1.5
    typical = [item for item in train if len(item.conversation.question) + len(item.conversation.answer) <= limit]
    salt = f"{draw}:" if draw else ""
    shuffled = sorted(typical, key=lambda item: hashlib.sha256(f"{salt}{item.id}".encode()).digest())
    by_answer: dict[str, list[Item]] = defaultdict(list)
    for item in shuffled:
        by_answer[item.conversation.answer].append(item)
    turns = [item for turn in zip_longest(*by_answer.values()) for item in turn if item is not None]
    return turns[:count]


def retriever(train: Sequence[Item], count: int) -> Callable[[Item], list[Item]]:
    """For an item, the training rows whose questions are most like its own (BM25), the most similar last."""
    index = Index([item.conversation.question for item in train])
    return lambda item: [train[number] for number in reversed(index.most_like(item.conversation.question, count))]
