"""From files to items: read, understood, checked, accounted for and split."""

from luthier.data.dataset import Dataset, Item, Ledger, load
from luthier.data.files import read_rows
from luthier.data.formats import FORMATS, Choice, Format
from luthier.data.messages import Unfit
from luthier.data.splits import Splits, split
from luthier.data.values import Row, Value

__all__ = [
    "FORMATS",
    "Choice",
    "Dataset",
    "Format",
    "Item",
    "Ledger",
    "Row",
    "Splits",
    "Unfit",
    "Value",
    "load",
    "read_rows",
    "split",
]
