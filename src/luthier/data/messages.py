"""Lists of chat messages, as the tools of this world write them, to conversations."""

from collections.abc import Mapping
from dataclasses import replace

from luthier.chat import Conversation, Message, Role
from luthier.data import tool_messages
from luthier.data.readers.values import JSONFault, Value, as_text, decode_only

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
LOSS_KEYS = {"weight": ("1", "1.0", "0", "0.0"), "train": ("true", "1", "false", "0")}
"""Where an assistant's message says whether it is learnt, and the words for yes (the first two) and no."""
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Where tools write the assistant's thoughts, beside its answer."""
THOUGHT_PARTS = {"thinking": "thinking", "reasoning": "text"}
"""The same where a content is a list of parts: the type of such a part, and the key of its text."""


class Unfit(Exception):
    """A row that cannot become a conversation: the reason, in the words of the ledger."""


def chat(value: Value) -> Conversation:
    """A list of messages, in the spelling of OpenAI (role, content) or ShareGPT (from, value), also as JSON text."""
    if isinstance(value, str):
        try:
            value = decode_only(value)
        except JSONFault:
            raise Unfit("messages are not a list") from None
    if not isinstance(value, list):
        raise Unfit("messages are not a list")
    messages: list[Message] = []
    for item in (each for written in value for each in tool_messages.as_openai(written)):
        message = _message(item)
        if _is_call_turn(item) and messages and messages[-1].role == "assistant":
            before = messages.pop()  # its words, or other calls at the same time
            message = replace(before, tool_calls=(*before.tool_calls, *message.tool_calls))
        if message.role != "system" or message.content.strip():
            messages.append(message)
    return Conversation(tuple(messages))


def plain_chat(value: Value) -> tuple[Message, ...] | None:
    """What `chat` makes of messages with a known role and a text each and nothing else; None where it has to look closer.

    Nearly all chats are so, and each of their rows takes a fifth of the time.
    """
    if type(value) is not list:
        return None
    messages = []
    for item in value:
        if type(item) is not dict or len(item) != 2:
            return None
        word, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
        role = ROLES.get(word) if type(word) is str else None
        if role is None or type(content) is not str:
            return None
        if role != "system" or (not content.isspace() and content):
            messages.append(Message(role, content))
    return tuple(messages) or None


def _message(item: Value) -> Message:
    if not isinstance(item, dict):
        raise Unfit("a message is not an object")
    word = _role(item)
    if word in tool_messages.CALL_ROLES:
        return Message("assistant", "", tool_calls=tool_messages.calls_in(_said(item)), in_loss=_is_in_loss(item))
    if word in tool_messages.RESULT_ROLES:
        name, call = (as_text(item.get(key)) or None for key in ("name", "tool_call_id"))
        return Message("tool", _content(_said(item)), name=name, tool_call_id=call)
    if ROLES[word] != "assistant":
        return Message(ROLES[word], _content(_said(item)))
    calls = tool_messages.calls(item)
    answer, thoughts = _apart(None if calls and not ({"content", "value"} & item.keys()) else _said(item))
    thoughts += [as_text(item[key]) for key in THOUGHT_KEYS if item.get(key)]
    reasoning = "\n\n".join(dict.fromkeys(text for text in thoughts if text.strip()))
    return Message(
        "assistant", _content(answer), reasoning=reasoning or None, tool_calls=calls, in_loss=_is_in_loss(item)
    )


def _role(item: Mapping[str, Value]) -> str:
    """Who speaks, in lower case: one of the words that are known."""
    word = item.get("role", item.get("from"))
    if not isinstance(word, str):
        raise Unfit("a message without a role")
    if word.lower() not in ROLES.keys() | tool_messages.CALL_ROLES | tool_messages.RESULT_ROLES:
        raise Unfit(f'unknown role "{word[:40]}"')
    return word.lower()


def _is_call_turn(item: Value) -> bool:
    return isinstance(item, dict) and _role(item) in tool_messages.CALL_ROLES


def _said(item: Mapping[str, Value]) -> Value:
    if "content" not in item and "value" not in item:
        raise Unfit("a message without content")
    return item["content"] if "content" in item else item["value"]


def _is_in_loss(item: Mapping[str, Value]) -> bool:
    """Whether a loss is taken on an answer: not where its weight is 0."""
    for key, words in LOSS_KEYS.items():
        word = as_text(item.get(key)).lower()
        if word and word not in words:
            raise Unfit(
                f"an answer with {key} {word[:20]}, where {words[0]} (learnt) and {words[2]} (not learnt) are known"
            )
        if word in words[2:]:
            return False
    return True


def _apart(value: Value) -> tuple[Value, list[str]]:
    """An assistant's content without the parts that are its thoughts, and these."""
    if not isinstance(value, list):
        return value, []
    rest: list[Value] = []
    thoughts: list[str] = []
    for part in value:
        key = THOUGHT_PARTS.get(as_text(part.get("type"))) if isinstance(part, dict) else None
        if isinstance(part, dict) and key:
            thoughts.append(as_text(part.get(key)))
        else:
            rest.append(part)
    return rest, thoughts


def _content(value: Value) -> str:
    """A message's text; a list of parts is joined where all of them are text."""
    if not isinstance(value, list):
        return as_text(value)
    texts = []
    for part in value:
        if isinstance(part, dict) and "image" in as_text(part.get("type")):
            raise Unfit("it needs a picture")
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Unfit("a content part that is not text")
        texts.append(as_text(part["text"]))
    return "".join(texts)
