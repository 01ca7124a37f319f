"""What a cell says: the text of a passage, the answers in it, a system message, earlier turns."""

from collections.abc import Mapping

from luthier.chat import Message
from luthier.data.formats.chats import as_messages, unspelled
from luthier.data.messages import Unfit, chat
from luthier.data.readers.values import Value, as_text

Cells = Mapping[str, Value]
"""A row's values by the format's own words for its columns; facts about the whole table stand beside them as texts."""

NOTHING = {"<noinput>", "<no input>", "[noinput]", "noinput", "no input", "<empty>"}
"""What instruction sets write where there is no input."""
SPAN_KEYS = {"answer_start", "answer_end", "start", "spans", "score", "a_id", "aliases", "normalized_aliases"}
"""Keys that mark an object as an answer with its places, ratings or other spellings."""
RATINGS = ("selected", "is_accepted", "accepted", "pm_score", "score", "upvotes", "votes")
"""Keys under which people rated an answer, the surest first."""
ANSWER_KEYS = SPAN_KEYS | {"text", "answer", "value", "id", "answer_id", "type"}
"""Keys of the objects in a list of answers."""


def text(cells: Cells, word: str) -> str:
    """The text in a cell; nothing where the column is missing."""
    return as_text(cells.get(word))


def passage(value: Value) -> str:
    """A passage as text: paragraphs that come as a list, or in an object, stand below each other."""
    value = unspelled(value)
    if isinstance(value, dict):
        inner = next((value[key] for key in ("text", "contexts", "sentences", "passage_text") if key in value), None)
        return as_text(value) if inner is None else passage(inner)
    if isinstance(value, list):
        if all(isinstance(item, list) for item in value):
            value = [" ".join(as_text(part).strip() for part in item) for item in value if isinstance(item, list)]
        if all(isinstance(item, str) for item in value):
            return "\n\n".join(as_text(item) for item in value)
    return as_text(value)


def asked(cells: Cells, question: str) -> str:
    """The question with what belongs to it: passage before it, instruction before both, input below."""
    before = [word for word in ("instruction", "title") if word != question]
    parts = [text(cells, word) for word in before[:1]] + [passage(cells.get("context"))]
    parts += [text(cells, word) for word in before[1:]] + [text(cells, question)]
    parts += [text(cells, "input")] if question != "input" else []
    return "\n\n".join(part for part in parts if part.strip() and part.strip().casefold() not in NOTHING)


def answers(value: Value, *, several: bool) -> list[str]:
    """The right answers in a cell, the one to learn first.

    A list has `several` of them or is itself the answer, as JSON; which of these, the column's name says.
    """
    found = unspelled(value) if several or (isinstance(value, str) and "answer_start" in value) else value
    if isinstance(found, dict) and found.keys() & SPAN_KEYS:
        inner = found.get("text", found.get("value", found.get("answer")))
        others = found.get("aliases")
        texts = answers(inner, several=True) + (answers(others, several=True) if isinstance(others, list) else [])
        return list(dict.fromkeys(texts))
    if several and isinstance(found, list):
        if not found:
            raise Unfit("no answer in its list")
        if all(isinstance(item, str) for item in found):
            return list(dict.fromkeys(as_text(item) for item in found if as_text(item).strip())) or [""]
        if rated := _by_rating([item for item in found if isinstance(item, dict)]):
            return rated
        if all(isinstance(item, dict) and item.keys() <= ANSWER_KEYS for item in found):
            inner = [
                item.get("text", item.get("answer", item.get("value"))) for item in found if isinstance(item, dict)
            ]
            if all(isinstance(item, str) for item in inner):
                return answers(inner, several=True)
    return [as_text(value)]


def _by_rating(found: list[dict[str, Value]]) -> list[str]:
    """The accepted or best rated of several answers, as a list of one; nothing where they are no such answers."""
    texts = [key for key in ("text", "body", "answer") if all(isinstance(item.get(key), str) for item in found)]
    ratings = [key for key in RATINGS if all(key in item for item in found)]
    if not found or not texts or not ratings:
        return []
    words = {"true": "1", "false": "0", "": "0"}

    def rating(item: dict[str, Value]) -> list[float]:
        return [float(words.get(word := as_text(item[key]), word)) for key in ratings]

    try:
        return [as_text(max(found, key=rating)[texts[0]])]
    except ValueError:
        return []


def head(cells: Cells) -> tuple[Message, ...]:
    """What stands before the question: the system message, and earlier turns."""
    before = system(cells)
    earlier = as_messages(cells.get("history"))
    return (*before, *(chat(earlier).messages if earlier else ()))


def system(cells: Cells) -> tuple[Message, ...]:
    """The system message, where there is one."""
    value = unspelled(cells.get("system"))
    if isinstance(value, dict) and isinstance(value.get("parts"), list):
        value = value["parts"]
    elif isinstance(value, dict) and isinstance(value.get("content"), str):
        value = value["content"]
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        value = "\n".join(as_text(part.get("text")) for part in value if isinstance(part, dict))
    said = as_text(value).removeprefix("SYSTEM:").strip() if as_text(value).startswith("SYSTEM:") else as_text(value)
    return (Message("system", said),) if said.strip() else ()


def with_system(cells: Cells, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages behind the row's system message, unless they have one."""
    return messages if any(message.role == "system" for message in messages) else (*system(cells), *messages)
