"""Control tokens that people spell: letters without a meaning stand for them while a template is rendered."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from luthier.chat.conversation import Message
from luthier.chat.loss_spans import Control

FREE_LETTERS = range(0xF0000, 0x100000)


def escape_control_tokens(
    messages: Sequence[Message], tools: Sequence[str], control: Control, allowed: frozenset[str]
) -> tuple[list[Message], list[str], dict[str, str]]:
    """The messages and tools with a letter for each control token that is spelled in them, and what the letters stand for.

    In answers, and in thoughts, those that are `allowed` stay: models write them.
    """
    texts = [*tools, *(text for message in messages for text in _texts(message))]
    if not any(map(control.search, texts)):
        return list(messages), list(tools), {}
    taken = set("".join(texts))
    free = (chr(number) for number in FREE_LETTERS if chr(number) not in taken)
    letters: dict[str, str] = {}

    def escape(text: str, allowed: frozenset[str] = frozenset()) -> str:
        def letter(found: re.Match[str]) -> str:
            spelled = found.group()
            if spelled not in allowed and spelled not in letters:
                letters[spelled] = next(free)
            return spelled if spelled in allowed else letters[spelled]

        return control.sub(letter, text)

    safe = [
        replace(
            message,
            content=escape(message.content, allowed if message.role == "assistant" else frozenset()),
            reasoning=None if message.reasoning is None else escape(message.reasoning, allowed),
            tool_calls=tuple(
                replace(call, name=escape(call.name), arguments=escape(call.arguments)) for call in message.tool_calls
            ),
        )
        for message in messages
    ]
    return safe, [escape(tool) for tool in tools], {letter: spelled for spelled, letter in letters.items()}


def _texts(message: Message) -> Iterator[str]:
    yield message.content
    if message.reasoning:
        yield message.reasoning
    for call in message.tool_calls:
        yield call.name
        yield call.arguments
