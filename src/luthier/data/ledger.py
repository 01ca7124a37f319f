"""The account of every row that was read: kept, or dropped with its reason and location."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from luthier.data.documents.pairs import is_divided
from luthier.data.readers.values import Value

LOCATIONS_SHOWN = 3


@dataclass
class Ledger:
    """What became of every row: read = kept + dropped. `notes` are remarks on rows that are kept."""

    read: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    """Files of the folder that are not data files and were not read."""
    synthetic: int = 0
    """Kept rows that a rule or a model made: their column `synthetic` is true."""
    evidence: list[dict[str, Value]] = field(default_factory=list)
    """Kept rows that say where in a document their answer stands, each with its location as `row`."""

    @property
    def is_divided(self) -> bool:
        """Whether documents were given to splits before rows were made of them."""
        return any(map(is_divided, self.evidence))

    @property
    def kept(self) -> int:
        return self.read - sum(len(locations) for locations in self.dropped.values())

    def drop(self, reason: str, location: str) -> None:
        """Count a row out, under a reason and with its location."""
        self.dropped.setdefault(reason, []).append(location)

    def leave_out(self, reason: str, location: str) -> None:
        """The same for what an export holds beside its rows: it counts as read."""
        self.read += 1
        self.drop(reason, location)

    def note(self, remark: str, location: str) -> None:
        """Remember a location under a remark."""
        self.notes.setdefault(remark, []).append(location)

    def summary(self) -> str:
        """One line: rows read and kept, then each reason with its count and first locations."""
        reasons = [f"{len(locations)} {reason} ({_some(locations)})" for reason, locations in self.dropped.items()]
        return f"{self.read} rows read, {self.kept} kept" + (f"; dropped: {', '.join(reasons)}" if reasons else "")


def _some(locations: Sequence[str]) -> str:
    more = len(locations) - LOCATIONS_SHOWN
    return ", ".join(locations[:LOCATIONS_SHOWN]) + (f" and {more} more" if more > 0 else "")
