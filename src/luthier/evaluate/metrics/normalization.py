"""Normalised texts, equal where they mean the same: words without articles, one spelling for each number and date."""

import re
import unicodedata
from datetime import date

from luthier.data.words import joined, normalised, tokens

_MONTHS = [
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
]  # fmt: skip
_MONTH = "|".join(f"{name}|{name[:3]}\\.?" for name in _MONTHS) + "|sept\\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_DATES = [
    re.compile(pattern.replace("MONTH", f"(?P<month>{_MONTH})").replace("DAY", _DAY).replace("YEAR", _YEAR))
    for pattern in (
        r"(?<![\w./-])YEAR[-/.](?P<month>\d{1,2})[-/.]DAY(?![\w/-])",  # 2026-03-05
        r"(?<![\w./-])DAY\.\s?(?P<month>\d{1,2})\.\s?YEAR(?!\w)",  # 5.3.2026: with points the day comes first
        r"(?<![\w./-])(?P<first>\d{1,2})[/-](?P<second>\d{1,2})[/-]YEAR(?![\w/-])",  # 25/12/2026 or 12/25/2026
        r"(?<!\w)DAY(?: of)? MONTH,? YEAR(?!\w)",  # 5th of March 2026
        r"(?<!\w)MONTH DAY,? YEAR(?!\w)",  # March 5, 2026
        r"(?<!\w)MONTH,? YEAR(?!\w)",  # March 2026
    )
]
_BEFORE_WORD = r"\s\"'\u201c\u2018(\[*_`"
_WORD_FOLLOWS = rf"(?=\s+[{_BEFORE_WORD}]*(?!(?:and|or|is|to)\b)[^\W_][^\W_])"  # a word of two letters or digits
_ARTICLE = re.compile(
    rf"(?<![^{_BEFORE_WORD}])(?:(?:[Tt]he|THE|[Aa]n|AN)(?=\s+[{_BEFORE_WORD}]*\w)|a{_WORD_FOLLOWS}|"
    rf"(?:(?<![^\n])|(?<=[.!?:]\s))A{_WORD_FOLLOWS})"
)
_ARTICLE_IN_CAPITALS = re.compile(rf"(?<!\S)A{_WORD_FOLLOWS}")
_QUANTITY = re.compile(r"(?<!\S)(-?\d+(?:\.\d+)?)(?=[^\W\d])")


def text(value: str) -> str:
    """Unicode NFC without surrounding blanks."""
    return unicodedata.normalize("NFC", value).strip()


def words(value: str) -> list[str]:
    """Folded words without punctuation and English articles, as SQuAD counts them (Rajpurkar et al. 2016, 6.1).

    Unlike there, nothing is lost that tells two answers apart: numbers keep their sign and point, signs that mean something
    (`<`, `%`, `+`, emoji) count as words, and a letter that stands as a name ("A, C", "vitamin A") is no article.
    """
    return tokens(joined(_without_articles(value)))


def _without_articles(value: str) -> str:
    line = _ARTICLE.sub("", unicodedata.normalize("NFC", value))
    return _ARTICLE_IN_CAPITALS.sub("", line) if value.isupper() else line


def canonical(value: str) -> list[str]:
    """`words` in which dates and quantities have one spelling too: 5 March 2026 and 2026-03-05, 2.5kg and 2.5 kg.

    Month names are English. A date that could be two days (3/5/2026) stays as it is written.
    """
    line = normalised(_without_articles(value))
    for pattern in _DATES:
        line = pattern.sub(lambda match: f" {_iso(match) or match[0]} ", line)
    return _QUANTITY.sub(r"\1 ", " ".join(tokens(joined(line)))).split()


def _iso(match: re.Match[str]) -> str | None:
    """A date as one word, date20260305; None where there is no such day, or where it could be two."""
    parts = match.groupdict()
    year = int(parts["year"])
    if "first" in parts:
        first, second = int(parts["first"]), int(parts["second"])
        if first <= 12 and second <= 12 and first != second:
            return None
        day, month = (first, second) if second <= 12 else (second, first)
    else:
        month = int(parts["month"]) if parts["month"].isdigit() else _month(parts["month"])
        if parts.get("day") is None:
            return f"date{year:04d}{month:02d}"
        day = int(parts["day"])
    try:
        return f"date{date(year, month, day):%Y%m%d}"
    except ValueError:
        return None


def _month(name: str) -> int:
    return next(number for number, full in enumerate(_MONTHS, 1) if full.startswith(name[:3]))
