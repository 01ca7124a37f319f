"""Texts that were damaged on their way: characters of another encoding, lost ones, invisible ones, leftovers of a web page."""

import re
import unicodedata
from collections import Counter

from ftfy import fix_encoding
from ftfy.badness import is_bad

from luthier.data.checks.rows import Row

_LOST = "\ufffd"
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]"
    "|(?<![\U000e0020-\U000e007f\U0001f3f4])[\U000e0001-\U000e007f]+"  # letters of flags stand behind a black flag
)
_NAMES = {0x0: "NUL", 0x1B: "escape", 0x7F: "delete", 0x85: "next line", 0xFEFF: "byte order mark"}
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,5});")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


def mojibake(row: Row) -> str | None:
    """Characters that were read in another encoding than they were written in, or were lost on the way."""
    for text in row.texts:
        if text.isascii():
            continue
        if _LOST in text:
            return f"{text.count(_LOST)} lost (U+FFFD)"
        if is_bad(text) and (repaired := fix_encoding(text)) != text:
            return f"“{_difference(text, repaired)[:8]}”"
    return None


def _difference(text: str, other: str) -> str:
    """What stands in a text where the other first differs, up to where both end alike."""
    start = _same(text, other)
    end = _same(text[start:][::-1], other[start:][::-1])
    return text[start : len(text) - end]


def _same(one: str, other: str) -> int:
    """With how many equal characters two texts begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def control_characters(row: Row) -> str | None:
    """Characters that nobody sees: control characters, zero widths, marks that turn the direction of the text."""
    found = Counter(code for text in row.texts for run in _INVISIBLE.findall(text) for code in map(ord, run[:1]))
    return ", ".join(f"U+{code:04X} {_name(code)} × {count}" for code, count in found.items()) or None


def _name(code: int) -> str:
    return _NAMES.get(code) or unicodedata.name(chr(code), "control character").lower()


def html(row: Row) -> str | None:
    """Entities of HTML outside code."""
    for text in row.texts:
        if "&" in text and (found := _ENTITY.search(_CODE.sub(" ", text))):
            return found[0]
    return None
