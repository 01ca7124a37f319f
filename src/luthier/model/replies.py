"""Replies as they are read: thoughts apart from the answer, each with a budget of its own.

Thinking costs tokens and is no answer. So an answer has at most the tokens that it was given, however long the thoughts
before it, and a reply that ended inside its thoughts has no answer.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from luthier.chat import Template
from luthier.model import generate
from luthier.model.loading import LanguageModel

THINKING = "thinking"
"""How a reply finishes that ended inside its thoughts."""
UNANSWERED = (generate.NO_ROOM, THINKING)
"""How replies finish that hold no answer: they count as none, whatever a metric says of nothing."""
THINKING_TOKENS = (
    2048  # what published evaluations of small thinking models need for most questions, and a processor can bear
)
CHECK_EVERY = 8  # tokens between two checks whether an answer is as long as it may be


def usual_thinking(context: int) -> int:
    """The usual room for thoughts: at most a quarter of the context, so that questions and examples fit before them."""
    return min(THINKING_TOKENS, context // 4)


@dataclass(frozen=True)
class TokenBudget:
    """How many tokens a reply may have: of its answer, and besides of the thoughts before it."""

    answer: int
    thinking: int = 0

    @property
    def tokens(self) -> int:
        return self.answer + self.thinking

    @classmethod
    def of(cls, lm: LanguageModel, answer: int, thinking: int | None = None) -> "TokenBudget":
        """With the usual room for thoughts where nobody says how much, and the template lets the model think."""
        if thinking is None:
            thinking = usual_thinking(lm.context) if lm.template.thinks else 0
        return cls(answer, thinking)


@dataclass(frozen=True)
class Answer:
    """What a model replied. `tokens` are all that were generated, `thought_tokens` those before the answer."""

    text: str
    thoughts: str | None
    finish: str
    """`stop` at an end token, `length` at the answer's limit; `thinking` inside the thoughts and `no room` behind a prompt
    that fills the context, both without an answer."""
    tokens: int
    thought_tokens: int
    seconds: float
    called: str | None = None
    """The answer with its calls as `ToolCall.text` writes them, where it calls functions."""

    def said(self, *, tools: bool) -> str:
        """The answer; of somebody who was offered `tools`, with its calls in their one form."""
        return self.called if tools and self.called is not None else self.text


class Ask(Protocol):
    """What `ask` is, and what may stand in for it: several processes that answer together."""

    def __call__(
        self,
        lm: LanguageModel,
        prompts: Sequence[Sequence[int]],
        room: TokenBudget,
        *,
        sampling: generate.Sampling | None = None,
        on_batch: Callable[[dict[int, Answer]], None] | None = None,
    ) -> list[Answer]: ...


def ask(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    room: TokenBudget,
    *,
    sampling: generate.Sampling | None = None,
    on_batch: Callable[[dict[int, Answer]], None] | None = None,
) -> list[Answer]:
    """What the model says to each prompt, in their order; `on_batch` sees each batch as soon as it is there."""
    answers: dict[int, Answer] = {}

    def keep(batch: dict[int, generate.Reply]) -> None:
        done = {number: read(lm.template, reply, room) for number, reply in batch.items()}
        answers.update(done)
        if on_batch:
            on_batch(done)

    over = full(lm.template, room)
    generate.answer(lm, prompts, max_new_tokens=room.tokens, sampling=sampling, over=over, on_batch=keep)
    return [answers[number] for number in range(len(prompts))]


def stream(lm: LanguageModel, prompt: Sequence[int], room: TokenBudget) -> Iterator[Answer]:
    """What the model has said so far, after each token of its reply to one prompt; the same reply as `ask` gives."""
    start = time.perf_counter()
    ids: list[int] = []
    for token in generate.stream(lm, prompt, max_new_tokens=room.tokens):
        ids.append(token)
        finish = "stop" if token in lm.template.stop_ids else "length"
        said = read(lm.template, generate.Reply(list(ids), finish, time.perf_counter() - start), room)
        yield said
        if said.tokens < len(ids):
            return


def full(
    template: Template, room: TokenBudget, stop_strings: Sequence[str] = ()
) -> Callable[[Sequence[int]], bool] | None:
    """Whether the answer in generated ids has all the tokens that it may have, or one of the `stop_strings`.

    None where there is no budget for thoughts: the token limit ends such a reply.
    """
    if not room.thinking:
        return None

    def over(ids: Sequence[int]) -> bool:
        if len(ids) % CHECK_EVERY or (len(ids) < room.answer and not stop_strings):
            return False
        found = template.parse_reply(ids)
        complete = any(end in found.text for end in stop_strings)
        return not found.thinking and (complete or len(ids) - template.answer_start(ids) >= room.answer)

    return over


def read(template: Template, reply: generate.Reply, room: TokenBudget) -> Answer:
    """A reply, its thoughts apart and its answer no longer than it may be."""
    ids, finish = reply.ids, reply.finish
    found = template.parse_reply(ids)
    start = template.answer_start(ids)
    if room.thinking and not found.thinking and len(ids) - start > room.answer:
        ids, finish = ids[: start + room.answer], "length"
        found = template.parse_reply(ids)
    if found.thinking:
        return Answer("", found.thoughts, THINKING, len(ids), len(ids), reply.seconds)
    return Answer(found.text, found.thoughts, finish, len(ids), start, reply.seconds, found.called)
