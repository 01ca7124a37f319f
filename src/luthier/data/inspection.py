"""What the data is, and what is wrong with it, before anything is trained: what `luthier inspect` shows.

Rows are read as a run reads them and stream once past the checks of `luthier.data.checks`; a second time they stream past the
rows that a run would hold out, which are few. So memory grows by some bytes a row. All rows are in memory only where they have
to be seen together: where an objective learns from liked and disliked answers, and where the recipe drops or groups rows by
what the checks find. No model is loaded; `Tokens` may count its tokens.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np

from luthier.chat import Conversation, Message
from luthier.data import checks, held_out_files, labels
from luthier.data import splits as dividing
from luthier.data.checks import actions, leaks, ledger, lengths, personal
from luthier.data.checks.findings import Finding
from luthier.data.checks.rows import Row, Scope
from luthier.data.dataset import Dataset, Item
from luthier.data.held_out_files import HeldOut
from luthier.data.reading import Reading
from luthier.data.refusals import refusal_pattern
from luthier.data.splits import Splits
from luthier.errors import UserError
from luthier.recipe import Recipe

FIRST = 3
"""Rows that are shown as they are read."""

Progress = Callable[[str, int, int], None]
"""Is told what is done, of how many rows how many are done; of 0 where nobody knows."""


class Tokens(Protocol):
    """What counts the tokens of rows that stream past."""

    model: str
    control_tokens: frozenset[str]

    def see(self, item: Item) -> None: ...

    def sizes(self) -> dict[str, lengths.Lengths]: ...

    def findings(self) -> Iterator[Finding]: ...


@dataclass(frozen=True)
class Inspection:
    """The data as it was read, the splits that a run would make of it, and what was found."""

    dataset: Dataset
    """With its first items only."""
    groups: int
    """Groups of rows, none of which is parted."""
    splits: dict[str, int] | None
    """Rows of train, dev and test; None where a run could not divide them."""
    findings: list[Finding]
    shape: lengths.Shape
    unit: str
    """What lengths are counted in: tokens, or words where no model was named."""
    sizes: dict[str, lengths.Lengths]
    """Lengths of whole rows, of what is asked and of answers."""
    model: str | None = None

    @property
    def first(self) -> list[dict[str, Any]]:
        """The first rows as they are read, personal data and secrets masked."""
        return [as_messages(item.conversation) for item in self.dataset.items]

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        choice, account = self.dataset.choice, self.dataset.ledger
        return {
            "format": choice.format,
            "columns": choice.columns,
            "alternatives": list(choice.alternatives),
            "unused": list(choice.unused),
            "sentence": self.dataset.sentence(),
            "files": self.dataset.files,
            "ignored": account.ignored,
            "read": account.read,
            "kept": account.kept,
            "dropped": {reason: list(locations) for reason, locations in account.dropped.items()},
            "notes": {remark: list(locations) for remark, locations in account.notes.items()},
            "task": self.shape.task,
            "labels": self.shape.balance,
            "model": self.model,
            "lengths": {"unit": self.unit} | {name: size.to_json() for name, size in self.sizes.items()},
            "groups": self.groups,
            "splits": self.splits,
            "findings": [finding.to_json() for finding in self.findings],
            "first": self.first,
        }


def inspect(
    asked: Recipe, *, tokens: Tokens | None = None, progress: Progress = lambda what, done, of: None
) -> Inspection:
    """Look at the data of a recipe; raises a UserError where it cannot be read."""
    settings = asked.data.findings
    actions.check_words(settings)
    scope = Scope(
        control_tokens=tokens.control_tokens if tokens else frozenset(),
        refusal=refusal_pattern(asked.evaluate.errors.get("refusal")),
    )
    together = actions.need_all(settings) or asked.train.objective in labels.UNPAIRED
    seen = _Seen(tokens, progress)
    made = _in_memory if together else _streamed
    data, parts, found = made(asked, seen, scope)
    shape = seen.shape
    found += [*ledger.dropped(data.ledger), *lengths.enough(shape.rows), *lengths.label_balance(shape)]
    found += tokens.findings() if tokens else ()
    return Inspection(
        data, parts.groups, parts.sizes, actions.marked(checks.in_order(found), settings), shape,
        "tokens" if tokens else "words", tokens.sizes() if tokens else shape.sizes(), tokens.model if tokens else None,
    )  # fmt: skip


@dataclass
class _Seen:
    """What is counted of rows on their way to the checks."""

    tokens: Tokens | None
    progress: Progress
    shape: lengths.Shape = field(default_factory=lengths.Shape)
    rows: int = 0

    def rows_of(self, items: Iterable[Item], *, held_out: bool = False, of: int = 0) -> Iterator[Row]:
        """The items as rows, the user's own test and dev rows marked as such."""
        for item in items:
            if self.rows % 100 == 0:
                self.progress("checking", self.rows, of)
            self.rows += 1
            row = Row(item, held_out)
            self.shape.see(row)
            if self.tokens and not held_out:
                self.tokens.see(item)
            yield row


@dataclass(frozen=True)
class _Parts:
    """The splits that a run would make, as numbers."""

    groups: int
    sizes: dict[str, int] | None


def _streamed(asked: Recipe, seen: _Seen, scope: Scope) -> tuple[Dataset, _Parts, list[Finding]]:
    """In two passes over the files."""
    seen.progress("reading", 0, 0)
    readings = held_out_files.open_data(asked.data)
    main = readings["data"]
    first: list[Item] = []
    digests, shares = bytearray(), bytearray()
    own: dict[str, list[Item]] = {}

    def rows() -> Iterator[Row]:
        dropped = main.ledger
        for item in seen.rows_of(labels.liked_ones(main.items(), labels.NOT_TRAINED_ON, dropped)):
            first.extend([item.item] if len(first) < FIRST else [])
            digests.extend(dividing.digest(item.item.group))
            shares.extend(dividing.share_digest(item.item.group))
            yield item
        if not digests:
            raise labels.none_liked(dropped.kept + len(dropped.dropped[labels.NOT_TRAINED_ON]), main.files)
        for name in readings:
            if name != "data":
                own[name] = _own(name, readings, documents=first[0].conversation.is_document)
                yield from seen.rows_of(own[name], held_out=True)
        seen.progress("comparing rows", 0, 0)

    found = checks.examine(rows(), scope)
    groups = dividing.Groups(bytes(digests), bytes(shares))
    data = held_out_files.joined(readings, first)
    try:
        numbers = dividing.choose(
            groups, test_items=asked.data.test_items, dev_items=asked.data.dev_items, share=asked.data.train_share,
            test=dividing.Groups.of(own["test"]) if "test" in own else None,
            dev=dividing.Groups.of(own["dev"]) if "dev" in own else None,
        )  # fmt: skip
    except UserError as error:
        return data, _Parts(len(groups), None), [*found, _no_splits(error)]
    sizes = {name: len(getattr(numbers, name)) for name in ("train", "dev", "test")}
    seen.progress("comparing splits", 0, 0)
    again = _Again(asked, progress=seen.progress, of=groups.items)
    held_out = again.chosen({name: getattr(numbers, name) for name in ("dev", "test") if name not in own})
    held_out |= {name: [part[at] for at in getattr(numbers, name)] for name, part in own.items()}
    splits = Splits(again.stream(numbers.train), held_out["dev"], held_out["test"])  # type: ignore[arg-type]
    return data, _Parts(len(groups), sizes), [*found, *leaks.leaks(leaks.overlaps(splits), frozenset(own))]


def _own(name: str, readings: dict[str, Reading], *, documents: bool) -> list[Item]:
    """The liked items of a file of the user's own for test or dev, which are few."""
    items = list(readings[name].items())
    kinds = {"data": documents, name: items[0].conversation.is_document}
    held_out_files.check(name, readings, len(items), documents=kinds)
    reason = labels.NOT_ASKED if name == "test" else labels.NOT_TRAINED_ON
    kept = list(labels.liked_ones(items, reason, readings[name].ledger))
    if not kept:
        raise labels.none_to_ask(name)
    return kept


class _Again:
    """The rows of the data, read once more, by their numbers among the kept ones."""

    def __init__(self, asked: Recipe, *, progress: Progress, of: int) -> None:
        self._asked, self._progress, self._of = asked, progress, of

    def _items(self) -> Iterator[Item]:
        items = held_out_files.open_data(self._asked.data)["data"].items()
        return (item for item in items if item.conversation.label is not False)

    def chosen(self, numbers: dict[str, np.ndarray]) -> dict[str, list[Item]]:
        """The items of each part, which are few."""
        part_of = {at: name for name, part in numbers.items() for at in part.tolist()}
        found: dict[str, list[Item]] = {name: [] for name in numbers}
        for number, item in enumerate(self._items() if part_of else ()):
            if number in part_of:
                found[part_of[number]].append(item)
        return found

    def stream(self, numbers: np.ndarray) -> Iterator[Item]:
        """These items one after the other."""
        wanted = np.zeros(self._of, bool)
        wanted[numbers] = True
        for number, item in enumerate(islice(self._items(), self._of)):
            if number % 1000 == 0:
                self._progress("comparing splits", number, self._of)
            if wanted[number]:
                yield item


def _in_memory(asked: Recipe, seen: _Seen, scope: Scope) -> tuple[Dataset, _Parts, list[Finding]]:
    """With all rows at hand."""
    settings = asked.data.findings
    seen.progress("reading", 0, 0)
    data, held_out = held_out_files.load(asked.data)
    unpaired = asked.train.objective in labels.UNPAIRED
    data, held_out = labels.select(data, held_out, unpaired=unpaired)

    def rows() -> Iterator[Row]:
        yield from seen.rows_of(data.items, of=len(data.items) + len(held_out.items))
        yield from seen.rows_of(held_out.items, held_out=True, of=len(data.items) + len(held_out.items))
        seen.progress("comparing rows", 0, 0)

    found = checks.examine(rows(), scope)
    seen.progress("comparing splits", 0, 0)
    data = actions.apply(data, settings, scope, stop=False)
    parts, more = _splits(asked, data, held_out, unpaired=unpaired)
    sizes = None if parts is None else {name: len(getattr(parts, name)) for name in ("train", "dev", "test")}
    groups = len({item.group for item in data.items})
    return replace(data, items=data.items[:FIRST]), _Parts(groups, sizes), [*found, *more]


def _splits(asked: Recipe, data: Dataset, held_out: HeldOut, *, unpaired: bool) -> tuple[Splits | None, list[Finding]]:
    """The splits that a run would make, and what they leak; a run's refusal to make them is a finding too."""
    settings = asked.data
    divide = dividing.split_labelled if unpaired else dividing.split
    try:
        parts = divide(
            data.items, test_items=settings.test_items, dev_items=settings.dev_items, test=held_out.test,
            dev=held_out.dev, share=settings.train_share,
        )  # fmt: skip
    except UserError as error:
        return None, [_no_splits(error)]
    parts = actions.without_relatives(parts, settings.findings)
    own = frozenset(name for name in ("test", "dev") if getattr(held_out, name) is not None)
    return parts, list(leaks.leaks(leaks.overlaps(parts), own))


def _no_splits(error: UserError) -> Finding:
    sentence, _, advice = error.message.partition(". ")
    return Finding("no-splits", "error", sentence, advice)


def as_messages(conversation: Conversation) -> dict[str, Any]:
    """A row as people and programs know it, personal data and secrets masked: a list of messages, and what else there is."""
    messages = [_as_message(message) for message in conversation.messages]
    more: dict[str, Any] = (
        {} if conversation.rejected is None else {"rejected": personal.without(conversation.rejected)}
    )
    more |= {"tools": [json.loads(personal.without(tool)) for tool in conversation.tools]} if conversation.tools else {}
    more |= (
        {"references": [personal.without(text) for text in conversation.references]} if conversation.references else {}
    )
    return {"messages": messages} | more


def _as_message(message: Message) -> dict[str, Any]:
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": personal.without(call.arguments)}}
        for call in message.tool_calls
    ]
    return (
        {"role": message.role, "content": personal.without(message.content)}
        | ({"reasoning_content": personal.without(message.reasoning)} if message.reasoning else {})
        | ({"tool_calls": calls} if calls else {})
        | ({} if message.in_loss else {"weight": 0})
    )
