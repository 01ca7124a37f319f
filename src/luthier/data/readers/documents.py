"""Text files to rows: a document each."""

from collections.abc import Iterator

from luthier.data.readers.sources import Source
from luthier.data.readers.values import Record


def read_text(source: Source) -> Iterator[Record]:
    """One row, whose `text` is all of the file."""
    yield Record(source.name, {"text": source.text()})
