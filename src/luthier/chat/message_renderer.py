"""Messages as a template takes them: which it shows where, in which form, and what it says when it refuses them."""

import json
from collections.abc import Sequence
from dataclasses import replace

from luthier.chat import thinking
from luthier.chat.conversation import Message
from luthier.chat.loss_spans import AnswerRendering
from luthier.chat.message_dicts import as_dicts
from luthier.chat.placeholders import placeholder
from luthier.chat.probing import TemplateBehaviour
from luthier.chat.rendering import Dict, Renderer, TemplateRefusal
from luthier.errors import UserError


class MessageRenderer:
    """One template's renderings of messages. `name` is the `where` of its errors."""

    def __init__(self, renderer: Renderer, behaviour: TemplateBehaviour, name: str) -> None:
        self._renderer, self.behaviour, self._name = renderer, behaviour, name

    def render_answer(self, messages: Sequence[Message], tools: list[Dict]) -> AnswerRendering:
        """One answer, the last of the messages, as the template asks for it and shows it."""
        prepared = self.prepare(messages[:-1])
        prompt = self.render(prepared, tools, add_generation_prompt=True)
        answer = self.split_thoughts(messages[-1])
        if self.behaviour.reply_format.is_closed_in(prompt):
            answer = replace(answer, reasoning=None)  # this prompt asks for an answer without thoughts
        answered = [*prepared, answer]
        self._expect_shown(answered, add_generation_prompt=False)
        with_answer = self.render(answered, tools, add_generation_prompt=False)
        if with_answer.startswith(prompt):
            return AnswerRendering(prompt, with_answer)
        before, after = self._around_content(answered, tools)
        return AnswerRendering(prompt, with_answer, before, after, answered[-1].reasoning or "")

    def _around_content(self, messages: Sequence[Message], tools: list[Dict]) -> tuple[str, str]:
        """What the template writes before and behind the last message's content."""
        text = self.render(
            [*messages[:-1], replace(messages[-1], content=placeholder(0))], tools, add_generation_prompt=False
        )
        parts = text.split(placeholder(0))
        return (parts[0], parts[1]) if len(parts) == 2 else ("", "")

    def prepare(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template can show them: with the system message in its place, or in the first user message."""
        messages = [self.split_thoughts(message) for message in messages]
        if (
            messages
            and messages[0].role == "system"
            and self.behaviour.first_misrendered(messages, add_generation_prompt=True)
        ):
            first = next((number for number, message in enumerate(messages) if message.role == "user"), None)
            if first is None:
                raise UserError(
                    "the chat template has no place for a system message, and there is no user message that it could open.",
                    where=self._name,
                )
            opening = f"{messages[0].content}\n\n{messages[first].content}"
            messages[first] = replace(messages[first], content=opening)
            messages = messages[1:]
        self._expect_shown(messages, add_generation_prompt=True)
        return messages

    def split_thoughts(self, message: Message) -> Message:
        """An answer with its thoughts apart, where the template knows what to do with them."""
        if (
            message.role != "assistant"
            or message.reasoning is not None
            or not self.behaviour.reply_format.writes_thoughts
        ):
            return message
        parts = thinking.split_thoughts(message.content, self.behaviour.reply_format.tags)
        return replace(message, reasoning=parts[0], content=parts[1]) if parts else message

    def _expect_shown(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> None:
        """Refuses messages that the template refuses, hides or shows more than once."""
        wrong = self.behaviour.first_misrendered(messages, add_generation_prompt=add_generation_prompt)
        if wrong is None:
            return
        # Raises the template's own message, if it refuses.
        self.render(messages, [], add_generation_prompt=add_generation_prompt)
        number, count = wrong
        which = f"message {number + 1} of {len(messages)} ({messages[number].role})"
        raise UserError(
            (f"the chat template shows {which} {count} times" if count else f"the chat template does not show {which}")
            + "; a loss mask needs a template that shows each message once. Leave such messages out, or use a "
            "model with a plainer template.",
            where=self._name,
        )

    def render(self, messages: Sequence[Message], tools: list[Dict], *, add_generation_prompt: bool) -> str:
        try:
            dicts = as_dicts(messages, self.behaviour.message_format)
            return self._renderer.render(dicts, tools, add_generation_prompt=add_generation_prompt)
        except TemplateRefusal as words:
            raise self._refused(messages, tools, words) from None

    def _refused(self, messages: Sequence[Message], tools: list[Dict], words: TemplateRefusal) -> UserError:
        """Which message a template refuses, and what it says."""
        taken = 0
        for count in range(len(messages) - 1, 0, -1):
            try:
                self._renderer.render(
                    as_dicts(messages[:count], self.behaviour.message_format), tools, add_generation_prompt=False
                )
            except TemplateRefusal:
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

    def parse_tools(self, tools: Sequence[str]) -> list[Dict]:
        if tools and not self.behaviour.shows_tools:
            raise UserError(
                "the chat template does not show definitions of tools; use a model whose template does, or leave them out.",
                where=self._name,
            )
        return [json.loads(tool) for tool in tools]
