"""Answers of which people said that they like them or not: which of them are learnt, asked, or dropped by name.

A disliked answer is never learnt as an answer and never a reference. An objective for unpaired preferences learns from both
sides; there a pair of a chosen and a rejected answer stands for one of each.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from luthier.data.dataset import Dataset, Item
from luthier.data.held_out_files import HeldOut
from luthier.data.ledger import Ledger
from luthier.errors import UserError

UNPAIRED = ("kto",)
"""Objectives that learn from liked and disliked answers."""
NOT_TRAINED_ON = "disliked by people, so not learnt (train.objective=kto learns from it)"
NOT_ASKED = "disliked by people, so not asked"
NO_LABEL = "no label that says whether people liked the answer"


class Sides(NamedTuple):
    """How many answers people liked, and how many they did not like."""

    liked: int
    disliked: int

    @classmethod
    def of(cls, items: Sequence[Item]) -> "Sides":
        """Of these items; a pair has one of each."""
        said = [item.conversation for item in items]
        return cls(
            sum(one.label is True or one.rejected is not None for one in said),
            sum(one.label is False or one.rejected is not None for one in said),
        )

    def __str__(self) -> str:
        return f"{self.liked:,} liked and {self.disliked:,} disliked answer{'s' * (self.disliked != 1)}"


def liked(items: Sequence[Item]) -> list[Item]:
    """The items whose answer can be a reference: people liked it, or nobody was asked."""
    return [item for item in items if item.conversation.label is not False]


def select(data: Dataset, held_out: HeldOut, *, unpaired: bool) -> tuple[Dataset, HeldOut]:
    """The items that are trained on and asked; the others are dropped in the ledger.

    Where the objective learns from `unpaired` answers, train and dev keep all that have a label; test questions need a liked
    answer. Raises a UserError where a file has nothing left.
    """

    def for_training(items: Sequence[Item]) -> list[Item]:
        return _labelled(items, data.ledger) if unpaired else _without_disliked(items, NOT_TRAINED_ON, data.ledger)

    items = for_training(data.items)
    if not items:
        raise none_liked(len(data.items), data.files)
    dev = None if held_out.dev is None else for_training(held_out.dev)
    test = None if held_out.test is None else _without_disliked(held_out.test, NOT_ASKED, data.ledger)
    for name, part in (("dev", dev), ("test", test)):
        if part is not None and not liked(part):
            raise none_to_ask(name)
    return replace(data, items=items), HeldOut(test=test, dev=dev)


def none_liked(answers: int, files: Sequence[str]) -> UserError:
    """The message for data of which nothing can be learnt."""
    return UserError(
        f"people liked none of its {answers:,} answers, and only liked ones are learnt. Expected rows with the "
        "label true; train.objective=kto learns from both kinds.",
        where=", ".join(files),
    )


def none_to_ask(name: str) -> UserError:
    """The message for a file of which nothing can be asked."""
    message = "people liked none of its answers, and a question needs one to compare answers with."
    return UserError(f"{message} Add rows with the label true.", where=f"data.{name}_path")


def liked_ones(items: Iterable[Item], reason: str, ledger: Ledger) -> Iterator[Item]:
    """The same, one item after the other; the others are dropped for this reason."""
    for item in items:
        if item.conversation.label is False:
            ledger.drop(reason, item.location)
        else:
            yield item


def _without_disliked(items: Sequence[Item], reason: str, ledger: Ledger) -> list[Item]:
    return list(liked_ones(items, reason, ledger))


def _labelled(items: Sequence[Item], ledger: Ledger) -> list[Item]:
    found = []
    for item in items:
        if item.conversation.label is None and item.conversation.rejected is None:
            ledger.drop(NO_LABEL, item.location)
        else:
            found.append(item)
    return found
