"""What the data is, and what is wrong with it, before anything is trained: the verb `luthier inspect`.

Rows are read as a run reads them and stream once past the checks of `luthier.data.checks`; then the splits that a run would
make are compared. No model is loaded; where one is named, its tokenizer counts the tokens.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.chat import Conversation, Message, Template
from luthier.data import checks, encoding, held_out_files, labels
from luthier.data.checks import actions, leaks, ledger, lengths, personal
from luthier.data.checks.cut_answers import CUT, Limit
from luthier.data.checks.findings import Finding, plural
from luthier.data.checks.rows import Row, Scope
from luthier.data.dataset import Dataset, Item
from luthier.data.held_out_files import HeldOut
from luthier.data.ledger import Ledger
from luthier.data.refusals import refusal_pattern
from luthier.data.splits import Splits, split, split_labelled
from luthier.errors import UserError
from luthier.model.reference import ModelReference
from luthier.pipeline import defaults, row_limit
from luthier.recipe import Recipe

FIRST = 3
"""Rows that are shown as they are read."""
MOST_TOKENS = 60
"""Tokens of the longest answers from which on many of one length are a limit."""
AT_ONCE = 500
"""Rows that are tokenized together."""

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
    model: str | None = None

    @property
    def first(self) -> list[dict[str, Any]]:
        """The first rows as they are read, personal data and secrets masked."""
        return [as_messages(item.conversation) for item in self.dataset.items[:FIRST]]

    @property
    def groups(self) -> int:
        """Groups of rows, none of which is parted."""
        return len({item.group for item in self.dataset.items})

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
            "splits": self.splits and {name: len(getattr(self.splits, name)) for name in ("train", "dev", "test")},
            "findings": [finding.to_json() for finding in self.findings],
            "first": self.first,
        }


def inspect(asked: Recipe, *, progress: Progress = lambda what, done, of: None) -> Inspection:
    """Look at the data of a recipe; raises a UserError where it cannot be read."""
    settings = asked.data.findings
    actions.check_words(settings)
    named = "model" in asked.model_fields_set
    template, context = _template(asked) if named else (None, 0)
    progress("reading", 0, 0)
    data, held_out = held_out_files.load(asked.data)
    data, held_out = labels.select(data, held_out, unpaired=asked.train.objective in labels.UNPAIRED)
    scope = Scope(
        control_tokens=frozenset(template.tokenizer.control) if template else frozenset(),
        refusal=refusal_pattern(asked.evaluate.errors.get("refusal")),
    )
    shape = lengths.Shape()
    found = checks.examine(_rows(data, held_out, shape, progress), scope)
    found += ledger.dropped(data.ledger)
    found += lengths.enough(shape.rows)
    found += lengths.label_balance(shape)
    unit, sizes = "words", shape.sizes()
    if template:
        by_default = row_limit.by_default(context, documents=data.items[0].conversation.is_document)
        limit, _ = defaults.longest_row(asked, context, by_default)
        unit, sizes = "tokens", _tokens(data, template, limit, found, progress)
    progress("comparing splits", 0, 0)
    data = actions.apply(data, settings, scope, stop=False)
    parts, more = _splits(asked, data, held_out)
    found = actions.marked(checks.in_order([*found, *more]), settings)
    return Inspection(data, held_out, parts, found, shape, unit, sizes, asked.model if named else None)


def _template(asked: Recipe) -> tuple[Template, int]:
    """The chat template of the model that was named, and its context."""
    model = ModelReference.of(asked.model, weights=False)
    return model.template(variables=asked.chat.variables, today=asked.chat.date), model.context


def _rows(data: Dataset, held_out: HeldOut, shape: lengths.Shape, progress: Progress) -> Iterator[Row]:
    """The rows one at a time, the user's own test and dev rows behind the others; each is measured on its way."""
    total, number = len(data.items) + len(held_out.items), 0
    for items, is_held_out in ((data.items, False), (held_out.items, True)):
        for item in items:
            if number % 100 == 0:
                progress("checking", number, total)
            number += 1
            row = Row(item, is_held_out)
            shape.see(row)
            yield row
    progress("comparing rows", 0, 0)


def _tokens(
    data: Dataset, template: Template, limit: int, found: list[Finding], progress: Progress
) -> dict[str, lengths.Lengths]:
    """Lengths in tokens; rows that a run would leave out because they do not fit become a finding."""
    account = Ledger()
    rows: list[int] = []
    answers: list[int] = []
    longest = Limit("tokens", MOST_TOKENS)
    for number, items in enumerate(_chunks(data.items)):
        progress("tokenizing", number * AT_ONCE, len(data.items))
        found_rows = encoding.encode_all(items, template, limit, account, pairs=set())
        for item in items:
            encoded = found_rows[item.location]
            rows += [len(row.ids) for row in encoded]
            answers += [row.loss_tokens for row in encoded]
            if encoded and not item.conversation.is_document:
                longest.see(encoded[-1].loss_tokens, item.conversation.answer, item.location)
    if longest.is_one():
        sentence = f"{plural(len(longest.spots), 'answer')} stopping where many others stop: {longest}"
        found.append(Finding("cut-answer", "warning", sentence, CUT, tuple(longest.spots)))
    for reason in (encoding.TOO_LONG, encoding.REFUSED):
        entries: Sequence[str] = account.dropped.get(reason, ())
        if entries:
            kind = "too-long" if reason == encoding.TOO_LONG else "unusable"
            advice = (
                "A run leaves them out. Shorten them, or use a model with a longer context."
                if kind == "too-long"
                else ""
            )
            spots = tuple(ledger.spot(entry, reason) for entry in entries)
            sentence = (
                f"{plural(len(spots), 'row')} {'is' if len(spots) == 1 else 'are'} {reason} ({limit:,} tokens fit)"
            )
            found.append(Finding(kind, "warning", sentence, advice, spots))
    asked = [row - answer for row, answer in zip(rows, answers, strict=True)]
    return {name: lengths.Lengths.of(each) for name, each in (("row", rows), ("question", asked), ("answer", answers))}


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[at : at + AT_ONCE] for at in range(0, len(items), AT_ONCE))


def _splits(asked: Recipe, data: Dataset, held_out: HeldOut) -> tuple[Splits | None, list[Finding]]:
    """The splits that a run would make, and what they leak; a run's refusal to make them is a finding too."""
    settings = asked.data
    try:
        divide = split_labelled if asked.train.objective in labels.UNPAIRED else split
        parts = divide(
            data.items, test_items=settings.test_items, dev_items=settings.dev_items, test=held_out.test,
            dev=held_out.dev, share=settings.train_share,
        )  # fmt: skip
    except UserError as error:
        sentence, _, advice = error.message.partition(". ")
        return None, [Finding("no-splits", "error", sentence, advice)]
    parts = actions.without_relatives(parts, settings.findings)
    own = frozenset(name for name in ("test", "dev") if getattr(held_out, name) is not None)
    return parts, list(leaks.leaks(leaks.overlaps(parts), own))


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
        | ({"tool_calls": calls} if calls else {})
        | ({} if message.in_loss else {"weight": 0})
    )
