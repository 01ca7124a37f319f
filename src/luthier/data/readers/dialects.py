"""Which character parts the cells of a CSV file: the one that gives most lines the same number of cells.

Python's own csv.Sniffer takes letters for separators and knows nothing of titles above a table; clevercsv's better guess
takes seconds for a megabyte.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from luthier.data.readers.headers import count_titles, filled, fits, usual_width

SEPARATORS = (",", ";", "\t", "|")
NAMED = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
ANKI = re.compile(r"#(separator|html|tags|columns|notetype|deck|guid|if matches|\w+ column):(.*)")
ANKI_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|", "colon": ":", r"\t": "\t"}


@dataclass(frozen=True)
class Dialect:
    """How a file's lines are cells. `first` lines are instructions; `names` are the columns that these name."""

    separator: str
    first: int = 0
    names: tuple[str, ...] | None = None
    has_header: bool | None = None
    skip_blanks: bool = False
    """Whether blanks behind a separator are no part of the cell: `"a", "b"`."""
    width: int = 1
    """The number of cells that most rows have."""
    has_html: bool = False
    """Whether the file says that its cells hold HTML."""
    quoted: bool = False
    """Whether quotes stand around the first cell, as around every cell of some files."""


def detect(lines: Sequence[str], endings: Sequence[str]) -> Dialect:
    """The dialect of a file by its first lines, of which none is cut off."""
    if found := re.match(r'"?sep=(.)"?\r?\n', lines[0]):
        return _measured(lines[1:], found[1], first=1)
    spoken = {}
    for line in lines:
        if not (found := ANKI.match(line.rstrip("\r\n"))):
            break
        spoken[found[1]] = found[2]
    if spoken:
        rest, word = lines[len(spoken) :], spoken.get("separator", "").strip().lower()
        separator = ANKI_SEPARATORS.get(word) or (word if len(word) == 1 else _separator(rest, endings))
        names = tuple(spoken["columns"].split(separator)) if "columns" in spoken else None
        found_dialect = _measured(rest, separator, first=len(spoken), names=names, has_header=False)
        return replace(found_dialect, has_html=spoken.get("html", "").strip().lower() == "true")
    return _measured(lines, _separator(lines, endings))


def _separator(lines: Sequence[str], endings: Sequence[str]) -> str:
    """The separator with the most lines alike; one that the name promises wins where two are equal."""
    promised = next((NAMED[ending] for ending in endings if ending in NAMED), ",")
    order = [promised, *(each for each in SEPARATORS if each != promised)]
    scores = {separator: _score(lines, separator) for separator in order}
    best = max(order, key=lambda separator: scores[separator])
    if scores[best] > 0:
        return best
    # A single column: the separator that no line has outside of quotes, so that each is one cell.
    return next((each for each in order if all(filled(cells) < 2 for cells in _parted(lines, each))), promised)


def _score(lines: Sequence[str], separator: str) -> float:
    """The share of rows that have the usual number of cells; 0 where that is one, or where the first row has only one."""
    rows = [row for row in enumerate(_parted(lines, separator)) if filled(row[1])]
    width = usual_width([cells for _, cells in rows])
    if width < 2 or (filled(rows[0][1]) < 2 and not count_titles(rows)):
        return 0.0
    return sum(fits(cells, width) for _, cells in rows) / len(rows)


def _measured(
    lines: Sequence[str], separator: str, first: int = 0, *,
    names: tuple[str, ...] | None = None, has_header: bool | None = None,
) -> Dialect:  # fmt: skip
    plain = _parted(lines, separator)
    blanks = any(cell.startswith(' "') for cells in plain for cell in cells)
    rows = _parted(lines, separator, skip_blanks=True) if blanks else plain
    quoted = bool(lines) and lines[0].startswith('"')
    return Dialect(separator, first, names, has_header, blanks, usual_width(rows), quoted=quoted)


def _parted(lines: Sequence[str], separator: str, *, skip_blanks: bool = False) -> list[list[str]]:
    """The lines as cells, leniently: what is broken is told when the rows are read."""
    try:
        return list(csv.reader(lines, delimiter=separator, skipinitialspace=skip_blanks))
    except csv.Error:
        return [line.rstrip("\r\n").split(separator) for line in lines]


def with_inner_quotes(line: str, separator: str) -> list[str] | None:
    """The cells of a line where a quote closes a cell only in front of a separator or the end: `"The "big" one",yes`."""
    cells, position = [], 0
    while position <= len(line):
        if line.startswith('"', position):
            closing = re.compile(rf'"(?={re.escape(separator)}|$)').search(line, position + 1)
            if closing is None:
                return None
            cells.append(line[position + 1 : closing.start()].replace('""', '"'))
            position = closing.end() + 1
        else:
            end = line.find(separator, position)
            end = len(line) if end < 0 else end
            cells.append(line[position:end])
            position = end + 1
    return cells
