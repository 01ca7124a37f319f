"""The readers by the kind of file."""

from collections.abc import Callable, Iterator

from luthier.data.readers import columnar, csv_files, databases, json_files, spreadsheets
from luthier.data.readers.documents import read_text
from luthier.data.readers.sources import Source
from luthier.data.readers.values import Record
from luthier.data.readers.yaml_files import read_yaml

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
