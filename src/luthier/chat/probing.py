"""What a template does, found by trying it on messages whose contents are placeholders."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import get_args

from luthier.chat.call_format import EXAMPLE, OTHER_EXAMPLE, VALUES, CallFormat, find_format
from luthier.chat.conversation import Message, ToolCall
from luthier.chat.loss_spans import Control, common_prefix, control_tokens_after, count_equal
from luthier.chat.message_dicts import Arguments, EmptyContent, MessageFormat, as_dicts
from luthier.chat.placeholders import (
    PLACEHOLDER,
    MessageKind,
    kinds_of,
    placeholder,
    placeholder_messages,
    placeholders_in,
)
from luthier.chat.rendering import Dict, Renderer, TemplateRefusal
from luthier.chat.thinking import ANY_TAG, KNOWN_TAGS, ReplyFormat, ThinkingTags, open_tags

USER: MessageKind = ("user", False)
ANSWER: MessageKind = ("assistant", False)
CALL: MessageKind = ("assistant", True)
RESULT: MessageKind = ("tool", False)
PROBE_TOOL: Dict = {
    "type": "function",
    "function": {
        "name": "call",
        "description": placeholder(0),
        "parameters": {"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]},
    },
}


class TemplateBehaviour:
    """The answers to what has to be known of a template before it renders anything real."""

    def __init__(self, renderer: Renderer, control: Control) -> None:
        self._renderer, self._control = renderer, control
        self._thought_text = ""
        self._misrendered: dict[tuple[tuple[MessageKind, ...], bool], tuple[int, int] | None] = {}
        self.message_format = MessageFormat()
        if placeholders_in(self._render([USER], add_generation_prompt=True) or "") != [0]:
            self.message_format = MessageFormat(content_parts=True)
            if placeholders_in(self._render([USER], add_generation_prompt=True) or "") != [0]:
                self.message_format = MessageFormat()
        self._find_call_format()
        self.merges_system_message = not self._has_system_role()
        self.reply_format = self._find_reply_format()
        self.end_tokens = frozenset(self._find_end_tokens())

    def first_misrendered(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> tuple[int, int] | None:
        """The first of such messages that the template does not show once, and how often it does; None if there is none.

        A system message may be left out behind an answer: some templates show it where they ask only.
        """
        wanted = kinds_of(messages)
        if (wanted, add_generation_prompt) not in self._misrendered:
            found = Counter(placeholders_in(self._render(wanted, add_generation_prompt=add_generation_prompt) or ""))
            needed = {number for number, (role, _) in enumerate(wanted) if add_generation_prompt or role != "system"}
            wrong = (
                (one, found[one]) for one in range(len(wanted)) if found[one] > 1 or (one in needed and not found[one])
            )
            self._misrendered[wanted, add_generation_prompt] = next(wrong, None)
        return self._misrendered[wanted, add_generation_prompt]

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the template shows definitions of functions."""
        try:
            text = self._renderer.render(
                as_dicts([Message("user", placeholder(1))], self.message_format),
                [PROBE_TOOL],
                add_generation_prompt=True,
            )
        except TemplateRefusal:
            return False
        return 0 in placeholders_in(text)

    @cached_property
    def shows_calls(self) -> bool:
        """Whether the template shows the assistant's calls, and what the functions gave back."""
        kinds = [USER, CALL, RESULT]
        return (
            self.first_misrendered(placeholder_messages(kinds[:2]), add_generation_prompt=False) is None
            and self.first_misrendered(placeholder_messages(kinds), add_generation_prompt=True) is None
        )

    @cached_property
    def call_format(self) -> CallFormat | None:
        """The form in which calls are written, to read replies by; None where there is none or it cannot be read."""
        one, two = (self.written_calls((EXAMPLE,) * count) for count in (1, 2))
        two = two if two and two.count(VALUES[0]) == 2 else None
        other = self.written_calls((OTHER_EXAMPLE,))
        return find_format(one, two, other) if one and one.count(VALUES[0]) == 1 else None

    def written_calls(self, calls: tuple[ToolCall, ...]) -> str | None:
        """What the template writes behind the prompt where these calls answer; None where it refuses them."""
        question = placeholder_messages([USER])[0]
        try:
            prompt, text = (
                self._renderer.render(as_dicts(messages, self.message_format), add_generation_prompt=asks)
                for messages, asks in (
                    ([question], True),
                    ([question, Message("assistant", "", tool_calls=calls)], False),
                )
            )
        except TemplateRefusal:
            return None
        text = text[common_prefix(prompt, text, self._control) :]
        text = text.rstrip()
        while end := next((end for end in self.end_tokens if text.endswith(end)), None):
            text = text.removesuffix(end).rstrip()
        return text

    def _render(
        self, wanted: Sequence[MessageKind], *, add_generation_prompt: bool, reasoning: str | None = None
    ) -> str | None:
        messages = placeholder_messages(wanted)
        if reasoning is not None:
            messages[-1] = replace(messages[-1], reasoning=reasoning)
        try:
            return self._renderer.render(
                as_dicts(messages, self.message_format), add_generation_prompt=add_generation_prompt
            )
        except TemplateRefusal:
            return None

    def _find_call_format(self) -> None:
        """The form in which the template takes calls, if it shows any."""
        plain = self.message_format
        for arguments in get_args(Arguments):
            for empty_content in get_args(EmptyContent):
                self.message_format = replace(plain, arguments=arguments, empty_content=empty_content)
                text = self._render([USER, CALL], add_generation_prompt=False) or ""
                # Python's own quotes, or JSON inside JSON, show that it expected the other form.
                if placeholders_in(text) == [0, 1] and "'value'" not in text and '\\"value' not in text:
                    return
        self.message_format = plain

    def _has_system_role(self) -> bool:
        text = self._render([("system", False), USER], add_generation_prompt=True)
        return text is not None and sorted(placeholders_in(text)) == [0, 1]

    def _find_end_tokens(self) -> Iterator[str]:
        """What ends an answer: of the control tokens behind it the last one that follows it in every turn.

        Where a template ends earlier turns otherwise than the last one, both ends; but none that also ends a thought.
        """
        text = self._render([USER, ANSWER, USER, ANSWER], add_generation_prompt=False)
        if text is None or not {1, 2, 3} <= set(placeholders_in(text)):
            text = self._render([USER, ANSWER], add_generation_prompt=False)
            yield from self._control_tokens_after(text, 1)[:1] if text else ()
            return
        earlier = self._control_tokens_after(text[: text.rfind(placeholder(2))], 1)
        last = self._control_tokens_after(text, 3)
        if shared := count_equal(earlier, last):
            yield last[shared - 1]
            return
        yield from last[:1]
        yield from (end for end in earlier[:1] if end not in self._thought_text)

    @cached_property
    def example(self) -> str:
        """A question and its answer, without contents."""
        return PLACEHOLDER.sub("", self._render([USER, ANSWER], add_generation_prompt=False) or "")

    @cached_property
    def textual_end(self) -> str:
        """The word that follows an answer where no control token does."""
        text = self._render([USER, ANSWER], add_generation_prompt=False) or ""
        behind = text[text.rfind(placeholder(1)) + len(placeholder(1)) :] if placeholder(1) in text else ""
        return "" if self._control.search(behind) or not behind.strip() else behind.split()[0]

    def _control_tokens_after(self, text: str, number: int) -> list[str]:
        """Control tokens behind the first one that follows an answer, itself included."""
        first = self._control.search(text, text.rfind(placeholder(number)) + len(placeholder(number)))
        return [found.group() for found in control_tokens_after(text, first.start(), self._control)] if first else []

    def _find_reply_format(self) -> ReplyFormat:
        """How replies begin: from an answer without thoughts, and one with them."""
        prompt, plain = (
            self._render([USER], add_generation_prompt=True),
            self._render([USER, ANSWER], add_generation_prompt=False),
        )
        if prompt is None or plain is None or placeholder(1) not in plain:
            return ReplyFormat()
        header = plain[len(prompt) : plain.find(placeholder(1))] if plain.startswith(prompt) else ""
        tags, knows = self._find_tags(prompt, header)
        open_now = open_tags(prompt)
        if open_now and not knows:
            tags, knows = open_now, True
        behind = self._thought_text.strip()
        closes = prompt.rstrip().endswith(tags.close)
        return ReplyFormat(
            tags, behind, header, prompt_opens=bool(open_now), prompt_closes=closes, writes_thoughts=knows
        )

    def _find_tags(self, prompt: str, header: str) -> tuple[ThinkingTags, bool]:
        text = self._render([USER, ANSWER], add_generation_prompt=False, reasoning=placeholder(7)) or ""
        if placeholders_in(text)[-2:] != [7, 1]:
            known = next((tags for tags in KNOWN_TAGS if tags.close in self._renderer.source), None)
            return known or KNOWN_TAGS[0], known is not None
        start, end, answer = (
            text.find(placeholder(7)),
            text.find(placeholder(7)) + len(placeholder(7)),
            text.find(placeholder(1)),
        )
        before = text[len(prompt) if text.startswith(prompt) else common_prefix(prompt, text, self._control) : start]
        between = self._thought_text = text[end:answer]
        close = between[len(between) - count_equal(header[::-1], between[::-1]) :].strip()
        if not (self._control.search(close) or ANY_TAG.search(close)):
            close = between.strip()
        asked = open_tags(prompt)
        return ThinkingTags(before.strip() or (asked.open if asked else "<think>"), close or "</think>"), True
