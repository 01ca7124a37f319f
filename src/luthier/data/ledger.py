"""The account of every row that was read: kept, or dropped with its reason and location.

A file may have more bad rows than memory, so of each reason the first locations stay in memory and all others lie in a
temporary file. A run keeps all of them in `data/ledger.jsonl`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import overload

from luthier.data.documents.pairs import is_divided
from luthier.data.readers.values import Value
from luthier.runs.durable import disk_errors, temporary_folder, whole_file

FILE = "ledger.jsonl"
LOCATIONS_SHOWN = 3
KEPT = 100
"""Locations of each reason that stay in memory, and that events and pages list."""
AT_ONCE = 1000
"""Lines that are written to the temporary file together."""


_LISTED = re.compile(r"(.*?:(?:[a-z]+ )?\d+(?:, record \d+)?)(?: \((.*)\))?", re.DOTALL)


class Spool:
    """Lines in a temporary file, which goes when nobody needs the spool any more."""

    def __init__(self) -> None:
        self._path = temporary_folder(self) / FILE
        self._waiting: list[bytes] = []
        self._lists = 0

    def new_list(self) -> int:
        """The number of one more list of locations."""
        self._lists += 1
        return self._lists

    def append(self, number: int, location: str) -> None:
        self._waiting.append(json.dumps([number, location]).encode() + b"\n")
        if len(self._waiting) >= AT_ONCE:
            self._write()

    def read(self, number: int) -> Iterator[str]:
        """The locations of one list, in their order."""
        self._write()
        with disk_errors(self._path), self._path.open("rb") as file:
            for line in file:
                of, location = json.loads(line)
                if of == number:
                    yield location

    def _write(self) -> None:
        with disk_errors(self._path), self._path.open("ab") as file:
            file.writelines(self._waiting)
        self._waiting = []


class LocationList(Sequence[str]):
    """Where rows are that share a reason, such as `x.jsonl:5 (same as x.jsonl:3)`: how many, and all of them in their order."""

    def __init__(self, spools: list[Spool]) -> None:
        self.first: list[str] = []
        """The first ones, in memory."""
        self._count, self._spools, self._number = 0, spools, 0

    def append(self, location: str) -> None:
        self._count += 1
        if len(self.first) < KEPT:
            self.first.append(location)
            return
        if not self._spools:
            self._spools.append(Spool())
        self._number = self._number or self._spools[0].new_list()
        self._spools[0].append(self._number, location)

    def extend(self, locations: Iterable[str]) -> None:
        for location in locations:
            self.append(location)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        yield from self.first
        if self._count > len(self.first):
            yield from self._spools[0].read(self._number)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        end = number.stop if isinstance(number, slice) else number + 1
        in_memory = end is not None and 0 < end <= len(self.first)
        return (self.first if in_memory or self._count == len(self.first) else list(self))[number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | LocationList) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.first}" if self._count == len(self.first) else f"{self.first} and {self._count - KEPT:,} more"


Account = dict[str, LocationList]


@dataclass
class Ledger:
    """What became of every row: read = kept + dropped. `notes` are remarks on rows that are kept."""

    read: int = 0
    dropped: Account = field(default_factory=dict)
    notes: Account = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    """Files of the folder that are not data files and were not read."""
    synthetic: int = 0
    """Kept rows that a rule or a model made: their column `synthetic` is true."""
    evidence: list[dict[str, Value]] = field(default_factory=list)
    """Kept rows that say where in a document their answer stands, each with its location as `row`."""
    _spools: list[Spool] = field(default_factory=list, repr=False, compare=False)
    """The file of the locations that are not in memory, once there is one."""

    @property
    def is_divided(self) -> bool:
        """Whether documents were given to splits before rows were made of them."""
        return any(map(is_divided, self.evidence))

    @property
    def kept(self) -> int:
        return self.read - sum(len(locations) for locations in self.dropped.values())

    def drop(self, reason: str, location: str) -> None:
        """Count a row out, under a reason and with its location."""
        self._list(self.dropped, reason).append(location)

    def leave_out(self, reason: str, location: str) -> None:
        """The same for what an export holds beside its rows: it counts as read."""
        self.read += 1
        self.drop(reason, location)

    def note(self, remark: str, location: str) -> None:
        """Remember a location under a remark."""
        self._list(self.notes, remark).append(location)

    def join(self, other: "Ledger") -> None:
        """Add the rows of another ledger; locations name their file."""
        self.read += other.read
        for own, account in ((self.dropped, other.dropped), (self.notes, other.notes)):
            for reason, locations in account.items():
                self._list(own, reason).extend(locations)
        self.ignored.extend(other.ignored)
        self.synthetic += other.synthetic
        self.evidence.extend(other.evidence)

    def _list(self, account: Account, reason: str) -> LocationList:
        if reason not in account:
            account[reason] = LocationList(self._spools)
        return account[reason]

    def summary(self) -> str:
        """One line: rows read and kept, then each reason with its count and first locations."""
        reasons = [f"{len(locations)} {reason} ({_some(locations)})" for reason, locations in self.dropped.items()]
        return f"{self.read} rows read, {self.kept} kept" + (f"; dropped: {', '.join(reasons)}" if reasons else "")


def write(path: Path, ledger: Ledger) -> None:
    """All rows that were dropped, and all remarks, with their locations: a line each."""
    with whole_file(path) as file:
        for what, account in (("dropped", ledger.dropped), ("noted", ledger.notes)):
            for reason, locations in account.items():
                for listed in locations:
                    location, detail = parted(listed)
                    entry = {"location": location, what: reason} | ({"detail": detail} if detail else {})
                    file.write(json.dumps(entry, ensure_ascii=not listed.isprintable()).encode() + b"\n")


def dropped_in(path: Path) -> Iterator[tuple[str, str]]:
    """Location and reason of each row that a run has dropped."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            if "dropped" in entry:
                yield entry["location"], entry["dropped"]


def parted(listed: str) -> tuple[str, str]:
    """Location and detail of a row that is listed: `x (1).jsonl:5 (same as x (1).jsonl:3)`."""
    if found := _LISTED.fullmatch(listed):
        return found[1], found[2] or ""
    location, bracket, detail = listed.partition(" (")
    return location, detail.removesuffix(")") if bracket else ""


def counts(account: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many rows there are of each reason."""
    return {reason: len(locations) for reason, locations in account.items()}


def first_locations(account: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The first locations of each reason, as many as are listed."""
    return {reason: list(islice(locations, KEPT)) for reason, locations in account.items()}


def _some(locations: Sequence[str]) -> str:
    more = len(locations) - LOCATIONS_SHOWN
    return ", ".join(locations[:LOCATIONS_SHOWN]) + (f" and {more} more" if more > 0 else "")
