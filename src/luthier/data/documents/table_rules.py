"""Pairs of tables and of the options that a command lists: each row's first cell with what its columns say about it."""

import re
from collections import Counter
from collections.abc import Iterator

from luthier.data.documents import wording
from luthier.data.documents.blocks import Block
from luthier.data.documents.pairs import Dropped, Pair
from luthier.data.documents.quoting import quoted
from luthier.data.documents.reading import Document

ROWS = 100
"""Rows of a table that are asked after."""
QUESTION_WORDS = 30
KEY_WORDS = 10
FEWEST_OPTIONS = 2

_MEANS = re.compile(
    r"means?|meaning|definition|description|explanation|stands for|bedeutung|erklärung|beschreibung", re.I
)
_TERM = re.compile(r"terms?|words?|abbreviations?|acronyms?|names?|concepts?|begriffe?|abkürzung", re.I)
_QUESTION_COLUMN = re.compile(r"questions?|q|frage|fragen", re.I)
_ANSWER_COLUMN = re.compile(r"answers?|a|antwort|antworten", re.I)
_NOTHING = frozenset({"", "-", "–", "—", "n/a", "?", "…", "..."})
_ELSEWHERE = re.compile(
    r"(?:the same|same|ditto|as (?:above|before|below)|see (?:above|below)|idem|[\"″〃]+)\b.*", re.I
)
_YES_NO = frozenset({"yes", "no"})
_CODE = re.compile(r"`[^`]+`(?:,? (?:and |or )?`[^`]+`)*")
_USAGE = re.compile(r"\s*usage:\s+([\w.-]+(?: [a-z][\w-]*)*)", re.I)
_OPTION = re.compile(r"(?P<indent>\s*)(?P<name>-{1,2}\w[\w-]*(?:[ =,]\s?\S+){0,3}?)(?P<gap>\s{2,})(?P<text>\S.*)")
_USUAL = re.compile(r"(?:-h\b|--help\b|--version\b).*")


def of_table(document: Document, block: Block, above: tuple[str, ...]) -> Iterator[Pair | Dropped]:
    """Questions in their column; terms in theirs; else each row's key with each other column."""
    header, *rows = block.cells
    if len(header) < 2 or not rows:
        return
    if len(rows) > ROWS:
        yield Dropped(f"rows of a table beyond the first {ROWS}", document.location(block), "rule: table")
    times = Counter(row[0].casefold() for row in rows)
    is_faq = _QUESTION_COLUMN.fullmatch(header[0]) and _ANSWER_COLUMN.fullmatch(header[1])
    is_glossary = len(header) == 2 and _TERM.fullmatch(header[0]) and _MEANS.search(header[1])
    for row in rows[:ROWS]:
        shown = Block("table", "\n".join(" | ".join(line) for line in (header, row) if any(line)), block.position)
        if row[0].strip().casefold() in _NOTHING:
            continue
        if times[row[0].casefold()] > 1:
            yield Dropped("two rows of a table with the same key", document.location(block), "rule: table")
        elif len(row[0].split()) > (QUESTION_WORDS if is_faq or row[0].endswith("?") else KEY_WORDS):
            yield Dropped("a row of a table whose first cell is a text", document.location(block), "rule: table")
        elif is_faq or (len(header) == 2 and row[0].endswith("?")):
            yield quoted(document, [shown], above, row[0], row[1], by="rule: faq", last=True)
        elif is_glossary:
            term = row[0].strip().strip("`\"'“”")
            if row[1].strip().casefold() not in _NOTHING:
                yield quoted(
                    document, [shown], above, wording.of_term(term), row[1].strip(), by="rule: glossary", last=True
                )
        else:
            yield from _cells(document, shown, above, header, row)


def _cells(
    document: Document, shown: Block, above: tuple[str, ...], header: tuple[str, ...], row: tuple[str, ...]
) -> Iterator[Pair | Dropped]:
    """A row's key with each other column that makes a question which somebody would ask."""
    key = row[0].strip()
    about = wording.subject(header[0], key)
    before = len(shown.text) - len(" | ".join(row))
    for number, (column, cell) in enumerate(zip(header[1:], row[1:], strict=False), start=1):
        has_words = any(sign.isalpha() for sign in cell)
        if cell.strip().casefold() in _NOTHING or (not column.strip() and (len(header) > 2 or not has_words)):
            continue
        if _ELSEWHERE.fullmatch(cell.strip()):
            yield Dropped("a cell that points to another one", document.location(shown), "rule: table")
            continue
        is_a_name = column[:1].isupper() and header[0][:1].islower() and not column.isupper()
        question = (
            None
            if is_a_name
            else wording.of_cell(
                column, about, is_yes_or_no=cell.strip().casefold() in _YES_NO, is_code=bool(_CODE.fullmatch(key))
            )
        )
        if question is None:
            yield Dropped("a column of whose name no rule makes a question", document.location(shown), "rule: table")
            continue
        if not about.stands_alone:
            question = wording.within(question, above[-1] if above else document.title)
        start = before + len(" | ".join(row[:number])) + len(" | ")
        yield quoted(document, [shown], above, question, cell, by="rule: table", at=start)


def of_options(document: Document, block: Block, above: tuple[str, ...]) -> Iterator[Pair | Dropped]:
    """What a command does, and each of its options, of its help as a block of code shows it."""
    lines = block.text.split("\n")
    usage = next((line for line in lines if _USAGE.match(line)), None)
    named = _USAGE.match(usage) if usage else None
    command = named[1] if named else ""
    if usage and (says := _summary(lines, usage)):
        shown = Block("code", f"{usage.strip()}\n{says}", block.position)
        yield quoted(document, [shown], above, f"What does `{command}` do?", says, by="rule: option", last=True)
    options = [(name, text) for name, text in _options(lines) if not _USUAL.fullmatch(name)]
    if len(options) < FEWEST_OPTIONS and not usage:
        return
    for name, text in options:
        shown = Block("code", "\n".join([*([usage.strip()] if usage else []), f"{name}  {text}"]), block.position)
        word = name.split()[0].split("=")[0].rstrip(",")
        yield quoted(document, [shown], above, wording.of_option(word, command), text, by="rule: option", last=True)


def _summary(lines: list[str], usage: str) -> str:
    """What stands below the usage up to the next blank line, on one line."""
    rest = lines[lines.index(usage) + 1 :]
    while rest and not rest[0].strip():
        rest.pop(0)
    found = []
    for line in rest:
        if not line.strip() or line.rstrip().endswith(":") or line.lstrip().startswith("-"):
            break
        found.append(line.strip())
    return " ".join(found)


def _options(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each option and what is said of it, on one line; lines that go on begin where the first one's words do."""
    name, said, column = "", [""], 0
    for line in [*lines, ""]:
        match = _OPTION.fullmatch(line)
        if name and not match and line.strip() and len(line) - len(line.lstrip()) >= column - 1:
            said.append(line.strip())
            continue
        if name:
            yield name, " ".join(" ".join(said).split())
        name = match["name"] if match else ""
        if match:
            said, column = [match["text"].strip()], match.start("text")
