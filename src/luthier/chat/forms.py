"""Messages in the form in which templates take them: dictionaries, as transformers passes them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.chat.conversation import Message, ToolCall
from luthier.chat.rendering import Dict

MARK = re.compile("\ue000(\\d+)\ue001")
Arguments = Literal["object", "text"]
Silent = Literal["missing", "empty", "none"]


@dataclass(frozen=True)
class Form:
    """What not all templates take alike."""

    parts: bool = False
    """A content is a list of parts, `[{"type": "text", "text": …}]`."""
    arguments: Arguments = "object"
    """A call's arguments are an object, or its JSON text."""
    silent: Silent = "missing"
    """What the content of a message is that only calls."""


def as_dicts(messages: Sequence[Message], form: Form) -> list[Dict]:
    """The messages as templates get them. What a message does not have is left out; calls get ids where the data has none."""
    told: list[Dict] = []
    open_calls: list[str] = []
    for number, message in enumerate(messages):
        calls = [_call(call, f"call{number:02}{place:03}", form) for place, call in enumerate(message.tool_calls)]
        open_calls = [str(call["id"]) for call in calls] or open_calls
        one: Dict = {"role": message.role, "content": _content(message, form)}
        if message.reasoning is not None:
            one |= {
                "reasoning_content": message.reasoning,
                "thinking": message.reasoning,
                "reasoning": message.reasoning,
            }
        if calls:
            one["tool_calls"] = calls
            if not message.content and form.silent == "missing":
                del one["content"]
        if message.name is not None:
            one["name"] = message.name
        if message.role == "tool":
            one["tool_call_id"] = message.tool_call_id or (open_calls.pop(0) if open_calls else "call00000")
        told.append(one)
    return told


def _content(message: Message, form: Form) -> object:
    if message.tool_calls and not message.content and form.silent == "none":
        return None
    return [{"type": "text", "text": message.content}] if form.parts else message.content


def _call(call: ToolCall, id: str, form: Form) -> Dict:
    arguments: object = call.arguments
    if form.arguments == "object":
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            arguments = call.arguments
    return {"type": "function", "id": call.id or id, "function": {"name": call.name, "arguments": arguments}}


def mark(number: int) -> str:
    """A content that no template writes by itself."""
    return f"\ue000{number}\ue001"


Kind = tuple[str, bool]
"""A message's role, and whether it calls functions."""


def kinds(messages: Sequence[Message]) -> tuple[Kind, ...]:
    """What of messages decides in which form a template shows them."""
    return tuple((message.role, bool(message.tool_calls)) for message in messages)


def marked(wanted: Sequence[Kind]) -> list[Message]:
    """Messages of these kinds, with marks for contents and for the arguments of calls."""
    return [
        Message(role, "", tool_calls=(ToolCall("call", json.dumps({"value": mark(number)}, ensure_ascii=False)),))  # type: ignore[arg-type]
        if calls
        else Message(role, mark(number), name="call" if role == "tool" else None)  # type: ignore[arg-type]
        for number, (role, calls) in enumerate(wanted)
    ]


def shown(text: str) -> list[int]:
    """Numbers of the marks in a rendering, in their order."""
    return [int(number) for number in MARK.findall(text)]
