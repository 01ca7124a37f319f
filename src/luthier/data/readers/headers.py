"""Which of a table's first rows name its columns: titles may stand above the header, and there may be no header at all.

Used for tables that are cells without types: CSV and spreadsheets. What is found here is told as a remark.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from luthier.data.readers.values import Unusable, Value

MOST_TITLES = 10
LONGEST_NAME = 120  # characters
_SENTENCE = re.compile(r".*[.?!…。？！][\"'”»)]?\s*$", re.DOTALL)  # noqa: RUF001
_NUMBER = re.compile(r"\s*[-+]?\d[\d.,:/ \-]*%?\s*$")

Row = tuple[int, list[str]]
"""A row's number in the file, and its cells."""


@dataclass(frozen=True)
class Head:
    """The columns' names by position, "" where one has none; the number of first rows that are no data; what to say of it."""

    names: list[str]
    rows: int
    line: int | None
    """Where the header stands; None where there is none."""
    remark: str | None = None

    @property
    def columns(self) -> list[str]:
        """The names of the columns that are read."""
        return list(dict.fromkeys(name for name in self.names if name.strip()))

    @cached_property
    def is_plain(self) -> bool:
        """Whether every column has a name of its own."""
        return all(name.strip() for name in self.names) and len(set(self.names)) == len(self.names)

    @property
    def width(self) -> int:
        """The cells that a row needs: up to the last column with a name."""
        return max((position for position, name in enumerate(self.names, start=1) if name.strip()), default=0)

    def values(self, cells: Sequence[str], name: str) -> dict[str, Value]:
        """A row's values by column; a column whose name stands twice is none that can be used."""
        if self.is_plain:
            return dict(zip(self.names, cells, strict=False))
        found: dict[str, Value] = {}
        for column, cell in zip(self.names, cells, strict=False):
            if column in found:
                found[column] = self._twice(column, name)
            elif column.strip():
                found[column] = cell
        return found

    def _twice(self, column: str, name: str) -> Unusable:
        positions = [str(position) for position, other in enumerate(self.names, start=1) if other == column]
        return Unusable(
            f'the columns {" and ".join(positions)} are both named "{column}"; rename one of them.',
            location=f"{name}:{self.line}",
        )


def find(rows: Sequence[Row], *, has_header: bool | None = None) -> Head:
    """The head of a table by its first rows, blank ones left out. `has_header` is what a file says itself."""
    if not rows:
        return Head([], 0, None)
    titles = count_titles(rows) if has_header is None else 0
    line, first = rows[titles]
    if has_header is False or (has_header is None and not titles and not _is_header([cells for _, cells in rows])):
        width = usual_width([cells for _, cells in rows])
        names = [str(number) for number in range(1, width + 1)]
        return Head(
            names, 0, None, f"no header, so the columns are named {names[0]}" + (f" to {width}" if width > 1 else "")
        )
    names = [name.strip() if name.strip() else "" for name in first]
    where = "" if not titles else f"the header is on line {line}, what stands above it is not read"
    return Head(names, titles + 1, line, where or None)


def filled(cells: Sequence[str]) -> int:
    """The number of cells up to the last one that is not blank."""
    return max((position for position, cell in enumerate(cells, start=1) if cell.strip()), default=0)


def usual_width(rows: Sequence[Sequence[str]]) -> int:
    """The number of cells that fits most rows, blank cells at the end counted or not; of two as frequent, the larger."""
    known = {filled(cells) for cells in rows} - {0}
    return max(known, key=lambda width: (sum(fits(cells, width) for cells in rows), width), default=0)


def fits(cells: Sequence[str], width: int) -> bool:
    """Whether a row has as many cells, up to blank ones at its end."""
    return filled(cells) <= width <= len(cells)


def count_titles(rows: Sequence[Row]) -> int:
    """The number of rows above the header: those with a single cell, before a row that has names for all columns.

    A lone word above the others is no title, since it may name a single column.
    """
    width = usual_width([cells for _, cells in rows])
    above = next((number for number, (_, cells) in enumerate(rows) if filled(cells) == width), 0)
    if width < 2 or not 0 < above <= MOST_TITLES or len(rows) <= above + 1:
        return 0
    titles, (line, header) = rows[:above], rows[above]
    names = [cell.strip() for cell in header[:width]]
    if len(set(names)) < width or not all(_is_name(name) for name in names):
        return 0
    set_apart = line - titles[-1][0] > 1 or all(len(cells) >= width for _, cells in titles)
    words = any(len(title.split()) > 1 for _, cells in titles for title in cells[:1])
    return above if all(filled(cells) <= 1 for _, cells in titles) and (set_apart or words) else 0


def _is_name(cell: str) -> bool:
    return bool(cell) and len(cell) <= LONGEST_NAME // 2 and not _SENTENCE.match(cell) and not _NUMBER.match(cell)


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: it does, unless it resembles the rows below it."""
    first, rest = rows[0], rows[1:]
    if [cell.strip() for cell in first] in ([str(n + start) for n in range(len(first))] for start in (0, 1)):
        return True  # as pandas names columns that have no names
    if any(len(cell) > LONGEST_NAME for cell in first):
        return False
    if any(
        _is_name_of_numbers(cell, [row[position] for row in rest if position < len(row)])
        for position, cell in enumerate(first)
    ):
        return True
    sentences = all(_SENTENCE.match(cell) for cell in first if cell.strip())
    for position, cell in enumerate(first):
        below = [row[position] for row in rest if position < len(row) and row[position].strip() and row != first]
        if not cell.strip() or not below:
            continue
        patterns = (_NUMBER, _SENTENCE) if len(cell.split()) > 1 or sentences else (_NUMBER,)
        same_kind = (pattern for pattern in patterns if pattern.match(cell))
        if any(2 * sum(bool(pattern.match(other)) for other in below) >= len(below) for pattern in same_kind):
            return False
        if below.count(cell) > 1:
            return False
    return True


def _is_name_of_numbers(cell: str, below: Sequence[str]) -> bool:
    """Whether words stand above numbers, dates or the like."""
    full = [other for other in below if other.strip()]
    numbers = sum(bool(_NUMBER.match(other)) for other in full)
    return bool(cell.strip()) and not _NUMBER.match(cell) and numbers > 1 and 5 * numbers >= 4 * len(full)
