"""From a path to rows, whatever kind of file it leads to.

files                  which files a path leads to
sources                what each is: kind, packing, encoding
tables, parquet        a file → records, each with its location (file:line); `READERS`
values                 records and their values: text stays text
"""

from luthier.data.readers.files import read_rows
from luthier.data.readers.values import Record, Value

__all__ = ["Record", "Value", "read_rows"]
