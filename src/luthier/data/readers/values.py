"""Rows and their values: text that stays text, and JSON read so that nothing in it is guessed or lost.

A JSON number keeps the characters that stand in the file ("1.50", not 1.5); it is text with a mark, so that an object
around it can be written back as JSON with a number in it.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from luthier.errors import UserError

SHOWN = 12
"""Names that a message shows of a long list, and characters around a fault."""


class Number(str):
    """A number as it is written in the file: text to a conversation, a number inside nested JSON."""

    __slots__ = ()


@dataclass(frozen=True)
class Unusable:
    """What stands where a value should, and is none. Nobody minds until something needs it: `as_text` then refuses.

    The row is at fault, and is dropped with the reason; or with `location` the file is, and nothing can be read.
    """

    reason: str
    location: str | None = None

    def refuse(self) -> NoReturn:
        """Raises the ValueError, or the UserError."""
        if self.location is not None:
            raise UserError(self.reason, where=self.location)
        raise ValueError(self.reason)


Value: TypeAlias = "str | Number | bool | bytes | Unusable | list[Value] | dict[str, Value] | None"


@dataclass(frozen=True)
class Record:
    """One record. `location` is where a reader finds it, such as `tickets.jsonl:118`; `values` go by column name."""

    location: str
    values: dict[str, Value]


class JSONFault(ValueError):
    """Not JSON: what is wrong, and the character offset where it is (None for a fault without a single place)."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


def decode(text: str, position: int = 0) -> tuple[Value, int]:
    """The JSON value that starts at `position`, and the offset behind it and the white space after it.

    Raises JSONFault, also where Python's reader is lenient and takes a key twice. NaN and Infinity, which many programs
    write and JSON does not know, are Unusable.
    """
    try:
        value, end = _DECODER.raw_decode(text, blank(text, position))
    except json.JSONDecodeError as error:
        # what is missing at the end of the text is missing behind its last character, not behind the line break
        raise JSONFault(error.msg, min(error.pos, len(text.rstrip()))) from None
    except RecursionError:
        raise JSONFault("lists or objects nested too deeply") from None
    return value, blank(text, end)


def decode_only(text: str) -> Value:
    """The JSON value that is all of the text; raises JSONFault also for what follows it."""
    value, end = decode(text)
    if end < len(text):
        raise JSONFault(f"more text behind {kind(value)}", end)
    return value


def blank(text: str, position: int) -> int:
    """The offset of the first character from `position` on that is not JSON's white space."""
    match = _BLANK.match(text, position)
    assert match is not None
    return match.end()


def as_json(value: Value) -> str:
    """The value as JSON on one line, numbers as they stood in the file."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(as_json(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_json(name)}: {as_json(item)}" for name, item in value.items()) + "}"
    if isinstance(value, bytes):
        raise ValueError("bytes that are not text")
    if isinstance(value, Unusable):
        value.refuse()
    return json.dumps(value, ensure_ascii=False)


def as_text(value: Value) -> str:
    """The value as the text to train on or to ask; nothing is the empty text. Raises ValueError where there is none."""
    if value is None:
        return ""
    try:
        return str(value) if isinstance(value, str) else as_json(value)
    except RecursionError:
        raise ValueError("lists or objects nested too deeply") from None


def normalise(text: str) -> str:
    """The text in one Unicode form (NFC) with each run of white space as one blank: equal for a reader, equal here."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


def kind(value: Value) -> str:
    """What a message calls the value: "a list", "a number"."""
    if isinstance(value, Number):
        return "a number"
    if isinstance(value, Unusable):
        return value.reason
    names: dict[type, str] = {list: "a list", dict: "an object", str: "a text", bool: "true or false"}
    return names.get(type(value), "null")


def shown(names: Sequence[str]) -> str:
    """The names, with commas; of a long list, the first ones and the count."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def count(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _once(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JSONFault(f'the key "{twice}" stands twice in one object')
    return found


def _not_finite(word: str) -> Unusable:
    return Unusable(f"{word} in place of a value")


_BLANK = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_not_finite, object_pairs_hook=_once)
