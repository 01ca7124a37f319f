"""A question and its answer with the words of a document that it rests on: the quote stands in the passage, at its offsets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from luthier.data.documents.passages import Passage
from luthier.data.readers.values import Value

COLUMNS = ("document", "passage", "quote", "start", "end")
"""What a row has that says where its answer stands."""
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Pair:
    """`by` says who made it: a rule (`rule: faq`) or a model (`model: NAME`)."""

    question: str
    answer: str
    document: str
    passage: Passage
    start: int
    end: int
    by: str
    split: str | None = None
    """The split that its document was given before the pair was made; None where there are too few documents."""

    @property
    def quote(self) -> str:
        return self.passage.text[self.start : self.end]

    @property
    def location(self) -> str:
        return self.passage.location

    def worded(self, question: str, *, by: str) -> "Pair":
        """The same answer to a question in other words."""
        return replace(self, question=question, by=by)

    def to_row(self) -> dict[str, Any]:
        """The row of JSON Lines, marked as synthetic."""
        row = {
            "question": self.question, "answer": self.answer, "synthetic": True, "by": self.by, "document": self.document,
            "location": self.location, "passage": self.passage.text, "quote": self.quote, "start": self.start,
            "end": self.end,
        }  # fmt: skip
        return row | ({"split": self.split} if self.split else {})


@dataclass(frozen=True)
class Dropped:
    """What a rule or a model made and is no pair, and why."""

    reason: str
    location: str
    by: str


def is_grounded(values: Mapping[str, Value]) -> bool:
    """Whether a row says where its answer stands."""
    return "quote" in values and all(values.get(column) not in (None, "") for column in COLUMNS)


def grounding_fault(values: Mapping[str, Value]) -> str | None:
    """Why a row's quote does not hold, as a reason for the ledger; None where it stands in the passage at its offsets."""
    passage, quote = values["passage"], values["quote"]
    try:
        start, end = int(str(values["start"])), int(str(values["end"]))
    except ValueError:
        return "start and end of the quote are no numbers"
    if not isinstance(passage, str) or not isinstance(quote, str) or not 0 <= start < end <= len(passage):
        return "no quote inside its passage"
    return None if passage[start:end] == quote else "the quote does not stand at its place in the passage"


def is_divided(values: Mapping[str, Value]) -> bool:
    """Whether a row is made from a document that was given a split before."""
    return is_grounded(values) and split_of(values) is not None


def split_of(values: Mapping[str, Value]) -> str | None:
    """The split that a row's document was given."""
    found = values.get("split")
    return found if isinstance(found, str) and found in SPLITS else None
