"""A row as the checks look at it: its texts, its question and its answer, each cut into words once."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from luthier.data.checks.findings import Finding, Severity, Spot, plural, share
from luthier.data.dataset import Item
from luthier.data.readers.values import normalise
from luthier.data.words import pieces


@dataclass(frozen=True)
class Row:
    """An item, and whether it is the user's own test or dev row."""

    item: Item
    held_out: bool = False

    @property
    def location(self) -> str:
        return self.item.location

    @cached_property
    def texts(self) -> list[str]:
        """Every text that is written in the row, system messages too."""
        conversation = self.item.conversation
        found = [text for message in conversation.messages for text in (message.reasoning, message.content) if text]
        found += [call.arguments for message in conversation.messages for call in message.tool_calls]
        return found + ([conversation.rejected] if conversation.rejected else [])

    @cached_property
    def asked(self) -> str:
        """What is asked, without system messages; of a document, its text."""
        conversation = self.item.conversation
        messages = conversation.messages if conversation.is_document else conversation.prompt
        return "\n".join(message.text for message in messages if message.role != "system")

    @property
    def answer(self) -> str:
        return self.item.conversation.answer

    @cached_property
    def asked_words(self) -> list[str]:
        return pieces(normalise(self.asked).casefold())

    @cached_property
    def answer_words(self) -> list[str]:
        """Empty for a document, which has no answer."""
        return [] if self.item.conversation.is_document else pieces(self.answer)


@dataclass(frozen=True)
class Scope:
    """What a check may know beside the rows."""

    control_tokens: frozenset[str] = frozenset()
    """How the model's own control tokens are spelled; empty where no model was named."""
    refusal: re.Pattern[str] | None = None
    """The user's own pattern for refusals."""


class Check(Protocol):
    """A check sees each row once, in file order, and then says what it found."""

    def see(self, row: Row) -> None: ...

    def findings(self) -> Iterator[Finding]: ...


def each_row(
    kind: str, look: Callable[[Row], str | None], *, severity: Severity, what: str, advice: str
) -> Callable[[Scope], Check]:
    """A check that looks at each row alone: `look` gives what it found, masked, or None; `what` ends "3 rows (2 %) …"."""
    return lambda scope: _EachRow(kind, look, severity, what, advice)


class _EachRow:
    def __init__(
        self, kind: str, look: Callable[[Row], str | None], severity: Severity, what: str, advice: str
    ) -> None:
        self.kind, self.look, self.severity, self.what, self.advice = kind, look, severity, what, advice
        self.rows = 0
        self.spots: list[Spot] = []

    def see(self, row: Row) -> None:
        self.rows += 1
        detail = self.look(row)
        if detail is not None:
            self.spots.append(Spot(row.location, detail))

    def findings(self) -> Iterator[Finding]:
        if self.spots:
            sentence = f"{plural(len(self.spots), 'row')} ({share(len(self.spots), self.rows)}) {self.what}"
            yield Finding(self.kind, self.severity, sentence, self.advice, tuple(self.spots))
