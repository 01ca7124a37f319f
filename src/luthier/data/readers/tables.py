"""The readers by the kind of file, and what a file's columns are called."""

from collections.abc import Callable, Iterator

from luthier.data.readers import columnar, csv_files, databases, json_files, spreadsheets
from luthier.data.readers.documents import read_text
from luthier.data.readers.sources import Source
from luthier.data.readers.values import Record
from luthier.data.readers.yaml_files import read_yaml
from luthier.errors import UserError

READERS: dict[str, Callable[[Source], Iterator[Record]]] = {
    "json": json_files.read_json,
    "csv": csv_files.read_csv,
    "text": read_text,
    "yaml": read_yaml,
    "parquet": columnar.read_columnar,
    "arrow": columnar.read_columnar,
    "spreadsheet": spreadsheets.read_spreadsheet,
    "sqlite": databases.read_sqlite,
}
HEADS: dict[str, Callable[[Source], list[str]]] = {
    "csv": csv_files.columns,
    "parquet": columnar.columns,
    "arrow": columnar.columns,
    "spreadsheet": spreadsheets.columns,
    "sqlite": databases.columns,
}
"""Kinds whose columns need no reading of the rows."""


def columns(source: Source) -> Iterator[str]:
    """The names of a file's columns, as often as they are met; where it cannot be read, those before."""
    try:
        if source.kind in HEADS:
            yield from HEADS[source.kind](source)
        else:
            for record in READERS[source.kind](source):
                yield from record.values
    except UserError:
        return  # reading the rows will tell
