"""Reviewers' marks: files of marks → records of which arm was chosen; errors name file and line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from luthier.data.readers.files import read_rows
from luthier.data.readers.values import Record, as_text
from luthier.errors import UserError, nearest, together
from luthier.review import sheet as sheets
from luthier.review.sheet import Sheet
from luthier.runs import Run
from luthier.runs.durable import read_json_lines, write_atomic

MARKS = {"a": "A", "b": "B", "tie": "tie", "=": "tie", "equal": "tie", "both bad": "both bad", "bad": "both bad"}
"""What may stand in the column `mark`, in upper or lower case → what it means; an empty cell is no mark."""

COLUMNS = ("sheet", "number", "mark")
FILE = "review/marks.jsonl"
MarkRecord = dict[str, str | int]


def import_files(run: Run, files: Sequence[Path]) -> tuple[Sheet, list[MarkRecord]]:
    """Add files of marks to the run; gives its sheet and all its marks. A reviewer's new file replaces the earlier one.

    If anything is wrong, nothing is added, and one UserError names everything that is wrong.
    """
    sheet = sheets.current(run)
    new: dict[tuple[str, int], MarkRecord] = {}
    errors: list[UserError] = []
    for file in files:
        try:
            _read(file, sheet, new)
        except UserError as error:
            errors.append(error)
    if errors:
        raise together(errors)
    replaced = {line["reviewer"] for line in new.values()}
    kept = [line for line in read_json_lines(run.folder / FILE) if line["reviewer"] not in replaced]
    lines = [*kept, *new.values()]
    write_atomic(run.folder / FILE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return sheet, lines


def _read(file: Path, sheet: Sheet, new: dict[tuple[str, int], MarkRecord]) -> None:
    """One file's marks into `new`, by reviewer and number; raises one UserError of all that is wrong in it."""
    rows = list(read_rows(file))
    _expect_sheet(file, rows, sheet)
    errors = []
    locations: dict[tuple[str, int], str] = {}
    for row in rows:
        cells = {name: as_text(value).strip() for name, value in row.values.items()}
        if not cells["mark"]:
            continue
        try:
            line = _line(cells, row.location, sheet, default=file.name.split(".")[0])
        except UserError as error:
            errors.append(error)
            continue
        key = (str(line["reviewer"]), int(line["number"]))
        if key in locations or key in new:
            first = locations.get(key, "another file")
            message = f"{key[0]} marks question {key[1]} twice (the first is {first}); keep one of the marks."
            errors.append(UserError(message, where=row.location))
        locations[key] = row.location
        new.setdefault(key, line)
    if errors:
        raise together(errors)
    if not locations:
        raise UserError(f"no marks in it; the column mark takes {_words()}.", where=str(file))


def _expect_sheet(file: Path, rows: Iterable[Record], sheet: Sheet) -> None:
    for row in rows:
        if missing := [name for name in COLUMNS if name not in row.values]:
            found = ", ".join(row.values)
            raise UserError(
                f"no column {' and '.join(missing)}, found {found}. Export a sheet and fill in its column mark.",
                where=str(file),
            )
        found = as_text(row.values["sheet"]).strip()
        if found != sheet.id:
            raise UserError(
                f'belongs to the sheet "{found}", but this run\'s sheet is "{sheet.id}": its marks are about other answers. '
                "Name the run that the sheet was made from.",
                where=row.location,
            )


def _line(cells: Mapping[str, str], location: str, sheet: Sheet, *, default: str) -> MarkRecord:
    """One mark, with the arm that it chooses."""
    known = {str(entry.number): entry for entry in sheet.entries}
    entry = known.get(cells["number"])
    if entry is None:
        raise UserError(
            f'the sheet has no question "{cells["number"]}"; it has 1 to {len(sheet.entries)}. '
            "Leave the column number as it was exported.",
            where=location,
        )
    mark = MARKS.get(cells["mark"].casefold())
    if mark is None:
        guess = nearest(cells["mark"], MARKS)
        hint = f'did you mean "{guess}"? ' if guess else ""
        raise UserError(f'unknown mark "{cells["mark"]}", {hint}expected {_words()}.', where=location)
    return {
        "reviewer": cells.get("reviewer") or default,
        "number": entry.number,
        "item": entry.item,
        "mark": mark,
        "chosen": sheet.owner(entry, mark) if mark in ("A", "B") else mark,
        "comment": cells.get("comment", ""),
    }


def _words() -> str:
    return "A, B, tie or both bad"
