"""Questions and answers that stand in a text: headings that ask, with what stands below them, or lines of Q: and A:."""

import re
from collections.abc import Callable, Iterable, Iterator

from luthier.data.formats.table import Table, text_of
from luthier.data.readers.values import Record

AT_LEAST, SHARE = 2, 0.6
"""Headings that ask: so many, and so great a share of all below the title."""
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.*?)[ \t#]*$", re.MULTILINE)
_ASKS, _SAYS = (
    rf"[ \t]*(?:\*\*)?(?:{words})(?:[ \t]*\d+)?(?:\*\*)?[:.)](?:\*\*)?[ \t]*"
    for words in ("Q|Question|Frage", "A|Answer|Antwort")
)
_PAIR = re.compile(rf"^{_ASKS}(.+?)\n+{_SAYS}(.+?)(?=\n+{_ASKS}|\Z)", re.MULTILINE | re.DOTALL)


def is_faq(table: Table) -> bool:
    """Whether whole texts (a file each) are lists of questions with their answers."""
    column = table.columns.get("text")
    if column is None or len(table.columns) > 1 or not column.values:
        return False
    headings = [match for value in column.values for match in _HEADING.finditer(text_of(value))]
    asking = [match for match in headings if match[2].endswith("?")]
    below = [match for match in headings if len(match[1]) > 1] or headings
    if len(asking) >= AT_LEAST and len(asking) >= SHARE * len(below):
        return True
    pairs = [sum(1 for _ in _PAIR.finditer(text_of(value))) for value in column.values]
    return sum(pairs) >= AT_LEAST and max(pairs) >= AT_LEAST and len(column.values) <= max(pairs)


def pairs(rows: Iterable[Record], drop: Callable[[str, str], None]) -> Iterator[Record]:
    """A row for each question; a heading that asks nothing is part of no answer."""
    for row in rows:
        text = text_of(row.values.get("text")).replace("\r\n", "\n")
        headings = list(_HEADING.finditer(text))
        found = []
        for number, heading in enumerate(headings):
            end = headings[number + 1].start() if number + 1 < len(headings) else len(text)
            answer = text[heading.end() : end].strip()
            if heading[2].endswith("?"):
                found.append((heading.start(), heading[2], answer))
            elif answer:
                drop("a part of the text that answers no question", _at(row, text, heading.start()))
        found = found or [(match.start(), match[1], match[2]) for match in _PAIR.finditer(text)]
        if not found:
            drop("a text without questions", row.location)
        for start, question, answer in found:
            yield Record(_at(row, text, start), {"question": question.strip(), "answer": answer.strip()})


def _at(row: Record, text: str, start: int) -> str:
    return f"{row.location}, line {text.count(chr(10), 0, start) + 1}"
