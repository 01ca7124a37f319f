"""Forms in which equal means the same: folded text, words, and one spelling for each number and each date."""

import re
import string
import unicodedata
from collections.abc import Iterator
from datetime import date
from decimal import Decimal

ARTICLES = {"a", "an", "the"}
_UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])")
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
_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212]?(?:\d+(?:[.,]\d+)*|\.\d+)")
_EXPONENT = re.compile(r"[eE][-+]?\d{1,3}(?!\w)")
_JOINED = re.compile(r"(?<=\d)[.,:/-](?=\d)")


def text(value: str) -> str:
    """Unicode NFC without surrounding blanks."""
    return unicodedata.normalize("NFC", value).strip()


def folded(value: str) -> str:
    """The same without the difference of upper and lower case."""
    return unicodedata.normalize("NFC", text(value).casefold())


def is_mark(char: str) -> bool:
    """Whether a character is punctuation, in ASCII's or in Unicode's sense."""
    return char in string.punctuation or unicodedata.category(char)[0] == "P"


def words(value: str) -> list[str]:
    """Folded words without punctuation and English articles, as SQuAD counts them (Rajpurkar et al. 2016, 6.1).

    Scripts written without blanks (Chinese, Japanese, Thai, Lao, Burmese, Khmer) count each character as a word.
    """
    kept = "".join(char for char in folded(value) if not is_mark(char))
    return [word for word in spaced(kept).split() if word not in ARTICLES]


def tokens(value: str) -> list[str]:
    """Folded runs of letters and digits, articles too: what ROUGE counts, in any script."""
    return re.findall(r"[^\W_]+", spaced(folded(value)))


def spaced(value: str) -> str:
    """A blank around each character of a script that has none between words."""
    return _UNSPACED.sub(r" \1 ", value)


def canonical(value: str) -> list[str]:
    """Words in which numbers and dates have one spelling: 1,200.50 and 1200.5; 5 March 2026 and 2026-03-05.

    Case, punctuation and English articles do not count, except marks inside what looks like a number and is none (2.5.1).
    Month names are English. A date that could be two days (3/5/2026) stays as it is written.
    """
    line = folded(value)
    for pattern in _DATES:
        line = pattern.sub(lambda match: f" {_iso(match) or match[0]} ", line)
    found: list[str] = []
    place = 0
    for match in _NUMBER.finditer(line):
        number = plain_number(match[0])
        if number is None:
            continue
        found += _bare(line[place : match.start()])
        found.append(number)
        place = match.end()
    return found + _bare(line[place:])


def _bare(piece: str) -> list[str]:
    """The words of a text between numbers."""
    joints = {match.start() for match in _JOINED.finditer(piece)}
    kept = "".join(char for at, char in enumerate(piece) if at in joints or not is_mark(char))
    return [word for word in spaced(kept).split() if word not in ARTICLES]


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


def plain_number(written: str) -> str | None:
    """A number with a point for decimals, no grouping and no idle zeros; None for what is none, such as 1.2.3 or 007.

    One comma before exactly three digits groups thousands, any other comma is a decimal one; a point is a decimal one,
    unless it groups threes more than once or a comma follows it.
    """
    sign = "-" if written[0] in "-\u2212" else ""
    digits = written.lstrip("-+\u2212")
    marks = [char for char in digits if char in ".,"]
    decimal = ""
    if len(set(marks)) == 2:
        if marks[-1] in marks[:-1]:
            return None
        decimal = marks[-1]
    elif marks == ["."] or (marks == [","] and not re.fullmatch(r"[1-9]\d{0,2},\d{3}", digits)):
        decimal = marks[0]
    whole, _, rest = digits.rpartition(decimal) if decimal else (digits, "", "")
    parts = re.split(r"[.,]", whole)
    if len(parts) > 1 and not (1 <= len(parts[0]) <= 3 and all(len(part) == 3 for part in parts[1:])):
        return None
    joined = "".join(parts) or "0"
    if len(joined) > 1 and joined.startswith("0"):
        return None
    rest = rest.rstrip("0")
    number = joined + (f".{rest}" if rest else "")
    return number if number == "0" else sign + number


def numbers(value: str) -> Iterator[Decimal]:
    """The numbers that stand in a text, in order; exponents are read (1.5e3 is 1500), zeros in front do not count."""
    for match in _NUMBER.finditer(value):
        number = plain_number(re.sub(r"^([-+\u2212]?)0+(?=\d)", r"\1", match[0]))
        if number is not None:
            exponent = _EXPONENT.match(value, match.end())
            yield Decimal(number + (exponent[0] if exponent else ""))
