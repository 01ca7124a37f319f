"""Messages whose contents are placeholders: where these stand in a rendering tells what a template does with messages."""

import json
import re
from collections.abc import Sequence

from luthier.chat.conversation import Message, Role, ToolCall

PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")


def placeholder(number: int) -> str:
    """A content that no template writes by itself, and that is found again in its rendering."""
    return f"\ue000{number}\ue001"


MessageKind = tuple[Role, bool]
"""A message's role, and whether it calls functions."""


def kinds_of(messages: Sequence[Message]) -> tuple[MessageKind, ...]:
    """What of messages decides how a template shows them."""
    return tuple((message.role, bool(message.tool_calls)) for message in messages)


def placeholder_messages(wanted: Sequence[MessageKind]) -> list[Message]:
    """Messages of these kinds, with placeholders for contents and for the arguments of calls."""
    return [_placeholder_message(number, role, calls) for number, (role, calls) in enumerate(wanted)]


def _placeholder_message(number: int, role: Role, calls: bool) -> Message:
    if calls:
        arguments = json.dumps({"value": placeholder(number)}, ensure_ascii=False)
        return Message(role, "", tool_calls=(ToolCall("call", arguments),))
    return Message(role, placeholder(number), name="call" if role == "tool" else None)


def placeholders_in(text: str) -> list[int]:
    """Numbers of the placeholders in a rendering, in their order."""
    return [int(number) for number in PLACEHOLDER.findall(text)]
