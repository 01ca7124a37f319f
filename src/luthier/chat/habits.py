"""What a template does, found by trying it on messages whose contents are marks."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from luthier.chat.conversation import Message
from luthier.chat.rendering import Dict, Refusal, Renderer
from luthier.chat.spans import Control, common
from luthier.chat.thoughts import KNOWN, TAG, Manner, Tags, opened

MARK = re.compile("\ue000(\\d+)\ue001")


def mark(number: int) -> str:
    """A content that no template writes by itself."""
    return f"\ue000{number}\ue001"


@dataclass(frozen=True)
class Style:
    """The form in which a template takes what not all take alike."""

    parts: bool = False
    """A content is a list of parts, `[{"type": "text", "text": …}]`."""
    arguments_as_text: bool = False
    """A call's arguments are JSON text and no object."""


def as_dict(message: Message, style: Style) -> Dict:
    """A message as templates get it; what it does not have is left out."""
    content: object = [{"type": "text", "text": message.content}] if style.parts else message.content
    told: Dict = {"role": message.role, "content": content}
    if message.reasoning is not None:
        told |= {"reasoning_content": message.reasoning, "thinking": message.reasoning, "reasoning": message.reasoning}
    if message.tool_calls:
        told["tool_calls"] = [
            {
                "type": "function",
                "id": call.id or f"call{number:05}",
                "function": {
                    "name": call.name,
                    "arguments": call.arguments if style.arguments_as_text else _object(call.arguments),
                },
            }
            for number, call in enumerate(message.tool_calls)
        ]
        if not message.content:
            told["content"] = ""
    if message.name is not None:
        told["name"] = message.name
    if message.tool_call_id is not None:
        told["tool_call_id"] = message.tool_call_id
    return told


def _object(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def marked(roles: Sequence[str]) -> list[Message]:
    """Messages with these roles and marks for contents."""
    return [Message(role, mark(number)) for number, role in enumerate(roles)]  # type: ignore[arg-type]


def shown(text: str) -> list[int]:
    """Numbers of the marks in a rendering, in their order."""
    return [int(number) for number in MARK.findall(text)]


class Habits:
    """The answers to what has to be known of a template before it renders anything real."""

    def __init__(self, renderer: Renderer, control: Control) -> None:
        self._renderer, self._control = renderer, control
        self.style = Style()
        if shown(self._try(["user"], ask=True) or "") != [0]:
            self.style = Style(parts=True)
            if shown(self._try(["user"], ask=True) or "") != [0]:
                self.style = Style()
        self.folds_system = not self._takes_system()
        self.manner = self._manner()
        self.ends = frozenset(self._ends())

    def _try(self, roles: Sequence[str], *, ask: bool, reasoning: str | None = None) -> str | None:
        messages = marked(roles)
        if reasoning is not None:
            messages[-1] = replace(messages[-1], reasoning=reasoning)
        try:
            return self._renderer.text([as_dict(message, self.style) for message in messages], ask=ask)
        except Refusal:
            return None

    def _takes_system(self) -> bool:
        text = self._try(["system", "user"], ask=True)
        return text is not None and sorted(shown(text)) == [0, 1]

    def _ends(self) -> Iterator[str]:
        """The first control token behind an answer, at the end and before another turn."""
        text = self._try(["user", "assistant", "user", "assistant"], ask=False)
        last = 3
        if text is None or not {1, 2, 3} <= set(shown(text)):
            text, last = self._try(["user", "assistant"], ask=False), 1
        if text is None:
            return
        if end := self._control.search(text, text.rfind(mark(last)) + 1):
            yield end.group()
        if last == 3:
            inner = self._control.search(text, text.find(mark(1)), text.rfind(mark(2)))
            if inner and inner.group() not in self._thought_text:
                yield inner.group()

    def _manner(self) -> Manner:
        """How replies begin: from an answer without thoughts, and one with them."""
        self._thought_text = ""
        prompt = self._try(["user"], ask=True)
        plain = self._try(["user", "assistant"], ask=False)
        if prompt is None or plain is None or mark(1) not in plain:
            return Manner()
        header = plain[len(prompt) : plain.find(mark(1))] if plain.startswith(prompt) else ""
        tags, knows = self._tags(prompt, header)
        open_now = opened(prompt)
        if open_now and not knows:
            tags, knows = open_now, True
        behind = self._thought_text.strip()
        return Manner(
            tags, behind, header, opens=bool(open_now), closes=prompt.rstrip().endswith(tags.close), knows=knows
        )

    def _tags(self, prompt: str, header: str) -> tuple[Tags, bool]:
        text = self._try(["user", "assistant"], ask=False, reasoning=mark(7)) or ""
        if shown(text)[-2:] != [7, 1]:
            known = next((tags for tags in KNOWN if tags.close in self._renderer.source), None)
            return known or KNOWN[0], known is not None
        start, end, answer = text.find(mark(7)), text.find(mark(7)) + len(mark(7)), text.find(mark(1))
        self._thought_text = text[end:answer]
        before = text[len(prompt) if text.startswith(prompt) else common(prompt, text, self._control) : start]
        between = text[end:answer]
        size = 0
        while size < min(len(header), len(between)) and header[-size - 1] == between[-size - 1]:
            size += 1
        close = between[len(between) - size :].strip()
        if not (self._control.search(close) or TAG.search(close)):
            close = between.strip()
        asked = opened(prompt)
        return Tags(before.strip() or (asked.open if asked else "<think>"), close or "</think>"), True
