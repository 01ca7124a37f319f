"""From the files to the rows of each split, in one pass over them, with memory for a few hundred rows at a time.

Rows are read, understood, checked and tokenized one after the other, and lie in a scratch file until the groups of all of them
tell which split each is in. Where the recipe drops or groups rows by what the checks find, the files are read before, once or
twice. All rows are in memory only where an objective learns from liked and disliked answers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luthier.chat import Encoded, Template
from luthier.data import encoding, held_out_files, labels, splits
from luthier.data.checks import actions
from luthier.data.checks.rows import Scope
from luthier.data.dataset import Dataset, Item, Progress, has_pairs
from luthier.data.formats.formats import is_own
from luthier.data.held_out_files import HeldOut
from luthier.data.processes import Processes, available
from luthier.data.reading import Reading
from luthier.data.refusals import refusal_pattern
from luthier.data.row_blocks import BlockEncoder
from luthier.data.row_sorting import Encoders, Job, Part, RowSorting
from luthier.data.row_store import ListedRows, Rows, RowStore, StoredItems, StoredRows
from luthier.data.splits import Splits
from luthier.errors import UserError
from luthier.recipe import Recipe
from luthier.train import check

SPLITS = ("train", "dev", "test")


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
    """The files as they are read, from the first row on, and whether rows of training carry rejected answers."""

    readings: dict[str, Reading]
    pairs: bool
    documents: bool


def open_data(asked: Recipe, *, progress: Progress | None = None) -> Opened:
    """The data and what is held out; refuses an objective that cannot be computed on such rows, as far as few rows tell."""
    objective = asked.train.objective
    wants_pairs = objective not in (None, "sft", "text", *labels.UNPAIRED)
    readings = held_out_files.open_data(asked.data, progress=progress)
    seen = {}
    for name, reading in readings.items():
        if name != "test":
            found = reading.first_items(lambda item: not wants_pairs or item.conversation.rejected is not None)
            seen[name] = found or list(reading.items())  # which says why there is none
    if objective not in labels.UNPAIRED:
        check.check_rows(asked.train, readings["data"].with_items(seen["data"]), seen.get("dev"))
    documents = seen["data"][0].conversation.is_document
    return Opened(readings, wants_pairs and has_pairs(seen["data"]), documents)


ENOUGH = 8_000
"""Rows from which on processes are worth their start."""


def stream(
    asked: Recipe,
    opened: Opened,
    template: Template,
    limit: int,
    *,
    progress: Progress | None = None,
    processes: int | None = None,
) -> SplitRows:
    """The rows of each split, in a scratch file. So many processes make them, or as many as pay; the rows are the same."""
    readings, settings = opened.readings, asked.data.findings
    decisions = None
    if actions.need_all(settings):
        decisions = _decide(asked, progress)
    encoders = {name: _encoder(name, asked, opened, template, limit, decisions) for name in readings}
    count = _worth(readings.values()) if processes is None else processes
    with (
        RowStore(template, shares=asked.data.train_share < 1) as store,
        Processes(Encoders(encoders), count, _location) as making,
    ):
        sorting = RowSorting(store, readings, decisions)
        for name, reading in readings.items():
            for (_, block), encoded in making.in_order((name, block) for block in reading.blocks()):
                sorting.take(name, block, encoded)
                if progress and block.rows:
                    progress(store.items)
            reading.expect_items()
            if sorting.stopped:
                _decide(asked, progress)  # raises the error of what was found, with all that is like it
            sorting.close(name)
            _check(name, readings, sorting.parts)
    parts = sorting.parts
    data = held_out_files.joined(readings, StoredItems(store, np.asarray(parts["data"].items)))
    data = sorting.account(data, template)
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


def _decide(asked: Recipe, progress: Progress | None) -> actions.Decisions:
    """What the recipe says about findings, by all rows of the data, which are read for it."""

    def read() -> Iterator[Item]:
        return held_out_files.open_data(asked.data, progress=progress)["data"].items()

    return actions.decide(read, asked.data.findings, _scope(asked))


def _encoder(
    name: str, asked: Recipe, opened: Opened, template: Template, limit: int, decisions: actions.Decisions | None
) -> BlockEncoder:
    """What makes the rows of a reading."""
    reading, settings = opened.readings[name], asked.data.findings
    look = name == "data" and decisions is None
    return BlockEncoder(
        reading.choice,
        reading.data,
        template,
        limit,
        pairs=opened.pairs and name != "test",
        shares=asked.data.train_share < 1,
        stopping=[kind for kind in actions.STOPPING if kind not in settings] if look else (),
        scope=_scope(asked),
        groups=decisions is not None and decisions.together is not None,
    )


def _worth(readings: Iterable[Reading]) -> int:
    """How many processes make the rows faster than this one: none where they are few, or a user's function reads them."""
    own = any(is_own(reading.choice.format) for reading in readings)
    return 0 if own or sum(reading.count for reading in readings) < ENOUGH else available()


def _location(job: Job) -> str:
    """Where a reader finds the rows of a block."""
    rows = job[1].rows
    return f"{rows[0].location} to {rows[-1].location}" if rows else ""


def _check(name: str, readings: Mapping[str, Reading], parts: Mapping[str, Part]) -> None:
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
