"""Rows that are trees: what several texts begin with stands in a row once, their ends stand behind it one after the other.

Two levels suffice: questions may share a prefix (the examples of a few-shot prompt), choices share their question. Each
token has the position that it would have in its own text, and the mask shows it that text only.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Ids = Sequence[int]

SHARED_AT_LEAST = 32
"""Tokens that neighbouring contexts have in common where they share a row; also at least a quarter of each."""


@dataclass
class Question:
    """A context and what may follow it, each with the number that its likelihood is asked under."""

    context: Ids
    choices: list[tuple[int, Ids]] = field(default_factory=list)

    @property
    def longest(self) -> int:
        """Most tokens that one of its texts gives to the model; nothing is predicted from a text's last token."""
        return len(self.context) + max(len(ids) for _, ids in self.choices) - 1


class Target(NamedTuple):
    """A token that is to be predicted from a position in a row, and the number of its continuation."""

    position: int
    token: int
    number: int


class TreeRow:
    """Tokens with their positions and branches, and what is to be predicted from them."""

    def __init__(self, prefix: Ids, questions: Sequence[Question]) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.question: list[int] = []
        """Which question a token belongs to; 0 for the prefix, which all of them see."""
        self.choice: list[int] = []
        """Which choice of its question a token belongs to; 0 for the context, which all of its choices see."""
        self.targets: list[Target] = []
        self._add(prefix, position=0, question=0, choice=0)
        for number, question in enumerate(questions, start=1):
            self._add(question.context[len(prefix) :], position=len(prefix), question=number, choice=0)
            fork = len(self.ids) - 1
            for choice, (asked_as, ids) in enumerate(question.choices, start=1):
                positions = [fork, *range(len(self.ids), len(self.ids) + len(ids) - 1)]
                self._add(ids[:-1], position=len(question.context), question=number, choice=choice)
                self.targets += [
                    Target(position, token, asked_as) for position, token in zip(positions, ids, strict=True)
                ]

    def _add(self, ids: Ids, *, position: int, question: int, choice: int) -> None:
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.question += [question] * len(ids)
        self.choice += [choice] * len(ids)

    @property
    def longest(self) -> int:
        """Tokens of its longest text."""
        return max(self.positions) + 1

    @property
    def forks(self) -> bool:
        """Whether a token must not see one that stands before it."""
        return self.positions != list(range(len(self.ids)))


class Inputs(NamedTuple):
    """Rows of a batch, padded on the right. `mask` is added to the scores of attention; None where all rows are plain."""

    ids: Int[Tensor, "batch time"]
    positions: Int[Tensor, "batch time"]
    mask: Float[Tensor, "batch 1 time time"] | None


def inputs(rows: Sequence[TreeRow], device: torch.device, dtype: torch.dtype) -> Inputs:
    """What the model is given. Padding sees its own row's padding, so that no token sees nothing at all."""
    longest = max(len(row.ids) for row in rows)

    def padded(name: str, fill: int) -> Int[Tensor, "batch time"]:
        values = [getattr(row, name) for row in rows]
        return torch.tensor([row + [fill] * (longest - len(row)) for row in values], device=device)

    ids, positions = padded("ids", 0), padded("positions", 0)
    if not any(row.forks for row in rows):
        return Inputs(ids, positions, None)
    question, choice = padded("question", -1), padded("choice", -1)
    seen = (question[:, None, :] == question[:, :, None]) & _same_or_shared(choice)  # batch time time
    seen |= question[:, None, :] == 0
    seen &= torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    hidden = torch.finfo(dtype).min
    return Inputs(
        ids, positions, torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, hidden)[:, None]
    )


def _same_or_shared(branch: Int[Tensor, "batch time"]) -> Tensor:
    return (branch[:, None, :] == branch[:, :, None]) | (branch[:, None, :] == 0)  # batch time time


def build_rows(questions: Sequence[Question], *, window: int, width: int, tokens_per_batch: int) -> list[TreeRow]:
    """The questions as rows. `window` is how far back the model looks through a mask of ours: 0 for one that takes none.

    `width` is the model's; it tells how dear a row's linear layers are beside its attention.
    """
    rows: list[TreeRow] = []
    trees: list[Question] = []
    for question in questions:
        if question.longest <= window:
            trees += _split_choices(question, max(tokens_per_batch, 2 * len(question.context)))
        else:
            rows += [TreeRow((), [Question(question.context, [choice])]) for choice in question.choices]
    for prefix, together in _with_common_prefix(trees):
        room = _own_tokens(prefix, width) if prefix else 0
        pending: list[Question] = []
        used = 0
        for question in together:
            size = _size(question) - prefix
            if pending and used + size > room:
                rows.append(TreeRow(pending[0].context[:prefix], pending))
                pending, used = [], 0
            pending.append(question)
            used += size
        rows.append(TreeRow(pending[0].context[:prefix], pending))
    return rows


def _own_tokens(prefix: int, width: int) -> int:
    """How many tokens of their own the questions of a row should have, when they share a prefix of B tokens.

    A token costs 6·width as much in the linear layers as a pair of tokens in attention (12·width² weights a layer, 2·width
    products a pair). Per own token a row of B + S costs (6·width·(B + S) + (B + S)²)/S, least at this S.
    """
    return math.isqrt(prefix * (6 * width + prefix))


def _size(question: Question) -> int:
    return len(question.context) + sum(len(ids) - 1 for _, ids in question.choices)


def _split_choices(question: Question, most: int) -> Iterator[Question]:
    """The question, or where it has so many choices that a row would be longer than `most`, several with some of them."""
    part = Question(question.context)
    size = len(question.context)
    for choice in question.choices:
        if part.choices and size + len(choice[1]) - 1 > most:
            yield part
            part, size = Question(question.context), len(question.context)
        part.choices.append(choice)
        size += len(choice[1]) - 1
    yield part


def _with_common_prefix(questions: Sequence[Question]) -> Iterator[tuple[int, list[Question]]]:
    """Questions whose contexts begin alike, with the length of that prefix; a question without such company alone, with 0.

    A prefix leaves each context a token of its own, from which the first token of a choice is predicted.
    """
    ordered = sorted(questions, key=lambda question: tuple(question.context))
    start = 0
    while start < len(ordered):
        first = ordered[start].context
        prefix, end = len(first) - 1, start + 1
        while end < len(ordered):
            context = ordered[end].context
            common = _common(first, context, prefix)
            if common < max(SHARED_AT_LEAST, len(context) / 4, len(first) / 4):
                break
            prefix, end = common, end + 1
        yield (prefix if end - start > 1 else 0), ordered[start:end]
        start = end


def _common(first: Ids, second: Ids, most: int) -> int:
    """How many first tokens two texts have in common, without the last of either, and at most `most`."""
    limit = min(most, len(first) - 1, len(second) - 1)
    return next((position for position in range(limit) if first[position] != second[position]), limit)
