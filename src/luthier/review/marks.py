"""Reviewers' marks: files of marks to lines that say whose answer was chosen; what does not fit is told with its line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from luthier.data.files import read_rows
from luthier.data.values import Row, as_text
from luthier.errors import UserError, nearest, together
from luthier.review import sheet as sheets
from luthier.review.sheet import Sheet
from luthier.runs import Run
from luthier.runs.durable import read_json_lines, write_atomic

MARKS = {"a": "A", "b": "B", "tie": "tie", "=": "tie", "equal": "tie", "both bad": "both bad", "bad": "both bad"}
"""What may stand in the column `mark`, in upper or lower case → what it means; an empty cell is no mark."""

NEEDED = ("sheet", "number", "mark")
FILE = "review/marks.jsonl"
Line = dict[str, str | int]


def take_in(run: Run, files: Sequence[Path]) -> tuple[Sheet, list[Line]]:
    """Enter files of marks; gives the sheet and all marks of the run. A reviewer's new file replaces the earlier one.

    Nothing is entered if anything is wrong; all that is wrong is told at once.
    """
    sheet = sheets.current(run)
    new: dict[tuple[str, int], Line] = {}
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


def _read(file: Path, sheet: Sheet, new: dict[tuple[str, int], Line]) -> None:
    """One file's marks into `new`, by reviewer and number; raises one UserError of all that is wrong in it."""
    rows = list(read_rows(file))
    _expect_sheet(file, rows, sheet)
    errors = []
    places: dict[tuple[str, int], str] = {}
    for row in rows:
        cells = {name: as_text(value).strip() for name, value in row.values.items()}
        if not cells["mark"]:
            continue
        try:
            line = _line(cells, row.place, sheet, default=file.name.split(".")[0])
        except UserError as error:
            errors.append(error)
            continue
        key = (str(line["reviewer"]), int(line["number"]))
        if key in places or key in new:
            first = places.get(key, "another file")
            told = f"{key[0]} marks question {key[1]} twice (the first is {first}); keep one of the marks."
            errors.append(UserError(told, where=row.place))
        places[key] = row.place
        new.setdefault(key, line)
    if errors:
        raise together(errors)
    if not places:
        raise UserError(f"no marks in it; the column mark takes {_words()}.", where=str(file))


def _expect_sheet(file: Path, rows: Iterable[Row], sheet: Sheet) -> None:
    for row in rows:
        if missing := [name for name in NEEDED if name not in row.values]:
            found = ", ".join(row.values)
            raise UserError(
                f"no column {' and '.join(missing)}, found {found}. Export a sheet and fill in its column mark.",
                where=str(file),
            )
        found = as_text(row.values["sheet"]).strip()
        if found != sheet.id:
            raise UserError(
                f'belongs to the sheet "{found}", and this run\'s sheet is "{sheet.id}": marks on other answers, which '
                "say nothing about these. Name the run that the sheet was made of.",
                where=row.place,
            )


def _line(cells: Mapping[str, str], place: str, sheet: Sheet, *, default: str) -> Line:
    """One mark, with the arm that it chooses."""
    known = {str(entry.number): entry for entry in sheet.entries}
    entry = known.get(cells["number"])
    if entry is None:
        raise UserError(
            f'there is no question "{cells["number"]}" on the sheet; it has 1 to {len(sheet.entries)}. '
            "Leave the column number as it was exported.",
            where=place,
        )
    mark = MARKS.get(cells["mark"].casefold())
    if mark is None:
        guess = nearest(cells["mark"], MARKS)
        hint = f'did you mean "{guess}"? ' if guess else ""
        raise UserError(f'unknown mark "{cells["mark"]}", {hint}expected {_words()}.', where=place)
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
