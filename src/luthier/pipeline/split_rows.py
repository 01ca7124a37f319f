"""From the files to the rows of each split, in one pass over them, with memory for a few hundred rows at a time.

Rows are read, understood, checked and tokenized one after the other, and lie in a scratch file until the groups of all of them
tell which split each is in. Where the recipe drops or groups rows by what the checks find, the files are read before, once or
twice. All rows are in memory only where an objective learns from liked and disliked answers.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np

from luthier.chat import Encoded, Template
from luthier.data import encoding, held_out_files, labels, splits
from luthier.data.checks import actions
from luthier.data.checks.rows import Scope
from luthier.data.dataset import Dataset, Item, Progress, Reading, has_pairs
from luthier.data.held_out_files import HeldOut
from luthier.data.ledger import Ledger
from luthier.data.refusals import refusal_pattern
from luthier.data.row_store import ListedRows, Rows, RowStore, StoredItems, StoredRows
from luthier.data.splits import Splits
from luthier.errors import UserError
from luthier.recipe import Recipe
from luthier.train import check

SPLITS = ("train", "dev", "test")
PROGRESS_ROWS = 100


@dataclass(frozen=True)
class SplitRows:
    """The data as it was read, the items of each split, and their rows."""

    dataset: Dataset
    splits: Splits
    rows: dict[str, Rows]
    longest: int
    """Tokens of the longest row of all, with its rejected twin's."""
    pairs: bool
    """Whether rows carry rejected answers."""


@dataclass(frozen=True)
class Opened:
    """The files as they are read, from the first item on, and whether rows of training carry rejected answers."""

    readings: dict[str, Reading]
    items: dict[str, Iterator[Item]]
    pairs: bool
    documents: bool


def open_data(asked: Recipe, *, progress: Progress | None = None) -> Opened:
    """The data and what is held out; refuses an objective that cannot be computed on such rows, as far as few rows tell."""
    objective = asked.train.objective
    wants_pairs = objective not in (None, "sft", "text", *labels.UNPAIRED)
    readings = held_out_files.open_data(asked.data, progress=progress)
    items, seen = {}, {}
    for name, reading in readings.items():
        items[name] = reading.items()
        if name != "test":
            seen[name] = _up_to_pair(items[name]) if wants_pairs else list(islice(items[name], 1))
            items[name] = chain(seen[name], items[name])
    if objective not in labels.UNPAIRED:
        check.check_rows(asked.train, readings["data"].with_items(seen["data"]), seen.get("dev"))
    documents = seen["data"][0].conversation.is_document
    return Opened(readings, items, wants_pairs and has_pairs(seen["data"]), documents)


def _up_to_pair(items: Iterator[Item]) -> list[Item]:
    """The first items, up to one with a rejected answer."""
    seen = []
    for item in items:
        seen.append(item)
        if item.conversation.rejected is not None:
            break
    return seen


@dataclass
class _Part:
    """What came of one of the readings: how many items, how many of them are learnt or asked, and which of the store's."""

    count: int = 0
    liked: int = 0
    documents: bool = False
    items: range = range(0)

    def counted(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            self.documents = item.conversation.is_document
            self.count += 1
            self.liked += item.conversation.label is not False
            yield item


def stream(
    asked: Recipe, opened: Opened, template: Template, limit: int, *, progress: Progress | None = None
) -> SplitRows:
    """The rows of each split, in a scratch file."""
    readings, settings = opened.readings, asked.data.findings
    left_out, disliked, dropped = Ledger(), Ledger(), Ledger()
    decisions, ids = None, hashlib.sha256()
    if actions.need_all(settings):
        decisions = actions.decide(
            lambda: held_out_files.open_data(asked.data, progress=progress)["data"].items(), settings, _scope(asked)
        )
    parts: dict[str, _Part] = {}
    with RowStore(template, shares=asked.data.train_share < 1) as store:
        for name in readings:
            part = parts[name] = _Part()
            start = store.items
            items = opened.items[name]
            if name == "data" and decisions is None:
                items = actions.watched(items, settings, _scope(asked))
            elif name == "data" and decisions is not None:
                items = _hashed(decisions.carried_out(items, left_out), ids)
            items = part.counted(items)
            kept = labels.liked_ones(items, labels.NOT_ASKED if name == "test" else labels.NOT_TRAINED_ON, disliked)
            pairs = _constant(opened.pairs and name != "test")
            for item, rows in encoding.encode_each(kept, template, limit, dropped, pairs=pairs):
                if rows:
                    store.add(item, rows)
                if progress and store.items % PROGRESS_ROWS == 0:
                    progress(store.items)
            part.items = range(start, store.items)
            if name == "data" and not part.count:
                raise actions.nothing_left()
            _check(name, readings, parts)
    data = held_out_files.joined(readings, StoredItems(store, np.asarray(parts["data"].items)))
    if decisions is not None and decisions.change:
        data = replace(data, sha256=ids.hexdigest())
    data.ledger.join(left_out)
    data.ledger.join(disliked)
    data.ledger.join(encoding.in_order(dropped, template))
    if not all(part.items for part in parts.values()):
        raise UserError(encoding.why_none(data.ledger, limit), where=", ".join(data.files))
    own = {name: store.groups(part.items) for name, part in parts.items()}
    numbers = splits.choose(
        own["data"], test_items=asked.data.test_items, dev_items=asked.data.dev_items, share=asked.data.train_share,
        test=own.get("test"), dev=own.get("dev"),
    )  # fmt: skip
    found = {
        name: StoredItems(store, chosen + parts[name if name in parts else "data"].items.start)
        for name, chosen in (("train", numbers.train), ("dev", numbers.dev), ("test", numbers.test))
    }
    if settings.get("leak") == "drop":
        unrelated = actions.unrelated(Splits(found["train"], found["dev"], found["test"]))
        for name, kept_ones in zip(("train", "dev"), unrelated, strict=True):
            found[name] = StoredItems(store, found[name].numbers[np.array(kept_ones)])
    rows_of = {name: StoredRows.of(items, last=name != "train") for name, items in found.items()}
    return SplitRows(
        data,
        Splits(found["train"], found["dev"], found["test"]),
        {**rows_of},
        int(store.number("length").max()),
        opened.pairs,
    )


def _hashed(items: Iterable[Item], digest: "hashlib._Hash") -> Iterator[Item]:
    """The items; their ids, one a line, go into the digest."""
    for number, item in enumerate(items):
        digest.update(f"\n{item.id}".encode() if number else item.id.encode())
        yield item


def _check(name: str, readings: Mapping[str, Reading], parts: Mapping[str, _Part]) -> None:
    """Refuses a file, all of which is read, that cannot be used for what it is meant for."""
    if name == "data":
        if not parts[name].liked:
            raise labels.none_liked(parts[name].count, readings[name].files)
        return
    held_out_files.check(
        name, readings, parts[name].count, documents={key: part.documents for key, part in parts.items()}
    )
    if not parts[name].liked:
        raise labels.none_to_ask(name)


def _constant(value: bool) -> Callable[[Item], bool]:
    return lambda item: value


def load(
    asked: Recipe, opened: Opened, template: Template, limit: int, *, progress: Progress | None = None
) -> SplitRows:
    """The rows of each split, in memory, where something is asked of all of them together; the files are read anew."""
    data, held_out = held_out_files.load(asked.data, progress=progress)
    data = actions.apply(data, asked.data.findings, _scope(asked))
    check.check_rows(asked.train, data, held_out.dev)
    unpaired = asked.train.objective in labels.UNPAIRED
    data, held_out = labels.select(data, held_out, unpaired=unpaired)
    encoded = _encode(asked, data, held_out, template, limit)
    found = _split(asked, data, held_out, encoded, limit)
    rows = {name: _rows(getattr(found, name), encoded, last=name != "train") for name in SPLITS}
    if unpaired:
        rows |= {name: [side for row in rows[name] for side in encoding.both_sides(*row)] for name in ("train", "dev")}
    longest = max((row.tokens for each in encoded.values() for row in each), default=0)
    pairs = any(row.rejected for each in encoded.values() for row in each)
    return SplitRows(data, found, {name: ListedRows(rows[name], template) for name in SPLITS}, longest, pairs)


def _scope(asked: Recipe) -> Scope:
    """What the checks of the data are told."""
    return Scope(refusal=refusal_pattern(asked.evaluate.errors.get("refusal")))


def _encode(
    asked: Recipe, data: Dataset, held_out: HeldOut, template: Template, limit: int
) -> dict[str, list[Encoded]]:
    """The rows of each item, by the item's place in the files; with rejected answers where preferences are trained."""
    pairs = asked.train.objective not in (None, "sft", "text") and has_pairs(data.items)
    only_asked = {item.location for item in held_out.test or ()}
    everything = [*data.items, *held_out.items]
    unpaired = asked.train.objective in labels.UNPAIRED
    in_pairs = [item for item in everything if not unpaired or item.conversation.rejected is not None]
    with_pairs = {item.location for item in in_pairs} - only_asked if pairs else frozenset()
    encoded = encoding.encode_all(everything, template, limit, data.ledger, pairs=with_pairs)
    return {location: encoding.of_last_answer(rows) for location, rows in encoded.items()} if unpaired else encoded


def _split(asked: Recipe, data: Dataset, held_out: HeldOut, encoded: Mapping[str, list[Encoded]], limit: int) -> Splits:
    """Train, dev and test, of the items that have a row at all; raises a UserError where there is none."""

    def usable(items: Sequence[Item] | None) -> list[Item] | None:
        return None if items is None else [item for item in items if encoded[item.location]]

    items, test, dev = usable(data.items), usable(held_out.test), usable(held_out.dev)
    if not items or [] in (test, dev):
        raise UserError(encoding.why_none(data.ledger, limit), where=", ".join(data.files))
    divide = splits.split_labelled if asked.train.objective in labels.UNPAIRED else splits.split
    found = divide(
        items, test_items=asked.data.test_items, dev_items=asked.data.dev_items, test=test, dev=dev,
        share=asked.data.train_share,
    )  # fmt: skip
    if test is None:
        asked_groups = {item.group for item in found.test}
        for item in items:
            if item.conversation.label is False and item.group in asked_groups:
                data.ledger.drop(labels.NOT_ASKED, item.location)
    return actions.without_relatives(found, asked.data.findings)


def _rows(items: Sequence[Item], encoded: Mapping[str, list[Encoded]], *, last: bool) -> list[tuple[Item, Encoded]]:
    """Each item's rows; with `last` only that of its last answer."""
    return [row for item in items for row in encoding.pieces(item, encoded[item.location], last=last)]
