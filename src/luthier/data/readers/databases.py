"""SQLite databases to rows: those of a table or a view, read only."""

import contextlib
import sqlite3
from collections.abc import Iterator

from luthier.data.readers.sources import Source, expect_file, trouble
from luthier.data.readers.values import Number, Record, Unusable, Value, shown
from luthier.errors import UserError


def read_sqlite(source: Source) -> Iterator[Record]:
    """A row per row of the table, placed by its number from 1: `x.db#faq:row 12`."""
    with _opened(source) as (database, table):
        table_name = source.name if source.part else f"{source.name}#{table}"
        found = database.execute(f"SELECT * FROM {_quoted(table)}")
        names = [column[0] for column in found.description]
        for number, row in enumerate(found, start=1):
            location = f"{table_name}:row {number}"
            yield Record(location, {name: _value(item) for name, item in zip(names, row, strict=True)})


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[sqlite3.Connection, str]]:
    """The database, and the table to read in it."""
    if source.member is not None or source.codec is not None:
        raise UserError("a database is read where it lies only. Unpack it first.", where=source.name)
    with trouble(source.name):
        before = expect_file(source.path, source.name)
    try:
        with contextlib.closing(sqlite3.connect(f"{source.path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.text_factory = bytes
            database.execute("PRAGMA trusted_schema = OFF")
            yield database, _table(database, source)
    except sqlite3.Error as error:
        raise UserError(
            f"not a sound SQLite database, or another program is writing into it ({error}). Close that program, or copy "
            "the database: sqlite3 FILE '.backup COPY'.",
            where=source.name,
        ) from None
    source.expect_unchanged(before)


def _table(database: sqlite3.Connection, source: Source) -> str:
    """The table that was named, or the only one."""
    found = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
    names = [bytes(name).decode("utf-8", errors="replace") for (name,) in found]
    tables: list[str] = [name for name in names if not name.startswith("sqlite_")]
    if source.part is not None:
        if source.part not in tables:
            raise UserError(f'no table "{source.part}" in it. There are {shown(tables)}.', where=source.name)
        return source.part
    if len(tables) == 1:
        return tables[0]
    if not tables:
        raise source.empty()
    raise UserError(
        f"the database has the tables {shown(tables)}. Name the one that holds the rows: {source.path}#{tables[0]}.",
        where=source.name,
    )


def _value(item: object) -> Value:
    if isinstance(item, bytes):  # texts and blobs alike
        try:
            return item.decode("utf-8")
        except UnicodeDecodeError:
            return item
    if isinstance(item, float):
        return Number(item) if abs(item) < float("inf") else Unusable(f"{item} in place of a value")
    return None if item is None else Number(item)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
