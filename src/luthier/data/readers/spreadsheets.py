"""Spreadsheets (.xlsx, .xls, .ods) to rows, by calamine: the values that cells show, with the row's number in its sheet.

calamine gives an empty text for a cell with an error, and for a formula that was never computed; in .xlsx both are
found in the sheet itself, so that they are told rather than trained.
"""

import datetime
import io
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from luthier.data.readers import headers
from luthier.data.readers.csv_files import HEAD_ROWS
from luthier.data.readers.headers import filled
from luthier.data.readers.packing import HIGHEST_RATIO, TRUSTED
from luthier.data.readers.sources import LARGEST_DOCUMENT, Source
from luthier.data.readers.values import Record, Unusable, Value, shown
from luthier.errors import MachineError, UserError

_ERROR = re.compile(
    rb'<c (?=[^>]*\bt="e")[^>]*\br="([A-Z]+)(\d+)"[^>]*>(?:<f.*?</f>|<f[^>]*/>)?<v>([^<]*)</v>', re.DOTALL
)
_NOT_COMPUTED = re.compile(
    rb'<c (?=[^>]*\br="([A-Z]+)(\d+)")[^>]*>(?:<f[^>/]*>[^<]*</f>|<f[^>]*/>)(?:<v\s*/>|<v></v>)?</c>'
)


def read_spreadsheet(source: Source) -> Iterator[Record]:
    """A row per row below the header, placed by its number: `x.xlsx:row 5`, or `x.xlsx#Sheet:row 5`."""
    rows, faults = _grid(source)
    kept = [(number, cells) for number, cells in rows if filled(cells)]
    if not kept:
        raise source.empty()
    head = headers.find(list(islice(kept, HEAD_ROWS)))
    if head.remark:
        source.remark(f"{source.name}: {head.remark}")
    for number, cells in kept[head.rows :]:
        values = head.values([*cells, *[""] * (len(head.names) - len(cells))], source.name)
        for position, name in enumerate(head.names):
            if (number, position) in faults and name in values:
                values[name] = faults[number, position]
        yield Record(f"{source.name}:row {number}", values)


Faults = dict[tuple[int, int], Value]
"""What is wrong with cells, by row (from 1) and column (from 0)."""


def _grid(source: Source) -> tuple[list[tuple[int, list[str]]], Faults]:
    """All rows of the sheet as texts with their numbers, and the cells that hold no value."""
    calamine = _calamine(source)
    with source.open() as stream:
        content = stream.read(LARGEST_DOCUMENT + 1)
    _expect_measure(content, source)
    try:
        book = calamine.load_workbook(io.BytesIO(content))
        name, rows = _sheet(book, source)
    except calamine.PasswordError:
        raise UserError("the spreadsheet has a password. Save it without one.", where=source.name) from None
    except calamine.CalamineError as error:
        raise UserError(
            f"not a sound spreadsheet ({str(error).rstrip('.')}). Save it again, or as CSV (UTF-8).", where=source.name
        ) from None
    texts = [(number, [_text(cell) for cell in row]) for number, row in enumerate(rows, start=1)]
    return texts, _faults(content, name)


def _sheet(book: Any, source: Source) -> tuple[str, list[list[object]]]:
    """The sheet that was named, or the only one with something in it."""
    names = list(book.sheet_names)
    if source.part is not None:
        if source.part not in names:
            raise UserError(f'no sheet "{source.part}" in it. There are {shown(names)}.', where=source.name)
        return source.part, book.get_sheet_by_name(source.part).to_python(skip_empty_area=False)
    sheets = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in names}
    full = [name for name, rows in sheets.items() if any(cell != "" for row in rows for cell in row)]
    if not full:
        raise source.empty()
    if len(full) > 1:
        raise UserError(
            f"the spreadsheet has the sheets {shown(full)}. Name the one that holds the rows: {source.path}#{full[0]}.",
            where=source.name,
        )
    return full[0], sheets[full[0]]


def _text(cell: object) -> str:
    """A cell's value as a spreadsheet shows it, without its format: 7 for 7.0, and 15 digits at most."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return f"{cell:.15g}"
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(sep=" ")
    return str(cell)  # texts, whole numbers, dates, times


def _faults(content: bytes, sheet: str) -> Faults:
    """In .xlsx, the cells of a sheet with an error or without the value of their formula."""
    found: Faults = {}
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return found
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        member = _member(book, sheet)
        xml = book.read(member) if member else b""
    for column, row, error in _ERROR.findall(xml):
        found[int(row), _position(column)] = Unusable(f"an error in the cell ({error.decode()})")
    for column, row in _NOT_COMPUTED.findall(xml):
        found[int(row), _position(column)] = Unusable(
            "a formula that was never computed; open and save the spreadsheet"
        )
    return found


def _member(book: zipfile.ZipFile, sheet: str) -> str | None:
    """The member of an .xlsx that holds a sheet."""
    names = set(book.namelist())
    if "xl/workbook.xml" not in names or "xl/_rels/workbook.xml.rels" not in names:
        return None
    links = {
        link.get("Id"): link.get("Target", "")
        for link in ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
    }
    for element in ElementTree.fromstring(book.read("xl/workbook.xml")).iter():
        if element.tag.endswith("}sheet") and element.get("name") == sheet:
            key = next((value for name, value in element.attrib.items() if name.endswith("}id")), None)
            target = links.get(key, "")
            path = target.lstrip("/") if target.startswith("/") else str(PurePosixPath("xl") / target)
            return path if path in names else None
    return None


def _position(letters: bytes) -> int:
    """A column's position from 0: of A, of B, of AA."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number - 1


def _expect_measure(content: bytes, source: Source) -> None:
    """Refuses a spreadsheet that would fill the memory."""
    size = len(content)
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            size = sum(member.file_size for member in book.infolist())
    if size > max(TRUSTED, HIGHEST_RATIO * len(content)) or size > LARGEST_DOCUMENT:
        raise UserError(
            f"too large for a spreadsheet: {size:,} bytes when unpacked. Save it as CSV (UTF-8).", where=source.name
        )


def _calamine(source: Source) -> Any:
    try:
        import python_calamine
    except ImportError:
        raise MachineError(
            'spreadsheets need one more package: pip install "luthier[spreadsheets]". Or save it as CSV (UTF-8).',
            where=source.name,
        ) from None
    return python_calamine
