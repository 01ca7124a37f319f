"""Lists of chat messages, as the tools of this world write them, to conversations."""

from luthier.chat import Conversation, Message, Role
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
TOOL_ROLES = {"tool", "function", "ipython", "observation", "function_call", "tool_call"}
TOOL_KEYS = ("tool_calls", "function_call")
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
    messages = [_message(item) for item in value]
    return Conversation(tuple(message for message in messages if message.role != "system" or message.content.strip()))


def _message(item: Value) -> Message:
    if not isinstance(item, dict):
        raise Unfit("a message is not an object")
    word = item.get("role", item.get("from"))
    if not isinstance(word, str):
        raise Unfit("a message without a role")
    if word.lower() in TOOL_ROLES or any(item.get(key) for key in TOOL_KEYS):
        raise Unfit("a tool call or a tool's answer")
    if word.lower() not in ROLES:
        raise Unfit(f'unknown role "{word[:40]}"')
    if "content" not in item and "value" not in item:
        raise Unfit("a message without content")
    if ROLES[word.lower()] == "assistant" and as_text(item.get("weight")) in ("0", "0.0"):
        raise Unfit("an answer with weight 0, which cannot be left unlearnt")
    value = item["content"] if "content" in item else item["value"]
    if ROLES[word.lower()] != "assistant":
        return Message(ROLES[word.lower()], _content(value))
    answer, thoughts = _apart(value)
    thoughts += [as_text(item[key]) for key in THOUGHT_KEYS if item.get(key)]
    reasoning = "\n\n".join(dict.fromkeys(text for text in thoughts if text.strip()))
    return Message("assistant", _content(answer), reasoning=reasoning or None)


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
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Unfit("a content part that is not text")
        texts.append(as_text(part["text"]))
    return "".join(texts)
