"""Documents as passages of about 200 words, each with its page or line and the headings above it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from luthier.data.documents.blocks import Block
from luthier.data.documents.reading import Document

WORDS = 200  # of a passage: long enough to hold a thought, short enough that four fit beside a question
PATH = " > "
_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?。])\s+")


@dataclass(frozen=True)
class Passage:
    """A piece of a document. Its location is `handbook.md:12`, `handbook.pdf:page 3`, or for a row `handbook.jsonl:12`."""

    location: str
    text: str
    heading: str = ""
    """The headings above its beginning, from the title down, where the text does not begin with one itself."""


@dataclass(frozen=True)
class _Unit:
    """What a passage is packed from: a block or a part of a long one; `tight` ones follow each other line by line."""

    text: str
    position: str = ""
    heading: str = ""
    is_heading: bool = False
    tight: bool = False


def passages(document: Document) -> Iterator[Passage]:
    """The document's passages in their order."""
    for units in _packed(_units(document)):
        heading = "" if units[0].is_heading else units[0].heading
        yield Passage(f"{document.name}:{units[0].position}", _joined(units), heading)


def split_text(text: str) -> Iterator[str]:
    """A text in pieces of at most 200 words: whole paragraphs, whole sentences where one is longer, words if need be.

    A heading (`# …`) stays with what follows it.
    """
    paragraphs = (paragraph.strip() for paragraph in _PARAGRAPH.split(text))
    units = (
        _Unit(part, is_heading=part.startswith("#"))
        for paragraph in paragraphs
        if paragraph
        for part in _parts(paragraph, _SENTENCE)
    )
    for packed in _packed(units):
        yield _joined(packed)


def joined(blocks: Sequence[Block]) -> str:
    """Blocks one below the other, as passages show them."""
    return _joined([_unit(block) for block in blocks])


def headings_above(blocks: Iterable[Block]) -> Iterator[tuple[Block, tuple[str, ...]]]:
    """Each block with the headings that it stands under, from the title down; of a heading those above it."""
    open_headings: list[Block] = []
    for block in blocks:
        if block.kind == "heading":
            open_headings = [heading for heading in open_headings if heading.level < block.level]
        yield block, tuple(heading.text for heading in open_headings)
        if block.kind == "heading":
            open_headings.append(block)


def _units(document: Document) -> Iterator[_Unit]:
    for block, above in headings_above(document.blocks):
        breaks = re.compile("\n") if block.kind in ("table", "code") else _SENTENCE
        for part in _parts(block.shown, breaks):
            yield _unit(block, part, PATH.join(above))


def _unit(block: Block, text: str | None = None, heading: str = "") -> _Unit:
    tight = block.kind in ("item", "definition", "table", "code")
    return _Unit(text or block.shown, block.position, heading, block.kind == "heading", tight)


def _parts(text: str, breaks: re.Pattern[str]) -> Iterator[str]:
    """The text; of one that is too long its sentences or lines; of one such that is too long runs of words."""
    if len(text.split()) <= WORDS:
        yield text
        return
    for part in breaks.split(text):
        words = part.split()
        if len(words) <= WORDS:
            yield from [part] if words else []
        else:
            yield from (" ".join(words[at : at + WORDS]) for at in range(0, len(words), WORDS))


def _packed(units: Iterable[_Unit]) -> Iterator[list[_Unit]]:
    """The units in groups of at most 200 words; a heading goes with what follows it."""
    group: list[_Unit] = []
    size = 0
    for unit in units:
        words = len(unit.text.split())
        if group and size + words > WORDS:
            carried: list[_Unit] = []
            while len(group) > 1 and group[-1].is_heading:
                carried.insert(0, group.pop())
            yield group
            group, size = carried, sum(len(each.text.split()) for each in carried)
        group.append(unit)
        size += words
    if group:
        yield group


def _joined(units: Sequence[_Unit]) -> str:
    text = units[0].text
    for before, unit in pairwise(units):
        text += ("\n" if before.tight and unit.tight else "\n\n") + unit.text
    return text
