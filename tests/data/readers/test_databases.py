"""SQLite: the rows of a table, read only."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.data import read_rows
from luthier.data.readers.values import as_text
from luthier.errors import UserError

Write = Callable[[str, str | bytes], Path]


def database(name: str, *statements: str) -> Path:
    with contextlib.closing(sqlite3.connect(name)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return Path(name)


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    return str(caught.value)


FAQ = (
    "CREATE TABLE faq (q TEXT, a, n)",
    "INSERT INTO faq VALUES ('Hot?', 1.50, 7), ('Wet?', NULL, x'ff'), ('é', 'b', 1)",
)


@pytest.mark.parametrize("name", ["x.db", "x.sqlite", "x.dat"])
def test_the_only_table_is_read(write: Write, name: str) -> None:
    write("other", "")
    rows = list(read_rows(database(name, *FAQ)))
    assert [row.location for row in rows] == [f"{name}#faq:row {number}" for number in (1, 2, 3)]
    assert [row.values for row in rows] == [
        {"q": "Hot?", "a": "1.5", "n": "7"},
        {"q": "Wet?", "a": None, "n": b"\xff"},
        {"q": "é", "a": "b", "n": "1"},
    ]


def test_of_several_tables_one_is_named(write: Write) -> None:
    write("other", "")
    path = database("x.db", *FAQ, 'CREATE TABLE "od""d" (z)', "CREATE VIEW short AS SELECT q FROM faq")
    assert message(path) == (
        'x.db: the database has the tables faq, od"d, short. Name the one that holds the rows: x.db#faq.'
    )
    assert len(list(read_rows(Path("x.db#faq")))) == 3
    assert [as_text(row.values["q"]) for row in read_rows(Path("x.db#short"))] == ["Hot?", "Wet?", "é"]
    assert list(read_rows(Path('x.db#od"d'))) == []
    assert message(Path("x.db#nothing")) == 'x.db#nothing: no table "nothing" in it. There are faq, od"d, short.'


def test_a_database_is_not_written_and_damage_is_named(write: Write) -> None:
    write("other", "")
    path = database("x.db", *FAQ)
    path.chmod(0o444)
    before = path.read_bytes()
    assert len(list(read_rows(path))) == 3
    assert path.read_bytes() == before
    assert sorted(each.name for each in Path().iterdir()) == ["other", "x.db"]
    assert message(write("y.db", before[:100] + b"\1" * 5000)).startswith("y.db: not a sound SQLite database")
    assert message(write("z.db", "")) == (
        "z.db: the file is empty; expected at least one row. Check that the export or the download finished."
    )
