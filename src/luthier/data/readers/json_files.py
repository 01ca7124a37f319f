"""JSON to rows, by content whatever the name: a row a line, a list, or one object that holds a table.

Lines are read one at a time. A list or an object is read as a whole.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NoReturn

from luthier.data.readers.sources import Source
from luthier.data.readers.values import SHOWN, JSONFault, Number, Record, Value, blank, decode, decode_only, kind, shown
from luthier.errors import UserError

EXAMPLE = '{"question": "…", "answer": "…"}'
LISTED = 10
"""Other broken lines whose numbers a message gives."""


def read_json(source: Source) -> Iterator[Record]:
    """A row per line that holds an object, or per object of the file's list or table; a text is a row with one `text`."""
    lines = ((number, line) for number, line in enumerate(source.lines(), start=1) if line.strip())
    first = next(lines, None)
    if first is None:
        if _is_lines(source):
            return
        raise source.empty()
    second = next(lines, None)
    if _is_document(source, first[1], second and second[1]):
        yield from _document(source)
    else:
        yield from _lines(source, chain([first], [second] if second else [], lines))


def _is_document(source: Source, first: str, second: str | None) -> bool:
    """Whether the first two lines belong to one value, rather than to a file with a value a line."""
    start, end = first.lstrip()[:1], first.rstrip()
    try:
        value = decode_only(first)
    except JSONFault as fault:
        if start != "{":
            return start == "["
        if fault.position is not None and fault.position >= len(end):
            # the value goes on behind this line, unless the next one begins another
            return second is not None and (end[-1] in "[{," or not isinstance(_value(second), dict))
        return second is None and not _is_lines(source)  # several values on a single line, or a broken line of many
    if isinstance(value, list):
        return second is None or isinstance(next(iter(value), None), dict) or not isinstance(_value(second), list)
    return isinstance(value, dict) and second is None and (not _is_lines(source) or _is_table(value))


def _is_lines(source: Source) -> bool:
    """Whether the name says that there is a row a line."""
    return any(
        part in (".jsonl", ".ndjson", ".jsonlines") for part in re.findall(r"\.[a-z]+", source.name.lower())[-2:]
    )


def _value(line: str) -> Value:
    try:
        return decode_only(line)
    except JSONFault:
        return None


# A row a line


def _lines(source: Source, lines: Iterator[tuple[int, str]]) -> Iterator[Record]:
    texts: bool | None = None  # whether every line is a text
    for number, line in lines:
        location = f"{source.name}:{number}"
        try:
            value = decode_only(line)
        except JSONFault as fault:
            _refuse_line(source, number, line, fault, lines)
        texts = isinstance(value, str) and type(value) is str if texts is None else texts
        if texts and type(value) is str:
            yield Record(location, {"text": value})
        elif isinstance(value, dict) and not texts:
            yield Record(location, value)
        else:
            raise UserError(
                f"found {kind(value)}, expected {'a text as above' if texts else f'an object such as {EXAMPLE}'}. "
                "Put this line right or remove it.",
                where=location,
            )


def _refuse_line(source: Source, number: int, line: str, fault: JSONFault, rest: Iterator[tuple[int, str]]) -> NoReturn:
    """The message for a line that is no JSON, with the other lines that are none."""
    others = [other for other, text in rest if not _is_json(text)]
    if number == 1 and line.lstrip()[:1] not in '{["' and _is_plain(source, line):
        raise UserError(
            f'this is text and no JSON, found "{line.strip()[:40]}". To read the file as one text, name it .txt; '
            "to make a row of each line: jq -R '{text: .}' FILE > FILE.jsonl.",
            where=f"{source.name}:{number}",
        )
    more = ""
    if others:
        listed = ", ".join(map(str, others[:LISTED])) + (
            f" and {len(others) - LISTED:,} more" if len(others) > LISTED else ""
        )
        more = f" Also broken: line{'s' * (len(others) > 1)} {listed}."
    raise UserError(
        f"not valid JSON{_column(line, fault)}: {fault}{_around(line, fault)}. Expected one object per line, "
        f"such as {EXAMPLE}. {_advice(line, fault)}{more}",
        where=f"{source.name}:{number}",
    ) from None


def _is_json(line: str) -> bool:
    try:
        decode_only(line)
    except JSONFault:
        return False
    return True


def _is_plain(source: Source, line: str) -> bool:
    """Whether hardly a line of the file's beginning looks like JSON."""
    head = source.head().decode("utf-8", errors="replace")
    lines = [line for line in head.splitlines() if line.strip()]
    return sum(line.lstrip().startswith(("{", "[")) for line in lines) * 10 < len(lines)


def _advice(line: str, fault: JSONFault) -> str:
    """What to do about a line that is no JSON."""
    if re.match(r"\s*[\[{]\s*'", line):
        return "This is how Python prints a dict; write it with json.dumps."
    if fault.position is not None and line[fault.position :].strip() == ",":
        return "Remove the comma behind it."
    return "Put this line right or remove it."


# One value


def _document(source: Source) -> Iterator[Record]:
    text = source.text()
    start = blank(text, 0)
    try:
        if text.startswith("[", start):
            yield from _listed(source, text, start, alone=True)
            return
        value, end = decode(text, start)
        if end < len(text) and text.startswith("{", end):
            yield from _one_after_the_other(source, text, start)
        elif end < len(text):
            raise JSONFault(f"more text behind {kind(value)}", end)
        else:
            assert isinstance(value, dict)
            yield from _object(source, text, start, value)
    except JSONFault as fault:
        location = source.name
        if fault.position is not None:
            location += f":{text.count(chr(10), 0, fault.position) + 1}"
        before = text[: fault.position].rstrip() if fault.position is not None else ""
        comma = before.endswith(",") and text[len(before) :].lstrip()[:1] in ("]", "}")
        raise UserError(
            f"not valid JSON{_column(text, fault)}: {fault}{_around(text, fault)}. Expected a list of objects "
            f"such as [{EXAMPLE}], or an object on each line. "
            + ("Remove the comma before it." if comma else "Put this right."),
            where=location,
        ) from None


def _listed(source: Source, text: str, start: int, *, alone: bool) -> Iterator[Record]:
    """The rows of the list that opens at `start`; those that share a line are told apart: `x.json:1, record 12`."""
    texts: bool | None = None
    for location, value in _placed(source, text, _elements(text, start, alone=alone)):
        texts = type(value) is str if texts is None else texts
        if isinstance(value, dict) and not texts:
            yield Record(location, value)
        elif texts and type(value) is str:
            yield Record(location, {"text": value})
        else:
            expected = "a text as before" if texts else f"an object such as {EXAMPLE}"
            hint = ' pandas writes objects with to_json(orient="records").' if isinstance(value, list) else ""
            raise UserError(f"found {kind(value)} in the list, expected {expected}.{hint}", where=location)


def _one_after_the_other(source: Source, text: str, start: int) -> Iterator[Record]:
    """The rows of objects that follow each other with nothing but white space between them."""

    def objects() -> Iterator[tuple[int, Value]]:
        position = start
        while position < len(text):
            value, end = decode(text, position)
            yield position, value
            position = end

    for location, value in _placed(source, text, objects()):
        if not isinstance(value, dict):
            raise UserError(f"found {kind(value)}, expected an object such as {EXAMPLE}.", where=location)
        yield Record(location, value)


def _placed(source: Source, text: str, values: Iterator[tuple[int, Value]]) -> Iterator[tuple[str, Value]]:
    """Values by their offsets → where a reader finds them."""
    line, counted = 1, 0
    for number, (position, value) in enumerate(values, start=1):
        lines = text.count("\n", counted, position)
        line, counted, shared = line + lines, position, number > 1 and not lines
        yield f"{source.name}:{line}" + (f", record {number}" if shared else ""), value


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


def _object(source: Source, text: str, start: int, value: dict[str, Value]) -> Iterator[Record]:
    """The rows of one object: those of the only list in it, or of a table as pandas writes them."""
    lists = _lists(value)
    if source.part is not None:
        if source.part not in lists:
            raise UserError(
                f'no list "{source.part}" in it. There are the lists {shown(list(lists))}.', where=source.name
            )
        lists = {source.part: lists[source.part]}
    elif (rows := table(value)) is not None:
        yield from _numbered(source, rows)
        return
    else:
        here = {name: held for name, held in lists.items() if name in value}
        of_objects = [{n: held for n, held in some.items() if isinstance(held[0], dict)} for some in (here, lists)]
        lists = of_objects[0] or of_objects[1] or here or lists
    if len(lists) != 1:
        found = f"the lists {shown(list(lists))}" if lists else f"no list (keys: {shown(list(value))})"
        way = "Keep the list that holds the rows."
        if lists:
            way = f"Name the list that holds the rows: {source.path}#{next(iter(lists))}."
        raise UserError(
            f"found an object with {found}; expected a list of objects such as [{EXAMPLE}], or an object with one such "
            f"list in it. {way}",
            where=source.name,
        )
    ((name, held),) = lists.items()
    if name in value:
        yield from _listed(source, text, _offset(text, start, name), alone=False)
    else:
        yield from _numbered(source, held)


def _lists(value: dict[str, Value], within: str = "", depth: int = 3) -> dict[str, list[Value]]:
    """The lists with something in them, also those of objects within, by the keys that lead there: `data.rows`."""
    found: dict[str, list[Value]] = {}
    for key, held in value.items():
        if isinstance(held, list) and held:
            found[within + key] = held
        elif isinstance(held, dict) and depth:
            found |= _lists(held, f"{within}{key}.", depth - 1)
    return found


def _numbered(source: Source, rows: Sequence[Value]) -> Iterator[Record]:
    """Rows that have no line of their own, by their numbers from 1."""
    for number, row in enumerate(rows, start=1):
        location = f"{source.name}:row {number}"
        if isinstance(row, str) and not isinstance(row, Number):
            row = {"text": row}
        if not isinstance(row, dict):
            raise UserError(f"found {kind(row)}, expected an object such as {EXAMPLE}.", where=location)
        yield Record(location, row)


def _offset(text: str, start: int, wanted: str) -> int:
    """The offset of a key's value in the object at `start`."""
    position = start
    while True:
        name, colon = decode(text, position + 1)
        value_at = blank(text, colon + 1)
        if name == wanted:
            return value_at
        _, position = decode(text, value_at)


# Tables as pandas' to_json and others write them


def table(value: dict[str, Value]) -> Sequence[dict[str, Value]] | None:
    """The rows of an object that is a table: by columns, by rows (index), split, or a list for each column; else None."""
    names, held = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(held, list) and value.keys() <= {"columns", "index", "data"}:
        if all(isinstance(row, list) and len(row) == len(names) for row in held):
            return [dict(zip(map(str, names), row, strict=True)) for row in held if isinstance(row, list)]
        return None
    cells = list(value.values())
    if not cells:
        return None
    if all(isinstance(column, list) for column in cells):
        lists = [column for column in cells if isinstance(column, list)]
        if (
            len(lists) > 1
            and len({len(column) for column in lists}) == 1
            and not any(isinstance(item, dict) for item in lists[0])
        ):
            return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]
        return None
    if not all(isinstance(row, dict) and row for row in cells):
        return None
    inner = [row for row in cells if isinstance(row, dict)]
    if len(inner) > 1 and not set(inner[0]).intersection(*inner[1:]):
        return None  # objects that have nothing in common are no rows
    if _is_numbered(inner[0]) and all(row.keys() == inner[0].keys() for row in inner):
        return [{name: column[key] for name, column in zip(value, inner, strict=True)} for key in inner[0]]
    return inner


def _is_numbered(row: dict[str, Value]) -> bool:
    """Whether the keys are the numbers that pandas gives to rows."""
    return all(re.fullmatch(r"\d+", key) for key in row)


def _is_table(value: dict[str, Value]) -> bool:
    """Whether the only line of a file is a table as pandas writes them, rather than a row."""
    cells = list(value.values())
    by_columns = all(isinstance(cell, dict) and cell and _is_numbered(cell) for cell in cells)
    by_rows = _is_numbered(value) and all(isinstance(cell, dict) for cell in cells)
    return bool(cells) and (by_columns or by_rows or "columns" in value) and table(value) is not None


# Where a fault is


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
    rest = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in rest[: SHOWN + 1])
    return f", found {rest[:SHOWN]}" + ("…" if len(rest) > SHOWN else "")
