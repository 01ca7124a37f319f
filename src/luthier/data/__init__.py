"""From files to token rows: read, understood, checked, accounted for, tokenized, split.

readers                files → records, each with its location (file:line); `READERS`
documents              PDF, DOCX, HTML, Markdown and text → blocks, passages, and questions with quoted answers
formats, messages      what columns mean, a record → a conversation; `FORMATS`: add a format there; `tool_messages`: functions
prompt_templates       texts that a row's columns fill, of the course or of yours
dataset, ledger        what is known of items and data sets; the account of every row
understanding, reading blocks of records → items; which of them are kept, among all
first_seen             which texts came before: digests in sorted arrays, and `similarity`: how much two share
encoding, shortening   items → rows of tokens with loss masks; conversations that do not fit lose turns
labels                 answers that people liked or not: which are learnt, which are asked
held_out_files, splits which items are trained on, which choose, which judge; leakage finds what they share
row_blocks, processes  a block of records → its encoded items, in several processes where there are many
row_sorting, row_store which items stay; their rows (`encoded_items`) in a scratch file until they are split
prepared               the rows of tokens on the disk, memory-mapped
step_by_step           the same steps by hand, for looking
"""

from luthier.data.dataset import Dataset, Item
from luthier.data.formats import FORMATS, Choice, Format
from luthier.data.ledger import Ledger
from luthier.data.messages import Unfit
from luthier.data.readers import Record, Value, read_rows
from luthier.data.reading import load
from luthier.data.splits import Splits, split

__all__ = [
    "FORMATS",
    "Choice",
    "Dataset",
    "Format",
    "Item",
    "Ledger",
    "Record",
    "Splits",
    "Unfit",
    "Value",
    "load",
    "read_rows",
    "split",
]
