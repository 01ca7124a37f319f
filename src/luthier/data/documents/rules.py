"""Pairs by rules: questions that a document asks and answers itself, definitions, how-to sections, cells of tables, glossaries.

Each rule takes the answer word for word, so that the answer is its own quote. What a section merely speaks of becomes no
question: a heading is turned into one only where the section says what the heading is, or how it is done.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luthier.data.documents.blocks import Block
from luthier.data.documents.pairs import Dropped, Pair
from luthier.data.documents.passages import PATH, Passage, headings_above, joined
from luthier.data.documents.reading import Document

LONGEST_ANSWER = 300
"""Words of an answer by rules; a longer section is no answer but a text."""
QUESTION_WORDS = 30
FEWEST_PLAIN = 3
"""Plain paragraphs that end in `?` are a list of questions from so many on; fewer may be rhetoric."""
ROWS_OF_TABLE = 100

_NUMBERING = re.compile(r"(?:\d{1,3}(?:\.\d{1,3})*[.)]?|[A-Za-z][.)])\s+(?=\S)")
_ASKS = re.compile(r"(?:Q|Question|F|Frage)\d{0,3}[.:)]\s*(\S.*)", re.IGNORECASE)
_ANSWERS = re.compile(r"(?:A|Answer|Antwort)\d{0,3}[.:)]\s*(\S.*)", re.IGNORECASE)
_HOW_TO = re.compile(r"how to (\w.*)", re.IGNORECASE)
_SENTENCE = re.compile(r".*?[.!?。](?=\s|$)", re.DOTALL)
_GLOSSARY = re.compile(
    r"\b(?:glossary|terms?|terminology|definitions?|vocabulary|abbreviations?|acronyms?|glossar|begriffe?|abkürzungen)\b",
    re.I,
)
_ENTRY = re.compile(r"([^\s:–—][^:–—]{0,60}?)\s*(?::| –| —| -)\s+(\S.*)", re.DOTALL)
_MEANS = re.compile(
    r"means?|meaning|definition|description|explanation|stands for|bedeutung|erklärung|beschreibung", re.I
)
_TERM = re.compile(r"terms?|words?|abbreviations?|acronyms?|names?|concepts?|begriffe?|abkürzung", re.I)
_QUESTION_COLUMN = re.compile(r"questions?|q|frage|fragen", re.I)
_ANSWER_COLUMN = re.compile(r"answers?|a|antwort|antworten", re.I)
_ATTRIBUTE = re.compile(
    r"(?:\w+ )?(?:address|age|amount|area|author|capital|category|code|colou?r|cost|country|date|deadline|default|duration|fee"
    r"|height|interval|kind|length|limit|location|margin|maximum|minimum|name|number|owner|phone|place|population|price|purpose"
    r"|range|rate|role|size|speed|status|symbol|temperature|time|type|unit|value|version|voltage|volume|weight|width)",
    re.IGNORECASE,
)
"""Columns of which "What is the … of …?" is good English."""
KEY_WORDS = 10
_NOTHING = frozenset({"", "-", "–", "—", "n/a", "?", "…", "..."})


@dataclass(frozen=True)
class _Section:
    """A block that may ask something, what follows it up to the next heading or question, and the headings above."""

    head: Block
    body: Sequence[Block]
    above: tuple[str, ...]


def pairs(document: Document) -> Iterator[Pair | Dropped]:
    """The document's pairs by every rule, in the order of the rules."""
    sections = list(_sections(document))
    for section in sections:
        yield from _asked(document, section)
    for section in sections:
        yield from _headed(document, section)
    for block, above in headings_above(document.blocks):
        if block.kind == "definition":
            yield from _definition(document, block, above)
        elif block.kind == "table":
            yield from _table(document, block, above)
        elif entry := _entry(block, above):
            yield from _meaning(document, block, above, term=entry[1], meaning=entry[2])


def _entry(block: Block, above: tuple[str, ...]) -> re.Match[str] | None:
    """The term and what it means, of an item or paragraph under a heading that promises such."""
    if block.kind not in ("item", "paragraph") or not above or not _GLOSSARY.search(above[-1]):
        return None
    return _ENTRY.fullmatch(block.text)


def is_faq(document: Document) -> bool:
    """Whether the document asks and answers several questions itself."""
    return sum(isinstance(pair, Pair) and pair.by == "rule: faq" for pair in pairs(document)) >= FEWEST_PLAIN


def _sections(document: Document) -> Iterator[_Section]:
    """Each heading, bold question and question in a list of such, with what follows it."""
    plain = [block for block in document.blocks if block.kind == "paragraph" and _question(block.text)]
    asks_plainly = len(plain) >= FEWEST_PLAIN
    head: tuple[Block, tuple[str, ...]] | None = None
    body: list[Block] = []
    for block, above in headings_above(document.blocks):
        asks = block.kind == "paragraph" and (
            _ASKS.fullmatch(block.text) or ((block.bold or asks_plainly) and _question(block.text))
        )
        if block.kind == "heading" or asks:
            if head:
                yield _Section(head[0], body, head[1])
            head, body = (block, above), []
        else:
            body.append(block)
    if head:
        yield _Section(head[0], body, head[1])


def _question(text: str) -> str | None:
    """The question that a heading or paragraph is, without its number; None where it is none."""
    bare = _NUMBERING.sub("", text, count=1).strip() if _NUMBERING.match(text) else text.strip()
    is_one = bare.endswith(("?", "\uff1f", "\u061f")) and len(bare.split()) <= QUESTION_WORDS
    return bare if is_one and not re.search(r"[.!?]\s+\S.*[.!]\s", bare) else None


def _asked(document: Document, section: _Section) -> Iterator[Pair | Dropped]:
    """A question of the document's own: as heading, in bold, after `Q:`, or in a list of questions."""
    turn = _ASKS.fullmatch(section.head.text)
    question = turn[1].strip() if turn else _question(section.head.text)
    if not question:
        return
    if not section.body:
        yield Dropped("a question without an answer below it", document.location(section.head), "rule: faq")
        return
    answer = joined(section.body)
    if turn and (said := _ANSWERS.match(answer)):
        answer = answer[said.start(1) :]
    yield _pair(document, [section.head, *section.body], section.above, question, answer, by="rule: faq")


def _headed(document: Document, section: _Section) -> Iterator[Pair | Dropped]:
    """`What is X?` where the section begins with `X is …`; `How do I …?` under a heading `How to …`."""
    heading = _NUMBERING.sub("", section.head.text, count=1).strip(" :.")
    if section.head.kind != "heading" or not section.body or _question(section.head.text):
        return
    how = _HOW_TO.fullmatch(heading)
    if how:
        rest = how[1][0].lower() + how[1][1:] if how[1][1:2].islower() else how[1]
        yield _pair(
            document,
            [section.head, *section.body],
            section.above,
            f"How do I {rest}?",
            joined(section.body),
            by="rule: how-to",
        )
    elif section.body[0].kind == "paragraph" and (found := _defined(heading, section.body[0].text)):
        question, answer = found
        yield _pair(document, [section.head, section.body[0]], section.above, question, answer, by="rule: definition")


def _defined(name: str, text: str) -> tuple[str, str] | None:
    """The question that the first sentence answers, and the sentence, where it says what `name` is."""
    words = name.split()
    sentence = _SENTENCE.match(text)
    if not sentence or not 1 <= len(words) <= 6:
        return None
    bare = re.escape(name.strip("`")).replace(r"\ ", r"\s+")
    match = re.match(
        rf"(?:(?P<article>an?|the)\s+)?`?(?P<name>{bare})(?P<plural>s)?`?\s+"
        r"(?P<verb>is(?=\s+(?:an?|the|one|any|what|where|how|who|when)\s)|are(?=\s+(?:the|all|those|what|\w+s)\s)"
        r"|means(?=\s)|refers to|stands for|denotes)",
        sentence[0],
        re.IGNORECASE,
    )
    if not match:
        return None
    article = f"{match['article'].lower()} " if match["article"] else ""
    found = match["name"] + (match["plural"] or "")
    shown = found[0].lower() + found[1:] if article and found[1:2].islower() else found
    verb = match["verb"].lower()
    if verb in ("is", "are"):
        return f"What {verb} {article}{shown}?", sentence[0].strip()
    return f'What does "{found}" mean?', sentence[0].strip()


def _definition(document: Document, block: Block, above: tuple[str, ...]) -> Iterator[Pair | Dropped]:
    """An entry of a definition list; or a question with its answer, which pages write so."""
    term, meaning = block.cells[0]
    if question := _question(term):
        yield _pair(document, [block], above, question, meaning, by="rule: faq")
    else:
        yield from _meaning(document, block, above, term=term, meaning=meaning)


def _meaning(
    document: Document, block: Block, above: tuple[str, ...], *, term: str, meaning: str
) -> Iterator[Pair | Dropped]:
    """What a term means."""
    bare = term.strip().strip("`\"'“”")
    yield _pair(document, [block], above, f'What does "{bare}" mean?', meaning.strip(), by="rule: glossary")


def _table(document: Document, block: Block, above: tuple[str, ...]) -> Iterator[Pair | Dropped]:
    """Questions in their column; terms in theirs; else each row's key with each other column."""
    header, *rows = block.cells
    if len(header) < 2 or not rows:
        return
    if len(rows) > ROWS_OF_TABLE:
        more = f"rows of a table beyond the first {ROWS_OF_TABLE}"
        yield Dropped(more, document.location(block), "rule: table")
    times = Counter(row[0].casefold() for row in rows)
    is_faq = _QUESTION_COLUMN.fullmatch(header[0]) and _ANSWER_COLUMN.fullmatch(header[1])
    is_glossary = len(header) == 2 and _TERM.fullmatch(header[0]) and _MEANS.search(header[1])
    for row in rows[:ROWS_OF_TABLE]:
        shown = Block("table", f"{' | '.join(header)}\n{' | '.join(row)}", block.position)
        if row[0].strip().casefold() in _NOTHING:
            continue
        if times[row[0].casefold()] > 1:
            yield Dropped("two rows of a table with the same key", document.location(block), "rule: table")
        elif len(row[0].split()) > (QUESTION_WORDS if is_faq or _question(row[0]) else KEY_WORDS):
            yield Dropped("a row of a table whose first cell is a text", document.location(block), "rule: table")
        elif is_faq or (len(header) == 2 and _question(row[0])):
            yield _pair(document, [shown], above, row[0], row[1], by="rule: faq", last=True)
        elif is_glossary:
            yield from ([] if row[1] in _NOTHING else _meaning(document, shown, above, term=row[0], meaning=row[1]))
        else:
            yield from _cells(document, shown, above, header, row)


def _cells(
    document: Document, shown: Block, above: tuple[str, ...], header: tuple[str, ...], row: tuple[str, ...]
) -> Iterator[Pair | Dropped]:
    """A row's key with each other column."""
    key = row[0]
    before = len(shown.text) - len(" | ".join(row))
    for number, (column, cell) in enumerate(zip(header[1:], row[1:], strict=False), start=1):
        if cell.strip().casefold() in _NOTHING or not column.strip():
            continue
        if _ATTRIBUTE.fullmatch(column):
            question = f"What is the {column[0].lower() + column[1:] if column[1:2].islower() else column} of {key}?"
        else:
            title = above[-1] if above else document.title
            question = f'What stands under "{column}" for {key} in the table of "{title}"?'
        start = before + len(" | ".join(row[:number])) + len(" | ")
        yield _pair(document, [shown], above, question, cell, by="rule: table", at=start)


def _pair(
    document: Document, blocks: Sequence[Block], above: tuple[str, ...], question: str, answer: str, *, by: str,
    last: bool = False, at: int | None = None,
) -> Pair | Dropped:  # fmt: skip
    """The pair whose answer stands in these blocks: at an offset, at its last place, or at its first behind the question."""
    passage = Passage(document.location(blocks[0]), joined(blocks), PATH.join(above))
    if len(answer.split()) > LONGEST_ANSWER:
        return Dropped(f"an answer of more than {LONGEST_ANSWER} words", passage.location, by)
    if at is not None:
        start = at
    elif last:
        start = passage.text.rindex(answer)
    else:
        start = passage.text.index(answer, len(blocks[0].shown) if len(blocks) > 1 else 0)
    assert passage.text[start : start + len(answer)] == answer, "a rule takes its answer from the passage"
    return Pair(question, answer, document.name, passage, start, start + len(answer), by)
