"""Which training rows stand as demonstrations before a question: the same ones for all, or those most like it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from luthier.chat import Message, Template
from luthier.data.dataset import Item
from luthier.data.row_store import Traits
from luthier.evaluate.prompts.retrieval import Index

SAMPLED = 100
"""Rows whose definitions of functions are counted."""


def fixed_set(train: Sequence[Item], count: int, *, draw: int = 0) -> list[Item]:
    """Demonstrations that fit any question: no longer than half again the median, in an order that a hash fixes.

    Each `draw` gives another order. Where answers repeat (labels), each answer gets its turn, so that no label is missing
    before another comes twice.
    """
    salt = f"{draw}:" if draw else ""
    traits = Traits.of(train)
    sizes, answers = traits.sizes, traits.answers
    digests = (hashlib.sha256(f"{salt}{id}".encode()).digest()[:8] for id in traits.ids)
    hashes = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    typical = np.flatnonzero(sizes <= np.sort(sizes)[len(sizes) // 2] * 1.5)
    shuffled = typical[np.argsort(hashes[typical], kind="stable")]
    _, first, kind = np.unique(answers[shuffled], return_index=True, return_inverse=True)
    return [train[number] for number in shuffled[_in_turns(first[kind])][:count].tolist()]


def _in_turns(kinds: np.ndarray) -> np.ndarray:
    """Positions in an order in which each kind, a number, gets its turn: the first of each by number, then the second."""
    together = np.argsort(kinds, kind="stable")
    starts = np.flatnonzero(np.diff(kinds[together], prepend=-1))
    turns = np.empty_like(together)
    turns[together] = np.arange(len(kinds)) - np.repeat(starts, np.diff(starts, append=len(kinds)))
    return np.lexsort((kinds, turns))


def definition_tokens(template: Template, train: Sequence[Item]) -> float:
    """How many tokens of a row define functions, on average over some of the rows."""
    offered = Counter(item.conversation.tools for item in train[:: max(1, len(train) // SAMPLED)])
    if not any(offered):
        return 0.0
    question = (Message("user", "x"),)
    plain = len(template.prompt(question))
    tokens = sum((len(template.prompt(question, tools=tools)) - plain) * count for tools, count in offered.items())
    return tokens / offered.total()


def retriever(train: Sequence[Item], count: int) -> Callable[[Item], list[Item]]:
    """For an item, the training rows whose questions are most like its own (BM25), the most similar last."""
    index = Index([item.conversation.question for item in train])
    return lambda item: [train[number] for number in reversed(index.most_like(item.conversation.question, count))]
