"""Questions and answers that stand in a text: headings that ask, with what stands below them, or lines of Q: and A:."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from luthier.data.formats.table import Table, text_of
from luthier.data.readers.values import Record

AT_LEAST, SHARE = 2, 0.6
"""Headings that ask: so many, and so great a share of all below the title."""
FILES_AT_MOST, LOOKED_AT = 1000, 200_000
"""Texts that may be lists of questions, and characters of each that are looked at; a corpus has more and is none."""
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t#]*$")
_ASKS, _SAYS = (
    re.compile(rf"[ \t]*(?:\*\*)?(?:{words})(?:[ \t]*\d+)?(?:\*\*)?[:.)](?:\*\*)?[ \t]*(.*)$")
    for words in ("Q|Question|Frage", "A|Answer|Antwort")
)


@dataclass
class Part:
    """A question with the lines of its answer; or a heading that asks nothing, with what stands below it."""

    line: int
    heading: str
    level: int
    question: list[str]
    answer: list[str]

    @property
    def asks(self) -> bool:
        return bool(self.question)


def is_faq(table: Table) -> bool:
    """Whether whole texts (a file each) are lists of questions with their answers."""
    column = table.columns.get("text")
    if column is None or len(table.columns) > 1 or not 0 < table.rows <= FILES_AT_MOST:
        return False
    texts = [text_of(value)[:LOOKED_AT] for value in column.values]
    parts = [part for text in texts for part in by_headings(text)]
    asking = [part for part in parts if part.asks]
    below = [part for part in parts if part.level > 1] or parts
    if len(asking) >= AT_LEAST and len(asking) >= SHARE * len(below):
        return True
    spelled = [len(by_letters(text)) for text in texts]
    return max(spelled, default=0) >= AT_LEAST and len(texts) <= max(spelled)


def by_headings(text: str) -> list[Part]:
    """The parts of a text below its headings; one that ends with a question mark asks."""
    parts: list[Part] = []
    for number, line in enumerate(text.splitlines(), start=1):
        heading = _HEADING.match(line)
        if heading:
            asks = heading[2].endswith("?")
            parts.append(Part(number, heading[2], len(heading[1]), [heading[2]] if asks else [], []))
        elif parts:
            parts[-1].answer.append(line)
    return parts


def by_letters(text: str) -> list[Part]:
    """The questions of a text that are marked with Q: and answered with A:."""
    parts: list[Part] = []
    answering = False
    for number, line in enumerate(text.splitlines(), start=1):
        asks, says = _ASKS.match(line), _SAYS.match(line)
        if asks and asks[1].strip():
            parts.append(Part(number, "", 0, [asks[1]], []))
            answering = False
        elif says and parts:
            answering = True
            parts[-1].answer.append(says[1])
        elif parts:
            (parts[-1].answer if answering else parts[-1].question).append(line)
    return [part for part in parts if "".join(part.answer).strip()]


def pairs(rows: Iterable[Record], drop: Callable[[str, str], None]) -> Iterator[Record]:
    """A row for each question; what stands below a heading that asks nothing is no answer."""
    for row in rows:
        text = text_of(row.values.get("text"))
        parts = by_headings(text)
        if not any(part.asks for part in parts):
            parts = by_letters(text)
        for part in parts:
            location, answer = f"{row.location}, line {part.line}", "\n".join(part.answer).strip()
            if part.asks:
                yield Record(location, {"question": "\n".join(part.question).strip(), "answer": answer})
            elif answer:
                drop("a part of the text that answers no question", location)
        if not parts:
            drop("a text without questions", row.location)
