"""Encoded blocks, one after the other, into the store: which of their rows stay, and the account of the others."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from luthier.chat import Template
from luthier.data import encoding, labels
from luthier.data.checks import actions
from luthier.data.dataset import Dataset
from luthier.data.ledger import Ledger
from luthier.data.reading import Block, Reading
from luthier.data.row_blocks import BlockEncoder, EncodedBlock
from luthier.data.row_store import RowStore

Job = tuple[str, Block]
"""A block, and the name of its reading."""


@dataclass(frozen=True)
class Encoders:
    """The encoder of each reading, by its name."""

    by_name: Mapping[str, BlockEncoder]

    def __call__(self, job: Job) -> EncodedBlock:
        name, block = job
        return self.by_name[name](block.rows)


@dataclass
class Part:
    """What came of one of the readings: how many items, how many of them are learnt or asked, and which of the store's."""

    count: int = 0
    liked: int = 0
    documents: bool = False
    items: range = range(0)


class RowSorting:
    """Puts the rows that stay into a store. `decisions` are what the recipe says about findings in the data."""

    def __init__(self, store: RowStore, readings: Mapping[str, Reading], decisions: actions.Decisions | None) -> None:
        self._store, self._readings, self._decisions = store, readings, decisions
        self._left_out, self._disliked, self._dropped = Ledger(), Ledger(), Ledger()
        self._ids = hashlib.sha256()
        self._groups = decisions.groups() if decisions else None
        self.parts = {name: Part() for name in readings}
        self.stopped = False
        """Whether a check found something that stops a run."""

    def take(self, name: str, block: Block, encoded: EncodedBlock) -> None:
        """The next block of a reading."""
        part = self.parts[name]
        kept = self._readings[name].keep(block, encoded.facts)
        fit = encoded.facts.fit
        locations = {number: encoded.facts.locations[fit[number]] for number in kept}
        renamed: dict[int, str] = {}
        if name == "data" and self._decisions is not None:
            kept = self._decided(kept, locations, encoded, renamed)
        self.stopped = self.stopped or not encoded.stopping.isdisjoint(kept)
        reason = labels.NOT_ASKED if name == "test" else labels.NOT_TRAINED_ON
        liked = set()
        for number in kept:
            if number in encoded.disliked:
                self._disliked.drop(reason, locations[number])
                continue
            liked.add(number)
            for entry in encoded.entries.get(number, ()):
                entry.enter(self._dropped)
        part.count += len(kept)
        part.liked += len(liked)
        part.documents = encoded.documents if kept else part.documents
        chosen = [at for at, number in enumerate(encoded.rows) if number in liked]
        items = encoded.encoded.only(chosen)
        if renamed:
            numbers = [encoded.rows[at] for at in chosen]
            items = items.in_groups({at: renamed[number] for at, number in enumerate(numbers) if number in renamed})
        start = self._store.items
        self._store.extend(items)
        part.items = range(part.items.start if part.items else start, self._store.items)

    def _decided(
        self, kept: Sequence[int], locations: Mapping[int, str], encoded: EncodedBlock, renamed: dict[int, str]
    ) -> list[int]:
        """Those that the recipe keeps; `renamed` gets the groups of those that are in another one."""
        assert self._decisions is not None
        found = []
        for number in kept:
            if kind := self._decisions.dropped.get(locations[number]):
                self._left_out.drop(f"{kind}, as data.findings says", locations[number])
                continue
            found.append(number)
            id = encoded.facts.ids[number]
            self._ids.update(f"\n{id}".encode() if self.parts["data"].count + len(found) > 1 else id.encode())
            if self._groups is not None and (group := self._groups.next(encoded.groups[number])) is not None:
                renamed[number] = group
        return found

    def close(self, name: str) -> None:
        """A reading is at its end; raises a UserError where the recipe leaves nothing of the data."""
        if name == "data" and not self.parts[name].count:
            raise actions.nothing_left()

    def account(self, data: Dataset, template: Template) -> Dataset:
        """The data with the account of all that was left out here."""
        if self._decisions is not None and self._decisions.change:
            data = replace(data, sha256=self._ids.hexdigest())
        data.ledger.join(self._left_out)
        data.ledger.join(self._disliked)
        data.ledger.join(encoding.in_order(self._dropped, template))
        return data
