"""A block of rows, from records to tokens: understood, looked at, encoded, and ready for the store.

Each row is worked on as if it stayed in the data, so that blocks need nothing of each other and can be made in several
processes. Which rows stay is decided afterwards, in their order; what was noted of one that does not is forgotten.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from luthier.chat import Template
from luthier.data import encoding
from luthier.data.checks import CHECKS, Row, Scope
from luthier.data.dataset import Item
from luthier.data.encoded_items import EncodedItems
from luthier.data.formats import Choice
from luthier.data.ledger import Ledger
from luthier.data.readers.values import Record
from luthier.data.understanding import Facts, Understanding
from luthier.recipe import Data


@dataclass(frozen=True)
class EncodedBlock:
    """What a block's rows came to. Numbers are those of `Facts`: of the rows that say something, in order."""

    facts: Facts
    encoded: EncodedItems
    rows: list[int]
    """The number of each encoded item."""
    disliked: frozenset[int]
    """Those of which people said that they do not like the answer; they are not encoded."""
    stopping: frozenset[int]
    """Those in which a check found something that stops a run."""
    entries: dict[int, list["LedgerEntry"]]
    """What encoding has to say of them."""
    documents: bool
    """Whether the last one is a document."""
    groups: list[str]
    """The group of each."""


@dataclass(frozen=True)
class LedgerEntry:
    """An entry for the ledger: that a row is dropped, or a remark on it."""

    dropped: bool
    what: str
    listed: str
    """The location, and the detail if there is one."""

    def enter(self, ledger: Ledger) -> None:
        """Put it into the ledger."""
        (ledger.drop if self.dropped else ledger.note)(self.what, self.listed)


@dataclass(frozen=True)
class BlockEncoder:
    """How the rows of some files become encoded blocks. It can be pickled."""

    choice: Choice
    data: Data
    template: Template
    limit: int
    pairs: bool
    """Whether rows carry rejected answers."""
    shares: bool
    """Whether a part of train may be left out."""
    stopping: Sequence[str]
    """The kinds of findings that stop a run."""
    scope: Scope
    groups: bool = False
    """Whether the names of groups are asked for."""

    @cached_property
    def _understand(self) -> Understanding:
        return Understanding(self.choice, self.data)

    def __getstate__(self) -> dict[str, object]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __call__(self, rows: Sequence[Record]) -> EncodedBlock:
        facts, items = self._understand(rows)
        disliked = frozenset(number for number, item in enumerate(items) if item.conversation.label is False)
        number_of = {item.location: number for number, item in enumerate(items) if number not in disliked}
        collected = _EntriesByRow(number_of)
        liked = [item for number, item in enumerate(items) if number not in disliked]
        each = encoding.encode_each(liked, self.template, self.limit, collected, pairs=lambda item: self.pairs)
        encoded = [(item, made) for item, made in each if made]
        return EncodedBlock(
            facts,
            EncodedItems.of(encoded, self.template, shares=self.shares),
            [number_of[item.location] for item, _ in encoded],
            disliked,
            self._stopping(items),
            collected.entries,
            bool(items) and items[-1].conversation.is_document,
            [item.group for item in items] if self.groups else [],
        )

    def _stopping(self, items: Sequence[Item]) -> frozenset[int]:
        found = set()
        for kind in self.stopping:
            check = CHECKS[kind](self.scope)
            for item in items:
                check.see(Row(item))
            spots = {spot.location for finding in check.findings() for spot in finding.spots}
            found |= {number for number, item in enumerate(items) if item.location in spots}
        return frozenset(found)


class _EntriesByRow(Ledger):
    """Entries for the ledger, by the rows that they are about."""

    def __init__(self, number_of: dict[str, int]) -> None:
        super().__init__()
        self.number_of = number_of
        self.entries: dict[int, list[LedgerEntry]] = {}

    def drop(self, reason: str, location: str) -> None:
        self._enter(LedgerEntry(True, reason, location))

    def note(self, remark: str, location: str) -> None:
        self._enter(LedgerEntry(False, remark, location))

    def _enter(self, entry: LedgerEntry) -> None:
        end = len(entry.listed)
        if entry.listed not in self.number_of:
            # a detail stands behind the location, in brackets, which it may have too
            end = entry.listed.index(" (")
            while entry.listed[:end] not in self.number_of:
                end = entry.listed.index(" (", end + 1)
        self.entries.setdefault(self.number_of[entry.listed[:end]], []).append(entry)
