"""Pairs by rules: questions that a document asks and answers itself, definitions, headings that ask, terms, options, tables.

Each rule takes the answer word for word, so that the answer is its own quote. What a section merely speaks of becomes no
question: a heading is turned into one only where it asks, or its section says what it is or how it is done.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from luthier.data.documents import table_rules, wording
from luthier.data.documents.blocks import Block
from luthier.data.documents.pairs import Dropped, Pair
from luthier.data.documents.passages import headings_above, joined
from luthier.data.documents.quoting import quoted
from luthier.data.documents.reading import Document

FEWEST_PLAIN = 3
"""Plain paragraphs that end in `?` are a list of questions from so many on; fewer may be rhetoric."""
FEW_WORDS = 3
"""Words of a heading's question up to which the document's title says what it is about."""
FEWEST_STATED = 5
"""Words of a sentence that says something of its subject."""

_NUMBERING = re.compile(r"(?:\d{1,3}(?:\.\d{1,3})*[.)]?|[A-Za-z][.)])\s+(?=\S)")
_ASKS = re.compile(r"(?:Q|Question|F|Frage)\d{0,3}[.:)]\s*(\S.*)", re.IGNORECASE)
_ANSWERS = re.compile(r"(?:A|Answer|Antwort)\d{0,3}[.:)]\s*(\S.*)", re.IGNORECASE)
_SENTENCE = re.compile(r".*?[.!?。](?=\s|$)", re.DOTALL)
_GLOSSARY = re.compile(
    r"\b(?:glossary|terms?|terminology|definitions?|vocabulary|abbreviations?|acronyms?|glossar|begriffe?|abkürzungen)\b",
    re.I,
)
_ENTRY = re.compile(r"([^\s:–—][^:–—]{0,60}?)\s*(?::| –| —| -)\s+(\S.*)", re.DOTALL)
_CODE = r"`[^`]+`(?:,? (?:and |or )?`[^`]+`)*"
_ACTS = re.compile(rf"(?P<name>{_CODE})\s+(?!(?:is|has|was|does|this|its|as|thus|s)\b)[a-z]{{2,}}s\b(?!\s*[:=])")
_IS = re.compile(rf"(?P<name>{_CODE})\s+is\s+(?:an?|the|what|where|how|one|any)\s")
_KIND = re.compile(
    r"(?P<name>An?\s+(?:(?!is\b|are\b|of\b|that\b|which\b|who\b|in\b)[\w`-]+\s+){1,3})(?P<verb>is|means)\s+"
    r"(?:an?|the|one|any|what|where|how|who|when)\s"
)
_POINTS = re.compile(r"\b(?:them|these|those|the same)\b|^\S+(?: \S+){1,3} it\b")
_LISTED = re.compile(rf"(?P<name>{_CODE})(?:,[^:]{{0,40}})?(?::| –| —| -)\s+(?P<text>\S.*)", re.DOTALL)


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
    listed = _listed(document)
    for number, (block, above) in enumerate(headings_above(document.blocks)):
        if block.kind == "definition":
            yield from _definition(document, block, above)
        elif block.kind == "table":
            yield from table_rules.of_table(document, block, above)
        elif block.kind == "code":
            yield from table_rules.of_options(document, block, above)
        elif entry := _entry(block, above):
            yield from _meaning(document, block, above, term=entry[1], meaning=entry[2])
        elif number in listed:
            yield from _named(document, block, above)
        elif block.kind in ("paragraph", "item"):
            yield from _stated(document, block, above)


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
    is_one = bare.endswith(("?", "\uff1f", "\u061f")) and len(bare.split()) <= table_rules.QUESTION_WORDS
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
    yield quoted(document, [section.head, *section.body], section.above, question, answer, by="rule: faq")


def _headed(document: Document, section: _Section) -> Iterator[Pair | Dropped]:
    """`What is X?` where the section begins with `X is …`; what the heading asks, such as `How do I …?` of `How to …`."""
    heading = _NUMBERING.sub("", section.head.text, count=1).strip(" :.")
    if section.head.kind != "heading" or not section.body or _question(section.head.text):
        return
    has_steps = any(block.kind == "code" for block in section.body) or sum(b.kind == "item" for b in section.body) > 1
    body = list(takewhile(lambda block: block.kind != "table", section.body))
    if body and (question := wording.of_heading(heading, has_steps=has_steps)):
        if len(question.split()) <= FEW_WORDS:
            question = wording.within(question, section.above[0] if section.above else document.title)
        by = "rule: how-to" if question.startswith("How do I") else "rule: heading"
        answer = joined(body)
        yield quoted(document, [section.head, *body], section.above, question, answer, by=by)
    elif section.body[0].kind == "paragraph" and (found := _defined(heading, section.body[0].text)):
        question, answer = found
        yield quoted(document, [section.head, section.body[0]], section.above, question, answer, by="rule: definition")


def _stated(document: Document, block: Block, above: tuple[str, ...]) -> Iterator[Pair | Dropped]:
    """What a sentence says of a thing of some kind, or of a word of code, with which it begins."""
    for sentence in _SENTENCE.finditer(block.text):
        text = sentence[0].strip()
        if len(text.split()) < FEWEST_STATED or _POINTS.search(text):
            continue
        if kind := _KIND.match(text):
            verb, mean = ("is", "") if kind["verb"] == "is" else ("does", " mean")
            name = kind["name"].strip()
            question = f"What {verb} {name[0].lower()}{name[1:]}{mean}?"
        elif said := _IS.match(text):
            question = f"What is {said['name']}?"
        elif said := _ACTS.match(text):
            question = f"What {'does' if said['name'].count('`') == 2 else 'do'} {said['name']} do?"
        else:
            continue
        yield quoted(document, [block], above, question, text, by="rule: definition")


def _listed(document: Document) -> frozenset[int]:
    """The numbers of items that explain a word of code each: those of a list that has several such."""
    found: set[int] = set()
    run: list[int] = []
    for number, block in enumerate([*document.blocks, None]):
        if block is not None and block.kind == "item":
            run += [number] if _LISTED.fullmatch(block.text) else []
            continue
        found |= set(run) if len(run) > 1 else set()
        run = []
    return frozenset(found)


def _named(document: Document, block: Block, above: tuple[str, ...]) -> Iterator[Pair | Dropped]:
    """What is said of a word of code, or of an option, in a list of such."""
    match = _LISTED.fullmatch(block.text)
    assert match, "only such items are listed"
    name = match["name"]
    if name.startswith("`-"):
        question = wording.of_option(name.strip("`"))
    else:
        question = wording.within(f"What is {name}?", above[-1] if above else document.title)
    yield quoted(document, [block], above, question, match["text"], by="rule: glossary", last=True)


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
        yield quoted(document, [block], above, question, meaning, by="rule: faq")
    else:
        yield from _meaning(document, block, above, term=term, meaning=meaning)


def _meaning(
    document: Document, block: Block, above: tuple[str, ...], *, term: str, meaning: str
) -> Iterator[Pair | Dropped]:
    """What a term means."""
    bare = term.strip().strip("`\"'“”")
    yield quoted(document, [block], above, f'What does "{bare}" mean?', meaning.strip(), by="rule: glossary")
