"""Chats in the spellings of many tools → a list of messages as `luthier.data.messages` reads them.

role/content, from/value, sender/text and others; Gemini's parts; pairs of question and answer; texts that alternate; parallel
lists; each also as JSON or as Python prints it.
"""

import ast
import re

from luthier.data.messages import ROLES
from luthier.data.readers.values import JSONFault, Number, Value, decode_only
from luthier.data.tool_messages import CALL_ROLES, RESULT_ROLES

SPEAKER_KEYS = ("role", "from", "sender", "speaker", "author", "user_type", "name")
CONTENT_KEYS = ("content", "value", "text", "message", "body", "parts", "utterance", "msg")
ASKING = {
    "user", "human", "prompter", "customer", "client", "patient", "questioner", "question", "q", "asker", "student", "visitor",
    "caller", "requester", "end-user", "guest", "input", "prompt", "usr", "me", "you", "instruction", "query", "kunde",
}  # fmt: skip
ANSWERING = {
    "assistant", "gpt", "bot", "chatbot", "ai", "model", "agent", "doctor", "support", "a", "answer", "response", "operator",
    "advisor", "teacher", "tutor", "output", "completion", "chatgpt", "claude", "llm", "sys", "representative", "therapist",
    "counselor", "helper", "staff", "berater", "assistent", "bard", "gemini",
}  # fmt: skip
INSIDE = ("messages", "conversations", "conversation", "turns", "contents", "chat_messages", "items")
"""Keys of an object under which its list of messages stands."""
_ROWS_WITHOUT_COMMA = re.compile(r"(?<=\})\s*\n\s*(?=\{)")


def unspelled(value: Value) -> Value:
    """The list or object that a text spells, as JSON or as Python (and pandas) print it; any other value as it is."""
    if not isinstance(value, str) or isinstance(value, Number) or value.strip()[:1] not in ("[", "{"):
        return value
    try:
        return decode_only(value)
    except JSONFault:
        pass
    try:  # numpy prints the objects of a list without commas
        return _plain(ast.literal_eval(_ROWS_WITHOUT_COMMA.sub(", ", value.strip())))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value


def _plain(found: object) -> Value:
    """What Python's own literals are as values of a row."""
    if isinstance(found, list | tuple | set):
        return [_plain(item) for item in found]
    if isinstance(found, dict):
        return {str(name): _plain(item) for name, item in found.items()}
    if found is None or isinstance(found, bool | str | bytes):
        return found
    return Number(found)


def as_messages(value: Value) -> list[Value] | None:
    """The list of messages that the value spells, each with role and content; None where it is no chat."""
    value = unspelled(value)
    if isinstance(value, dict):
        inner = next((value[key] for key in INSIDE if isinstance(value.get(key), list)), None)
        if inner is not None:
            return as_messages(inner)
        return _parallel(value) or (as_messages([value]) if _is_message(value) else None)
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, dict) for item in value):
        objects = [item for item in value if isinstance(item, dict)]
        if all(_is_message(item) for item in objects):
            return _spoken(objects)
        return _pairs(objects)
    if all(isinstance(item, list) and len(item) == 2 and all(_is_text(part) for part in item) for item in value):
        texts = [part for item in value if isinstance(item, list) for part in item]
        return _alternating(texts)
    if len(value) > 1 and all(_is_text(item) for item in value):
        return _alternating(value)
    return None


def spoken(value: Value) -> list[Value] | None:
    """The messages of a chat whose speakers are written down; None for texts that only alternate, and for all else."""
    found = unspelled(value)
    listed = isinstance(found, list) and bool(found) and all(isinstance(item, dict) for item in found)
    return as_messages(found) if listed or isinstance(found, dict) else None


def sure_messages(value: Value) -> list[Value] | None:
    """The messages of a chat in OpenAI's or ShareGPT's spelling; None for other objects, such as answers in JSON."""
    found = unspelled(value)
    if isinstance(found, dict):
        inner = next((found[key] for key in INSIDE if isinstance(found.get(key), list)), None)
        found = [found] if inner is None else inner
    if not isinstance(found, list) or not found or not all(map(_is_sure, found)):
        return None
    return as_messages(found)


def _is_sure(item: Value) -> bool:
    if not isinstance(item, dict):
        return False
    for who, what in (("role", ("content", "parts", "tool_calls")), ("from", ("value",))):
        word = item.get(who)
        if isinstance(word, str) and any(key in item for key in what):
            return word.lower() in ROLES.keys() | CALL_ROLES | RESULT_ROLES
    return False


def speaker(word: str) -> str | None:
    """`user`, `assistant`, `system` or a tool's role for the word by which a chat calls who speaks; None for a name."""
    plain = word.strip().casefold()
    if plain in CALL_ROLES | RESULT_ROLES:
        return plain
    if plain in ROLES:
        return ROLES[plain]
    return "user" if plain in ASKING else "assistant" if plain in ANSWERING else None


def _is_message(item: dict[str, Value]) -> bool:
    content = _key(item, CONTENT_KEYS) or next((key for key in ("tool_calls", "function_call") if key in item), None)
    return _key(item, SPEAKER_KEYS) is not None and content is not None


def _key(item: dict[str, Value], keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in item), None)


def _spoken(items: list[dict[str, Value]]) -> list[Value] | None:
    """Messages with a speaker each; where these are names, whoever speaks first asks."""
    messages: list[Value] = []
    people: list[str] = []
    for item in items:
        who, what = _key(item, SPEAKER_KEYS), _key(item, CONTENT_KEYS)
        word = item[who] if who else None
        if isinstance(word, dict):
            word = word.get("role", word.get("name"))
        if not isinstance(word, str):
            return None
        role = speaker(word)
        if role is None and who in ("role", "from") and what in ("content", "value"):
            role = word  # messages of a known spelling: an unknown role is named row by row
        elif role is None:
            people += [] if word in people else [word]
            if len(people) > 2:
                return None
            role = ("user", "assistant")[people.index(word)]
        rest = {key: value for key, value in item.items() if key not in (who, what)}
        messages.append({**rest, "role": role, "content": _content(item[what]) if what else None})
    return messages


def _content(value: Value) -> Value:
    """A content; parts without a type, as Gemini and Nova write them, get one."""
    if isinstance(value, dict) and isinstance(value.get("parts"), list):
        value = value["parts"]
    if not isinstance(value, list):
        return value
    return [_part(part) for part in value]


def _part(part: Value) -> Value:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, dict) and "type" not in part and isinstance(part.get("text"), str):
        return {"type": "text", **part}
    return part


def _pairs(items: list[dict[str, Value]]) -> list[Value] | None:
    """Objects with a question and an answer each: {"human": …, "assistant": …}."""
    messages: list[Value] = []
    for item in items:
        roles = {speaker(key): value for key, value in item.items() if speaker(key) in ("user", "assistant")}
        if roles.keys() != {"user", "assistant"}:
            return None
        messages += [{"role": role, "content": roles[role]} for role in ("user", "assistant")]
    return messages


def _parallel(value: dict[str, Value]) -> list[Value] | None:
    """Parallel lists, as some Parquet files hold messages: {"role": [...], "content": [...]}."""
    who, what = _key(value, SPEAKER_KEYS), _key(value, CONTENT_KEYS)
    if who is None or what is None:
        return None
    speakers, contents = value[who], value[what]
    if not isinstance(speakers, list) or not isinstance(contents, list) or len(speakers) != len(contents):
        return None
    return as_messages([{who: one, what: other} for one, other in zip(speakers, contents, strict=True)])


def _alternating(texts: list[Value]) -> list[Value]:
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def _is_text(value: Value) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)
