"""Text files to rows: JSON Lines, JSON, CSV and TSV, each row with the line on which it starts."""

import csv
from collections.abc import Callable, Iterator

from luthier.data.readers.parquet import read_parquet
from luthier.data.readers.sources import Source
from luthier.data.readers.values import JSONFault, Record, Value, blank, decode, decode_only, kind
from luthier.errors import UserError

EXAMPLE = '{"question": "…", "answer": "…"}'
LARGEST_CELL = 2**31 - 1
SHOWN = 12
"""Column names, and characters around a fault, that a message shows."""


def read_jsonl(source: Source) -> Iterator[Record]:
    """A row per line, one line in memory at a time; blank lines are none."""
    for number, line in enumerate(source.lines(), start=1):
        if not line.strip():
            continue
        location = f"{source.name}:{number}"
        try:
            value = decode_only(line)
        except JSONFault as fault:
            raise UserError(
                f"not valid JSON{_column(line, fault)}: {fault}{_around(line, fault)}. Expected one object per line, "
                f"such as {EXAMPLE}. {_line_advice(line)}",
                where=location,
            ) from None
        if not isinstance(value, dict):
            raise UserError(
                f"found {kind(value)}, expected an object such as {EXAMPLE}. {_line_advice(line)}", where=location
            )
        yield Record(location, value)


def read_json(source: Source) -> Iterator[Record]:
    """A row per object of the list: the whole file, or the only list in the file's one object.

    Rows that share a line with the one before are told apart by their number: `x.json:1, record 12`.
    """
    text = source.text()
    try:
        start = blank(text, 0)
        alone = text.startswith("[", start)
        if text.startswith("{", start):
            start = _only_list(text, start, source)
        elif not alone:
            value = decode_only(text)
            raise UserError(f"found {kind(value)}, expected a list of objects such as [{EXAMPLE}].", where=source.name)
        line, counted, shared = 1, 0, False
        for number, (position, value) in enumerate(_elements(text, start, alone=alone), start=1):
            lines = text.count("\n", counted, position)
            line, counted, shared = line + lines, position, number > 1 and not lines
            location = f"{source.name}:{line}" + (f", record {number}" if shared else "")
            if not isinstance(value, dict):
                raise UserError(
                    f"found {kind(value)} in the list, expected an object such as {EXAMPLE}.", where=location
                )
            yield Record(location, value)
    except JSONFault as fault:
        location = source.name
        if fault.position is not None:
            location += f":{text.count(chr(10), 0, fault.position) + 1}"
        raise UserError(
            f"not valid JSON{_column(text, fault)}: {fault}{_around(text, fault)}. Expected a list of objects "
            f"such as [{EXAMPLE}]. Put this right, or if the file has one object per line, name it .jsonl.",
            where=location,
        ) from None


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
                f"found {_count(len(cells), 'cell')}, expected {len(header)} ({shown(header)}). "
                "A cell that holds a separator or a line end needs double quotes around it.",
                where=f"{source.name}:{line}",
            )
        values: dict[str, Value] = {name: cell for name, cell in zip(header, cells, strict=True) if name.strip()}
        yield Record(f"{source.name}:{line}", values)


def _records(source: Source) -> Iterator[tuple[int, list[str]]]:
    """The line on which each record starts, and its cells; blank lines are none."""
    lines = source.lines()
    first = next(lines)
    separator = "\t" if source.kind == ".tsv" else ";" if ";" in first and "," not in first else ","

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


def _elements(text: str, start: int, *, alone: bool) -> Iterator[tuple[int, Value]]:
    """The items of the list that opens at `start`, each with its offset; after one that is `alone` nothing follows."""
    position = blank(text, start + 1)
    closed = text.startswith("]", position)
    while not closed:
        value, end = decode(text, position)
        yield position, value
        closed = text.startswith("]", end)
        if not closed and not text.startswith(",", end):
            raise JSONFault("Expecting ',' delimiter", end)
        position = end if closed else blank(text, end + 1)
    rest = blank(text, position + 1)
    if alone and rest < len(text):
        raise JSONFault("more text behind a list", rest)


def _only_list(text: str, start: int, source: Source) -> int:
    """The offset at which the only list among the values of the object at `start` opens."""
    whole = decode_only(text)
    assert isinstance(whole, dict)
    lists = [name for name, value in whole.items() if isinstance(value, list)]
    if len(lists) != 1:
        found = f"the lists {shown(lists)}" if lists else f"no list (keys: {shown(list(whole))})"
        raise UserError(
            f"found an object with {found}; expected a list of objects such as [{EXAMPLE}], or an object with one such "
            "list in it. Keep the list that holds the rows.",
            where=source.name,
        )
    position = start
    while True:
        name, colon = decode(text, position + 1)
        value_at = blank(text, colon + 1)
        if name == lists[0]:
            return value_at
        _, position = decode(text, value_at)


def shown(names: list[str]) -> str:
    """The names, with commas; of a long list, the first ones and the count."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _column(text: str, fault: JSONFault) -> str:
    """` at column 12`, counted in characters from 1 on the fault's line."""
    if fault.position is None:
        return ""
    return f" at column {fault.position - text.rfind(chr(10), 0, fault.position)}"


def _around(text: str, fault: JSONFault) -> str:
    """What stands at the fault, for the eye to find it."""
    if fault.position is None:
        return ""
    rest = text[fault.position :].split("\n", 1)[0].rstrip()
    if not rest:
        return ", where the line ends"
    return f", found {rest[:SHOWN]}" + ("…" if len(rest) > SHOWN else "")


def _line_advice(line: str) -> str:
    """What to do about a line that is no object: a JSON document in the wrong kind of file, or a broken line."""
    if line.strip() in "{[" or line.lstrip().startswith("[{"):
        return "This looks like one JSON document: name the file .json."
    return "Put this line right or remove it."


READERS: dict[str, Callable[[Source], Iterator[Record]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
