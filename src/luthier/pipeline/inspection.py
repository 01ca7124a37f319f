"""What the data is, and what is wrong with it, before anything is trained: the verb `luthier inspect`.

Rows are read as a run reads them and stream once past the checks of `luthier.data.checks`; then the splits that a run would
make are compared. No model is loaded; where one is named, its tokenizer counts the tokens.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from luthier.chat import Conversation, Message
from luthier.data import checks, held_out_files
from luthier.data.checks import leaks, ledger, lengths
from luthier.data.checks.findings import Finding
from luthier.data.checks.rows import Row, Scope
from luthier.data.dataset import Dataset
from luthier.data.held_out_files import HeldOut
from luthier.data.splits import Splits, split
from luthier.errors import UserError
from luthier.recipe import Recipe

FIRST = 3
"""Rows that are shown as they are read."""

Progress = Callable[[str, int, int], None]
"""Is told what is done, of how many rows how many are done."""


@dataclass(frozen=True)
class Inspection:
    """The data as it was read, the splits that a run would make of it, and what was found."""

    dataset: Dataset
    held_out: HeldOut
    splits: Splits | None
    findings: list[Finding]
    shape: lengths.Shape
    unit: str
    """What lengths are counted in: tokens, or words where no model was named."""
    sizes: dict[str, lengths.Lengths]
    """Lengths of whole rows, of what is asked and of answers."""
    seconds: float
    first: list[dict[str, Any]] = field(default_factory=list)

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
            "dropped": account.dropped,
            "notes": account.notes,
            "task": self.shape.task,
            "labels": self.shape.balance,
            "lengths": {"unit": self.unit} | {name: size.to_json() for name, size in self.sizes.items()},
            "groups": len({item.group for item in self.dataset.items}),
            "splits": {name: len(getattr(self.splits, name)) for name in ("train", "dev", "test")}
            if self.splits
            else None,
            "findings": [finding.to_json() for finding in self.findings],
            "first": self.first,
        }


def inspect(asked: Recipe, *, progress: Progress | None = None) -> Inspection:
    """Look at the data of a recipe; raises a UserError where it cannot be read."""
    begun = time.monotonic()
    data, held_out = held_out_files.load(asked.data)
    shape = lengths.Shape()
    total = len(data.items) + len(held_out.items)

    def rows() -> Iterator[Row]:
        own = ((item, False) for item in data.items)
        theirs = ((item, True) for item in held_out.items)
        for number, (item, is_held_out) in enumerate((*own, *theirs)):
            if progress and number % 100 == 0:
                progress("checking", number, total)
            row = Row(item, is_held_out)
            shape.see(row)
            yield row

    found = checks.examine(rows(), Scope())
    found += ledger.dropped(data.ledger)
    found += lengths.enough(len(data.items))
    parts, more = _splits(asked, data, held_out)
    found += more
    sizes = {
        "row": lengths.Lengths.of([one + two for one, two in zip(shape.asked, shape.answers, strict=True)]),
        "question": lengths.Lengths.of(shape.asked),
        "answer": lengths.Lengths.of(shape.answers),
    }
    return Inspection(
        data, held_out, parts, checks.in_order(found), shape, "words", sizes, time.monotonic() - begun,
        [as_messages(item.conversation) for item in data.items[:FIRST]],
    )  # fmt: skip


def _splits(asked: Recipe, data: Dataset, held_out: HeldOut) -> tuple[Splits | None, list[Finding]]:
    """The splits that a run would make, and what they leak; a run's refusal to make them is a finding too."""
    settings = asked.data
    try:
        parts = split(
            data.items, test_items=settings.test_items, dev_items=settings.dev_items, test=held_out.test,
            dev=held_out.dev, share=settings.train_share,
        )  # fmt: skip
    except UserError as error:
        return None, [Finding("no-splits", "error", error.message.partition(". ")[0], error.message.partition(". ")[2])]
    own = frozenset(name for name in ("test", "dev") if getattr(held_out, name) is not None)
    return parts, list(leaks.leaks(leaks.overlaps(parts), own))


def as_messages(conversation: Conversation) -> dict[str, Any]:
    """A row as people and programs know it: a list of messages, and what else there is of it."""
    messages = [_as_message(message) for message in conversation.messages]
    more: dict[str, Any] = {} if conversation.rejected is None else {"rejected": conversation.rejected}
    more |= {"tools": [json.loads(tool) for tool in conversation.tools]} if conversation.tools else {}
    more |= {"references": list(conversation.references)} if conversation.references else {}
    return {"messages": messages} | more


def _as_message(message: Message) -> dict[str, Any]:
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return (
        {"role": message.role, "content": message.content}
        | ({"tool_calls": calls} if calls else {})
        | ({} if message.in_loss else {"weight": 0})
    )
