"""CSV and its kin to rows, each with the line on which it starts; cells stay the texts that they are.

Separator, titles and header are found from the content (`dialects`, `headers`). Every row must then have the cells that
the header names: what does not fit is a message with its line, and no row is ever two, or two one.
"""

import contextlib
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, dropwhile, islice
from typing import NoReturn

from luthier.data.readers import dialects, headers, sources
from luthier.data.readers.dialects import Dialect
from luthier.data.readers.headers import Head, Row, filled
from luthier.data.readers.sources import Source
from luthier.data.readers.values import Record, count, shown
from luthier.errors import UserError

LARGEST_CELL = 2**31 - 1
SAMPLE_LINES, SAMPLE_SIZE = 1000, 1 << 20  # characters
HEAD_ROWS = 100
LISTED = 10
"""Other broken lines whose numbers a message gives."""
QUOTED = 'A cell with quotes, separators or line ends is written "like ""this"""'


def read_csv(source: Source) -> Iterator[Record]:
    """A row per record; columns without a name are not read, nor are blank cells behind the last column."""
    dialect, head, rows = _start(source)
    names, width = head.names, head.width
    for line, cells in rows:
        if len(cells) != len(names) and (len(cells) < width or filled(cells) > len(names)):
            _refuse_width(source, dialect, head, (line, cells), rows)
        if cells == names and head.line is not None:
            source.remark(f"{source.name}:{line}: the header stands here again, and is no row")
            continue
        yield Record(f"{source.name}:{line}", head.values(cells, source.name))


def _start(source: Source) -> tuple[Dialect, Head, Iterator[Row]]:
    """How the file is to be read, its columns, and the rows behind its header."""
    csv.field_size_limit(LARGEST_CELL)  # the module's own limit of 128 KiB is one long document
    lines = source.lines()
    sample, size = [], 0
    for line in islice(lines, SAMPLE_LINES):
        sample.append(line)
        size += len(line)
        if size > SAMPLE_SIZE:
            break
    endings = re.findall(r"\.\w+", source.name.lower())
    dialect = dialects.detect(sample, endings)
    records = _Records(source, dialect, chain(sample[dialect.first :], lines))
    rows = iter(records)
    first = list(islice(dropwhile(lambda row: not filled(row[1]), rows), HEAD_ROWS))
    if not first:
        raise source.empty()
    head = Head([*dialect.names], 0, None) if dialect.names else headers.find(first, has_header=dialect.has_header)
    if head.remark:
        source.remark(f"{source.name} has {head.remark}" if head.line is None else f"{source.name}: {head.remark}")
    if dialect.has_html and any(sign in cell for _, cells in first for cell in cells for sign in "<&"):
        source.remark(f"{source.name}: its cells hold HTML, which is text here")
    return dialect, head, chain(first[head.rows :], rows)


@dataclass
class _Records:
    """The records of a file, each with the line on which it starts; blank lines are none."""

    source: Source
    dialect: Dialect
    lines: Iterator[str]

    def __post_init__(self) -> None:
        self.pending: list[str] = []  # the lines of the record that is being read
        self.size = 0
        self.start = self.dialect.first + 1

    def __iter__(self) -> Iterator[Row]:
        # Strict: without it, a quote that is never closed swallows the rest of the file in silence.
        dialect = self.dialect
        reader = csv.reader(self._fed(), delimiter=dialect.separator, skipinitialspace=dialect.skip_blanks, strict=True)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield from self._repaired(error)
            else:
                if len(self.pending) > 1 and self._is_stray():
                    yield from self._apart()
                elif cells:
                    yield self.start, cells
            self._next()

    def _repaired(self, error: csv.Error) -> Iterator[Row]:
        """The rows of lines that are not quoted as they should, where what is meant is plain; else a message."""
        if str(error).startswith("unexpected end") and self._is_stray():
            yield from self._apart()
            return
        cells = dialects.with_inner_quotes(self.pending[0].rstrip("\r\n"), self.dialect.separator)
        if len(self.pending) > 1 or cells is None or len(cells) != self.dialect.width:
            self._refuse(error)
        self._remark("double quotes inside of a quoted cell are read as text")
        yield self.start, cells

    def _fed(self) -> Iterator[str]:
        for line in self.lines:
            self.pending.append(line)
            self.size += len(line)
            if self.size > sources.LONGEST_LINE:
                self._refuse(csv.Error("unexpected end of data"))
            yield line

    def _next(self) -> None:
        self.start += len(self.pending)
        self.pending.clear()
        self.size = 0

    def _is_stray(self) -> bool:
        """Whether a quote glued lines that are rows by themselves, each with all its cells.

        Only tabs tell for certain: a text with as many commas on each of its lines is told, and left alone.
        """
        separator, width = self.dialect.separator, self.dialect.width
        lines = [line for line in self.pending if line.strip()]
        alike = width > 1 and len(lines) > 1 and all(line.count(separator) == width - 1 for line in lines)
        if not alike or self.dialect.quoted:
            return False
        if separator != "\t" and len(lines) > 2 and not any(f"{separator} " in line for line in lines):
            last = self.start + len(self.pending) - 1
            self._remark(
                f"a cell goes on to line {last}, over lines that look like rows; is one double quote too many?"
            )
        return separator == "\t"

    def _remark(self, text: str) -> None:
        self.source.remark(f"{self.source.name}:{self.start}: {text}")

    def _apart(self) -> Iterator[Row]:
        """The lines that a quote glued, as rows."""
        self._remark("a double quote that opens no cell is read as text")
        for number, line in enumerate(self.pending, start=self.start):
            if line.strip():
                yield number, line.rstrip("\r\n").split(self.dialect.separator)

    def _refuse(self, error: csv.Error) -> NoReturn:
        reasons = {
            "unexpected end of data": "a double quote opens a cell here and is never closed",
            "new-line character": "a carriage return (CR) inside a row, as old Mac files have",
        }
        reason = next((meaning for start, meaning in reasons.items() if str(error).startswith(start)), None)
        if reason is None:
            reason = "behind the closing quote of a cell stands more text"
        raise UserError(f"not valid CSV: {reason}. {QUOTED}.", where=f"{self.source.name}:{self.start}") from None


def _refuse_width(source: Source, dialect: Dialect, head: Head, row: Row, rest: Iterator[Row]) -> NoReturn:
    """The message for a row with more or fewer cells than the header, with the other rows like it."""
    line, cells = row
    wanted = head.width
    found = f"found {count(len(cells), 'cell')}, expected {wanted} ({shown([name for name in head.names if name])})."
    if len(cells) < wanted:
        advice = f"{QUOTED}; one that is empty has its separator all the same."
    else:
        text = dialect.separator.join(cells[wanted - 1 :]).replace('"', '""')
        text = text if len(text) <= 40 else f"{text[:40]}…"
        advice = f'If the separator belongs to the text, put double quotes around it: "{text}".'
    others = []
    with contextlib.suppress(UserError):  # one message at a time
        others = [other for other, more in rest if not wanted <= len(more) or filled(more) > len(head.names)]
    more = ""
    if others:
        listed = ", ".join(map(str, others[:LISTED])) + (
            f" and {len(others) - LISTED:,} more" if len(others) > LISTED else ""
        )
        more = f" The same on line{'s' * (len(others) > 1)} {listed}."
    raise UserError(f"{found} {advice}{more}", where=f"{source.name}:{line}")
