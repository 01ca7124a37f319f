"""Conversations: each remembers what was said, and the model answers piece by piece."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from luthier.chat import Message
from luthier.errors import UserError
from luthier.evaluate.answers.gguf_file import TooLong
from luthier.inference.gguf_model import GgufModel
from luthier.inference.question import ChatModel, expect_room
from luthier.model import replies, tuned
from luthier.model.replies import Answer


class ReplyPiece(NamedTuple):
    """Some more of a reply, of its thoughts or of its answer."""

    text: str
    thought: bool = False


@dataclass
class Chat:
    """A conversation with a model; `history` is what was said."""

    model: ChatModel | GgufModel
    max_new_tokens: int = 512
    activated: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    """Entered while the model answers: switches to the adapter that this conversation is with."""

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start afresh."""
        system = self.model.system
        self.history: list[Message] = [Message("system", system)] if system else []

    def say(self, text: str) -> Iterator[ReplyPiece]:
        """The reply, piece by piece; the oldest turns are dropped when the context is full.

        Raises a UserError for a message that does not fit even alone; the history is then as before.
        """
        before = list(self.history)
        self.history.append(Message("user", text))
        answer = None
        shown = {True: "", False: ""}
        try:
            for answer in self._answers(text):
                for thought, now in ((True, answer.thoughts or ""), (False, answer.text)):
                    # a character may need several tokens, and blanks at the end may turn out to be outer ones
                    if now.startswith(shown[thought]) and not now.endswith("\ufffd") and now != shown[thought]:
                        yield ReplyPiece(now[len(shown[thought]) :], thought)
                        shown[thought] = now
        except UserError:
            self.history = before
            raise
        if answer is not None:
            self.history.append(Message("assistant", answer.text, reasoning=answer.thoughts))

    def _answers(self, text: str) -> Iterator[Answer]:
        """What the model has said so far, after each piece; refuses a question that leaves no room for an answer."""
        if isinstance(self.model, GgufModel):
            yield from self._answers_of_file(self.model, text)
            return
        lm, room = self.model.lm, self.model.room(self.max_new_tokens)
        while len(prompt := lm.template.prompt(self.history)) + room.tokens > lm.context and self._drop_oldest():
            pass
        expect_room(lm, prompt, text)
        with self.activated():
            yield from replies.stream(lm, prompt, room)

    def _answers_of_file(self, model: GgufModel, text: str) -> Iterator[Answer]:
        """The same from llama.cpp, which counts the tokens of what is said."""
        while True:
            try:
                yield from model.endpoint.stream(
                    self.history, max_new_tokens=self.max_new_tokens + (model.thinking_tokens or 0)
                )
                return
            except TooLong:
                if not self._drop_oldest():
                    message = "the question alone fills the context that llama.cpp was opened with. Shorten it."
                    raise UserError(message, where=shorten(text, 60, placeholder="…")) from None

    def _drop_oldest(self) -> bool:
        """Forget the oldest question with its answer, if there is more than the last message."""
        head = [message for message in self.history if message.role == "system"]
        turns = self.history[len(head) :]
        if len(turns) > 1:
            self.history = [*head, *turns[2:]]
        return len(turns) > 1


def shared_chats(
    base: str, adapters: Mapping[str, Path], max_new_tokens: int, thinking_tokens: int | None = None
) -> dict[str, Chat]:
    """A conversation with each adapter and, by its own name, with the base: one model in memory, switched per question."""
    shared = tuned.load_shared(base, adapters, thinking_tokens)
    names: dict[str, str | None] = {Path(base).name: None, **{name: name for name in adapters}}
    return {
        name: Chat(
            ChatModel(shared.lm, shared.systems.get(adapter) if adapter else None, shared.thinking),
            max_new_tokens,
            partial(shared.using, adapter),
        )
        for name, adapter in sorted(names.items(), key=lambda pair: pair[1] is None)
    }
