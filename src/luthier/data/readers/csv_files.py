"""CSV and TSV to rows, each with the line on which it starts."""

import csv
from collections.abc import Iterator

from luthier.data.readers.sources import Source
from luthier.data.readers.values import Record, Value, count, shown
from luthier.errors import UserError

LARGEST_CELL = 2**31 - 1


def columns(source: Source) -> list[str]:
    """The names in the header."""
    _, header = next(_records(source), (1, []))
    return [name for name in header if name.strip()]


def read_csv(source: Source) -> Iterator[Record]:
    """A row per record, cells as text; the first record names the columns, and a column without a name is not read.

    Cells are parted by tabs in .tsv, else by commas, or by semicolons where the header has these and no comma (as
    spreadsheets write in countries with a decimal comma).
    """
    csv.field_size_limit(LARGEST_CELL)  # the module's own limit of 128 KiB is one long document
    records = _records(source)
    _, header = next(records, (1, []))
    if not header:
        raise source.empty()
    named = [name for name in header if name.strip()]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise UserError(f'two columns are named "{twice}"; rename one of them.', where=f"{source.name}:1")
    for line, cells in records:
        if len(cells) != len(header):
            raise UserError(
                f"found {count(len(cells), 'cell')}, expected {len(header)} ({shown(header)}). "
                "A cell that holds a separator or a line end needs double quotes around it.",
                where=f"{source.name}:{line}",
            )
        values: dict[str, Value] = {name: cell for name, cell in zip(header, cells, strict=True) if name.strip()}
        yield Record(f"{source.name}:{line}", values)


def _records(source: Source) -> Iterator[tuple[int, list[str]]]:
    """The line on which each record starts, and its cells; blank lines are none."""
    lines = source.lines()
    first = next(lines)
    separator = "\t" if ".tsv" in source.name.lower() else ";" if ";" in first and "," not in first else ","

    def again() -> Iterator[str]:
        yield first
        yield from lines

    # Strict: without it, a quote that is never closed swallows the rest of the file in silence.
    reader = csv.reader(again(), delimiter=separator, strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        reasons = {"unexpected end of data": "a double quote opens a cell here and is never closed"}
        reason = reasons.get(str(error), str(error))
        if reason.startswith("new-line character"):
            reason = "a carriage return (CR) inside a row, as old Mac files have"
        raise UserError(
            f'not valid CSV: {reason}. A cell with quotes, separators or line ends is written "like ""this""", '
            "and lines end with LF or CRLF.",
            where=f"{source.name}:{start}",
        ) from None
