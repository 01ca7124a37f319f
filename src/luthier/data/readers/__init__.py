"""From a path to rows, whatever kind of file it leads to.

files, folders         which files a path leads to; split_names: which of them are train, dev or test
sources, kinds         what each is, and its bytes; packing, archives: what they are packed in
tables                 `READERS`: a file → records, each with its location (file:line)
json_files, yaml_files, documents, columnar, databases    the readers
csv_files, spreadsheets    the readers of cells; dialects: what parts them, headers: what names their columns
values                 records and their values: text stays text
"""

from luthier.data.readers.files import read_rows
from luthier.data.readers.values import Record, Value

__all__ = ["Record", "Value", "read_rows"]
