"""Messages as templates take them: dictionaries, as transformers passes them to Jinja."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.chat.conversation import Message, ToolCall
from luthier.chat.rendering import Dict

Arguments = Literal["object", "text"]
EmptyContent = Literal["missing", "empty", "none"]


@dataclass(frozen=True)
class MessageFormat:
    """In which form a template takes messages, where templates differ; `probing` finds it out."""

    content_parts: bool = False
    """A content is a list of parts, `[{"type": "text", "text": …}]`."""
    arguments: Arguments = "object"
    """A call's arguments are an object, or its JSON text."""
    empty_content: EmptyContent = "missing"
    """What the content of a message is that only calls functions."""


def as_dicts(messages: Sequence[Message], message_format: MessageFormat) -> list[Dict]:
    """The messages as templates get them. What a message does not have is left out; calls get ids where the data has none."""
    dicts: list[Dict] = []
    open_calls: list[str] = []
    for number, message in enumerate(messages):
        calls = [
            _call(call, f"call{number:02}{index:03}", message_format) for index, call in enumerate(message.tool_calls)
        ]
        open_calls = [str(call["id"]) for call in calls] or open_calls
        one: Dict = {"role": message.role, "content": _content(message, message_format)}
        if message.reasoning is not None:
            one |= {
                "reasoning_content": message.reasoning,
                "thinking": message.reasoning,
                "reasoning": message.reasoning,
            }
        if calls:
            one["tool_calls"] = calls
            if not message.content and message_format.empty_content == "missing":
                del one["content"]
        if message.name is not None:
            one["name"] = message.name
        if message.role == "tool":
            one["tool_call_id"] = message.tool_call_id or (open_calls.pop(0) if open_calls else "call00000")
        dicts.append(one)
    return dicts


def _content(message: Message, message_format: MessageFormat) -> object:
    if message.tool_calls and not message.content and message_format.empty_content == "none":
        return None
    return [{"type": "text", "text": message.content}] if message_format.content_parts else message.content


def _call(call: ToolCall, id: str, message_format: MessageFormat) -> Dict:
    arguments: object = call.arguments
    if message_format.arguments == "object":
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            arguments = call.arguments
    return {"type": "function", "id": call.id or id, "function": {"name": call.name, "arguments": arguments}}
