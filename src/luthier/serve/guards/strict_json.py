"""A JSON body that says one thing only: what lenient readers take twice, or take for a number, is refused."""

import math

from luthier.data.readers.values import JSONFault, Number, Unusable, Value, decode_only
from luthier.serve.errors import APIError, bad_request

DEPTH = 64
"""Lists and objects inside each other, more than any request needs."""
DIGITS = 40
"""Characters of a number that are worth reading."""


def check(body: bytes) -> None:
    """Raises the answer to a body that is no JSON, or one that two readers could understand differently."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"it is not UTF-8 at byte {error.start}") from None
    try:
        value = decode_only(text)
    except JSONFault as fault:
        position = "" if fault.position is None else f" at character {fault.position}"
        raise _refused(f"{_words(fault)}{position}") from None
    _check_values(value)


def _words(fault: JSONFault) -> str:
    """The fault, without the key that it may name."""
    text = str(fault)
    return "a key stands twice in one object" if text.startswith("the key ") else text[:1].lower() + text[1:]


def _check_values(root: Value) -> None:
    waiting: list[tuple[Value, int]] = [(root, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH:
            raise _refused(f"lists and objects are nested more than {DEPTH} deep")
        if isinstance(value, Unusable):
            raise _refused("NaN and Infinity are no numbers of JSON")
        if isinstance(value, Number):
            if len(value) > DIGITS or not math.isfinite(float(value)):
                raise _refused("a number is too large or too long")
        elif isinstance(value, str):
            _expect_characters(value)
        elif isinstance(value, list):
            waiting += [(each, depth + 1) for each in value]
        elif isinstance(value, dict):
            for name, each in value.items():
                _expect_characters(name)
                waiting.append((each, depth + 1))


def _expect_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refused("a text has half of a surrogate pair, which is no character") from None


def _refused(what: str) -> APIError:
    return bad_request(f"The body is not valid JSON: {what}.", code="invalid_json")
