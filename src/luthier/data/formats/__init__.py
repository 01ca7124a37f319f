"""What rows mean: which conversation each of them is.

table                  the columns of a file, and a sample of rows spread over the whole of it
names, name_pairs      what people call such columns
formats, checks        the table `FORMATS`: from which columns a conversation is built, and what these must hold
building, cells        a row's cells → a conversation
chats, transcripts     the spellings of chats
exports, dialogues     exports of known tools → plain rows
recognition, content   which format the columns make: by name, then by what they hold
refusals               the question to the user, where it is not sure
choice, remarks        what was chosen, as a sentence and as a function that reads rows; what is noted of a row
reading                all of it, for the rows of a path

A row that cannot become a conversation raises `Unfit` with the reason that the ledger shows.
"""

from luthier.data.formats.choice import Choice, missing_column, reader
from luthier.data.formats.choice import of as choice_of
from luthier.data.formats.exports import shape_of
from luthier.data.formats.formats import FORMATS, Format, format_of, is_own
from luthier.data.formats.reading import Understood, understand
from luthier.data.formats.recognition import bind, recognise
from luthier.data.formats.remarks import control_tokens
from luthier.data.formats.table import Table

__all__ = [
    "FORMATS",
    "Choice",
    "Format",
    "Table",
    "Understood",
    "bind",
    "choice_of",
    "control_tokens",
    "format_of",
    "is_own",
    "missing_column",
    "reader",
    "recognise",
    "shape_of",
    "understand",
]
