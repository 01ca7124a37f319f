"""What documents of every kind become first: blocks, each with where it stands, so that the rest knows one kind only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["heading", "paragraph", "item", "definition", "table", "code"]


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, an item of a list, a term with its definition, a table, or code."""

    kind: Kind
    text: str
    """As passages show it, without its marks: a table's rows as lines, a definition as `term: definition`."""
    position: str
    """Where it stands in its document: a line (`12`), a page (`page 3`), or a block counted from 1 (`paragraph 5`)."""
    level: int = 0
    """Of a heading, from 1 for the title."""
    bold: bool = False
    """Whether all of a paragraph is bold, as questions are in many a page."""
    cells: tuple[tuple[str, ...], ...] = ()
    """Of a table its rows, the first one with the names of the columns; of a definition the term and what it means."""

    @property
    def shown(self) -> str:
        """The text with the marks of Markdown: headings and items are seen as such wherever they come from."""
        if self.kind == "heading":
            return f"{'#' * self.level} {self.text}"
        return f"- {self.text}" if self.kind == "item" else self.text

    def to_json(self) -> dict[str, Any]:
        """The block for another process."""
        return {
            "kind": self.kind, "text": self.text, "position": self.position, "level": self.level, "bold": self.bold,
            "cells": self.cells,
        }  # fmt: skip

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Block":
        """The block that another process made."""
        return cls(**{**values, "cells": tuple(map(tuple, values["cells"]))})


def table(rows: Sequence[Sequence[str]], position: str) -> Block | None:
    """A table's block, its rows as lines with ` | ` between the cells; None where no cell holds anything."""
    lines = [tuple(_line(cell) for cell in row) for row in rows]
    filled = [row for row in lines if any(row)]
    if not filled:
        return None
    header = [] if any(lines[0]) else [lines[0]]  # columns without names are no reason to take the first row for names
    return Block("table", "\n".join(" | ".join(row) for row in filled), position, cells=(*header, *filled))


def definition(term: str, meaning: str, position: str) -> Block:
    """The block of a term and what it means."""
    term, meaning = _line(term).rstrip(":"), _line(meaning)
    return Block("definition", f"{term}: {meaning}", position, cells=((term, meaning),))


def _line(text: str) -> str:
    return " ".join(text.split())
