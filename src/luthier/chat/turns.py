"""Messages as a template takes them: which it shows where, in which form, and what it says when it refuses them."""

import json
from collections.abc import Sequence
from dataclasses import replace

from luthier.chat import spans, thoughts
from luthier.chat.conversation import Message
from luthier.chat.forms import as_dicts, mark
from luthier.chat.habits import Habits
from luthier.chat.rendering import Dict, Refusal, Renderer
from luthier.errors import UserError


class Turns:
    """One template's renderings of messages. `name` is where its errors are told to be."""

    def __init__(self, renderer: Renderer, habits: Habits, name: str) -> None:
        self._renderer, self.habits, self._name = renderer, habits, name

    def turn(self, messages: Sequence[Message], tools: list[Dict]) -> spans.Turn:
        """One answer, the last of the messages, as the template asks for it and shows it."""
        settled = self.settled(messages[:-1])
        prompt = self.text(settled, tools, ask=True)
        answer = self.parted(messages[-1])
        if self.habits.manner.closed(prompt):
            answer = replace(answer, reasoning=None)  # this prompt asks for an answer without thoughts
        answered = [*settled, answer]
        self._expect_shown(answered, ask=False)
        upto = self.text(answered, tools, ask=False)
        if upto.startswith(prompt):
            return spans.Turn(prompt, upto)
        before, after = self._around(answered, tools)
        return spans.Turn(prompt, upto, before, after, answered[-1].reasoning or "")

    def _around(self, messages: Sequence[Message], tools: list[Dict]) -> tuple[str, str]:
        """What the template writes before and behind the last message's content."""
        text = self.text([*messages[:-1], replace(messages[-1], content=mark(0))], tools, ask=False)
        parts = text.split(mark(0))
        return (parts[0], parts[1]) if len(parts) == 2 else ("", "")

    def settled(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template can show them: with the system message in its place, or in the first user message."""
        messages = [self.parted(message) for message in messages]
        if messages and messages[0].role == "system" and self.habits.hidden(messages, ask=True):
            first = next((number for number, message in enumerate(messages) if message.role == "user"), None)
            if first is None:
                raise UserError(
                    "the chat template has no place for a system message, and there is no user message that it could open.",
                    where=self._name,
                )
            opening = f"{messages[0].content}\n\n{messages[first].content}"
            messages[first] = replace(messages[first], content=opening)
            messages = messages[1:]
        self._expect_shown(messages, ask=True)
        return messages

    def parted(self, message: Message) -> Message:
        """An answer with its thoughts apart, where the template knows what to do with them."""
        if message.role != "assistant" or message.reasoning is not None or not self.habits.manner.knows:
            return message
        parts = thoughts.split(message.content, self.habits.manner.tags)
        return replace(message, reasoning=parts[0], content=parts[1]) if parts else message

    def _expect_shown(self, messages: Sequence[Message], *, ask: bool) -> None:
        """Refuses messages that the template refuses, hides or shows more than once."""
        wrong = self.habits.hidden(messages, ask=ask)
        if wrong is None:
            return
        self.text(messages, [], ask=ask)  # what the template refuses, it says in its own words
        number, count = wrong
        which = f"message {number + 1} of {len(messages)} ({messages[number].role})"
        raise UserError(
            (f"the chat template shows {which} {count} times" if count else f"the chat template does not show {which}")
            + "; what is to be learnt can be told only where it shows each message once. Leave such messages out, or use a "
            "model with a plainer template.",
            where=self._name,
        )

    def text(self, messages: Sequence[Message], tools: list[Dict], *, ask: bool) -> str:
        try:
            return self._renderer.text(as_dicts(messages, self.habits.form), tools, ask=ask)
        except Refusal as words:
            raise self._refused(messages, tools, words) from None

    def _refused(self, messages: Sequence[Message], tools: list[Dict], words: Refusal) -> UserError:
        """Which message a template refuses, and what it says."""
        taken = 0
        for count in range(len(messages) - 1, 0, -1):
            try:
                self._renderer.text(as_dicts(messages[:count], self.habits.form), tools, ask=False)
            except Refusal:
                continue
            taken = count
            break
        roles = [message.role for message in messages]
        behind = f" behind {' and '.join(roles[max(0, taken - 2) : taken])}" if taken else ""
        return UserError(
            f"the chat template refuses message {taken + 1} of {len(roles)} ({roles[taken]}{behind}): "
            f'"{str(words).rstrip(".")}". Change the messages, or use a model whose template takes them.',
            where=self._name,
        )

    def tools(self, tools: Sequence[str]) -> list[Dict]:
        if tools and not self.habits.shows_tools:
            raise UserError(
                "the chat template does not show definitions of tools; use a model whose template does, or leave them out.",
                where=self._name,
            )
        return [json.loads(tool) for tool in tools]
