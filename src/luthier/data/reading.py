"""A data file that is read: its rows in blocks, and the account of each row among all that came before it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any

from luthier.data.dataset import Dataset, Item, Progress
from luthier.data.documents.records import DocumentFiles, find_rows
from luthier.data.first_seen import FirstSeen, Locations
from luthier.data.formats import Choice, understand
from luthier.data.ledger import Ledger
from luthier.data.readers.files import Files
from luthier.data.readers.values import Record
from luthier.data.understanding import DIGEST_BYTES, Facts, Understanding
from luthier.errors import UserError
from luthier.recipe import Data

COUNTED = 1000
"""After so many rows it is told how many there are."""
BLOCK = 512
"""Rows that are understood, and looked up among the earlier ones, together."""


def load(data: Data) -> Dataset:
    """The data as the recipe describes it, in memory; raises a UserError where nothing of it can be used."""
    reading = open_data(data)
    items = list(reading.items())
    return reading.with_items(items)


def open_data(
    data: Data, files: Files | None = None, *, like: Choice | None = None, progress: Progress | None = None
) -> "Reading":
    """The data as the recipe describes it, to be read once; raises a UserError where it cannot be read or understood.

    `files` are read in place of those at the recipe's path, if they were found otherwise. With `like`, rows with the same
    columns are read like those of other files. `progress` is told how many rows are read, each time that the files are.
    """
    if data.path is None:
        raise UserError("no data given; name a file or folder: luthier run tickets.jsonl.", where="data.path")
    files = files or find_rows(data, data.path)
    try:
        rows = files.rows if progress is None else partial(_counted, files.rows, progress)
        understood = understand(rows, data, path=files.name, like=like)
    except UserError as error:
        if error.where != files.name or not files.remarks:
            raise
        raise UserError(f"{error.message} Of the files: {'; '.join(files.remarks)}.", where=error.where) from None
    if understood is None:
        raise UserError(
            "no rows in it. Expected at least three: one each to train, to choose and to test.", where=files.name
        )
    if understood.choice.shape and isinstance(files, DocumentFiles):
        files = replace(files, said=None)  # it was no document
    left_out: list[tuple[str, str]] = []
    rows_read = understood.rows(lambda reason, location: left_out.append((reason, location)))
    return Reading(
        understood.choice, Ledger(ignored=[*files.ignored]), files, data, rows_read, left_out, understood.count
    )


def _counted(rows: Callable[[], Iterator[Record]], progress: Progress) -> Iterator[Record]:
    for number, record in enumerate(rows(), start=1):
        if number % COUNTED == 0:
            progress(number)
        yield record


@dataclass(frozen=True)
class Block:
    """Rows one after the other, and what an export holds beside them: the reason and the location."""

    rows: list[Record]
    left_out: list[tuple[str, str]]


@dataclass
class Reading:
    """Data that is being read: how its rows are understood, and the account of those that came so far."""

    choice: Choice
    ledger: Ledger
    found: Files
    data: Data
    rows: Iterator[Record]
    left_out: list[tuple[str, str]]
    """What an export held beside the rows that came since the last block."""
    count: int
    """Rows of the files, roughly."""
    kept: int = 0
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)

    def __post_init__(self) -> None:
        self._account = _Account(self.ledger, Locations(self.files))

    def items(self) -> Iterator[Item]:
        """The items in file order, once; a UserError at the end where there was none."""
        understand_rows = Understanding(self.choice, self.data)
        for block in self.blocks():
            facts, items = understand_rows(block.rows)
            for number in self.keep(block, facts):
                yield items[number]
        self.expect_items()

    def first_items(self, enough: Callable[[Item], bool]) -> list[Item]:
        """The first items up to one that is enough, as they are before others are looked at; their rows come again."""
        understand_rows = Understanding(self.choice, self.data)
        rows: list[Record] = []
        found: list[Item] = []
        for row in self.rows:
            rows.append(row)
            found += understand_rows([row])[1]
            if found and enough(found[-1]):
                break
        self.rows = chain(rows, self.rows)
        return found

    def blocks(self) -> Iterator[Block]:
        """The rows, a few hundred at a time."""
        while True:
            rows = list(islice(self.rows, BLOCK))
            left_out = self.left_out.copy()
            self.left_out.clear()
            if rows or left_out:
                yield Block(rows, left_out)
            if not rows:
                return

    def keep(self, block: Block, facts: Facts) -> list[int]:
        """The next block's rows enter the account: which items of those that say something are kept, by their numbers."""
        for reason, location in block.left_out:
            self.ledger.leave_out(reason, location)
        numbers = self._account.keep(facts)
        for number in numbers:
            self._digest.update(f"\n{facts.ids[number]}".encode() if self.kept else facts.ids[number].encode())
            self.kept += 1
        return numbers

    def expect_items(self) -> None:
        """Raises a UserError where all is read and nothing was kept."""
        if not self.kept:
            words = f"no usable row: {self.ledger.summary()}. The rows were {self.choice.sentence()}."
            raise UserError(words, where=self.found.name)

    @property
    def files(self) -> list[str]:
        """The files on the disk that are read."""
        return self.found.paths

    def with_items(self, items: Sequence[Item]) -> Dataset:
        """The data set of these items, which came of it."""
        return Dataset(items, self.ledger, self.choice, self.sha256, self.files, self.found.remarks)

    @property
    def sha256(self) -> str:
        """The hash over the ids of the items that came, one a line."""
        return str(self._digest.hexdigest())


class _Account:
    """Which rows are kept: none that says nothing, or what an earlier one says. Each row is counted in the ledger."""

    def __init__(self, ledger: Ledger, locations: Locations) -> None:
        self._ledger, self._locations = ledger, locations
        self._wholes, self._prompts = FirstSeen(), FirstSeen()
        self._groups = bytearray()  # where the data names groups, a digest for each row that says something

    def keep(self, facts: Facts) -> list[int]:
        """The numbers of those that are kept, among the rows of a block that say something."""
        ledger, fit = self._ledger, facts.fit
        start = len(self._locations)
        ledger.read += len(facts.locations)
        for row in fit:
            self._locations.append(facts.locations[row])
        self._groups += b"".join(facts.groups)
        twins = self._wholes.look_up(facts.wholes, range(start, start + len(fit)))
        kept = [number for number, twin in enumerate(twins) if start + number == twin]
        earlier = self._prompts.look_up([facts.prompts[number] for number in kept], [start + number for number in kept])
        firsts = dict(zip(kept, earlier, strict=True))
        mentioned = facts.worth_a_word.union(row for at, row in enumerate(fit) if firsts.get(at) != start + at)
        number_of = {row: number for number, row in enumerate(fit) if row in mentioned}
        for row in sorted(mentioned):
            location, number = facts.locations[row], number_of.get(row)
            if number is None:
                ledger.drop(facts.faults[row], location)
            elif number not in firsts:
                ledger.drop("exact duplicate", f"{location} (same as {self._locations[twins[number]]})")
            else:
                self._tell(facts, row, start + number, firsts[number])
        return kept

    def _tell(self, facts: Facts, row: int, number: int, first: int) -> None:
        """What there is to say of a row that is kept; `first` is the number of the row that asked its question first."""
        ledger, location = self._ledger, facts.locations[row]
        if row in facts.group_faults:
            raise facts.group_faults[row]
        for what in facts.notes.get(row, ()):
            ledger.note(what, location)
        if first != number and row not in facts.several_answers:
            what = "pair of answers" if row in facts.pairs else "answer"
            ledger.note(f"same question, different {what}", f"{location} (as {self._locations[first]})")
        if self._groups and self._group(first) != self._group(number):
            ledger.note("same question in two groups", f"{location} (as {self._locations[first]})")
        if row in facts.remarks:
            ledger.note(facts.remarks[row], location)
        ledger.synthetic += row in facts.synthetic
        if row in facts.evidence:
            ledger.evidence.append({"row": location, **facts.evidence[row]})

    def _group(self, number: int) -> bytearray:
        return self._groups[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
