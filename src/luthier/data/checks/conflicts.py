"""The same question with different answers: one of them is wrong, or the question lacks what would tell them apart."""

import hashlib
from collections.abc import Iterator

from luthier.data.checks.findings import Finding, Spot, plural
from luthier.data.checks.rows import Row, Scope
from luthier.data.dataset import normalised_prompt
from luthier.data.readers.values import normalise

CREATIVE = 5
"""Different answers to one question from which on many are wanted, as where a prompt asks for one more story."""


class Conflicts:
    """Collects the answers to each question. A pair with a rejected answer is a comparison and no conflict."""

    def __init__(self, scope: Scope) -> None:
        self.first: dict[bytes, tuple[bytes, str]] = {}  # question → answer, both as digests, and location
        self.asked: dict[bytes, list[Spot]] = {}
        self.answers: dict[bytes, set[bytes]] = {}

    def see(self, row: Row) -> None:
        conversation = row.item.conversation
        if (
            conversation.is_document
            or conversation.rejected is not None
            or conversation.label is not None
            or row.held_out
        ):
            return
        question = _digest(normalised_prompt(conversation))
        answer = _digest(normalise(conversation.answer).casefold())
        if question not in self.first:
            self.first[question] = (answer, row.location)
        elif self.first[question][0] != answer or question in self.asked:
            one, where = self.first[question]
            self.asked.setdefault(question, [Spot(where, "the first of them")]).append(
                Spot(row.location, f"asks the same as {where}")
            )
            self.answers.setdefault(question, {one}).add(answer)

    def findings(self) -> Iterator[Finding]:
        if not self.asked:
            return
        spots = tuple(spot for spots in self.asked.values() for spot in spots)
        many = all(len(answers) >= CREATIVE for answers in self.answers.values())
        sentence = (
            f"{plural(len(self.asked), 'question')} asked again with another answer, in {plural(len(spots), 'row')}"
        )
        yield Finding(
            "conflict", "note" if many else "warning", sentence,
            "A model cannot learn both. Keep the right answer, or add to the question what tells them apart; "
            "data.findings.conflict=drop takes these rows out.",
            spots,
        )  # fmt: skip


def _digest(text: str) -> bytes:
    """16 bytes that stand for a text, so that memory does not grow with what the rows say."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
