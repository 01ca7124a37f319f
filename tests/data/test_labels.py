"""Disliked answers are learnt from by an objective that fits, and by no other; they are never asked."""

from dataclasses import replace

import pytest

from luthier.chat import Conversation, Encoded
from luthier.data import Dataset, Item, labels, split
from luthier.data.encoding import both_sides, of_last_answer
from luthier.data.formats import Choice
from luthier.data.held_out_files import HeldOut
from luthier.data.labels import Sides
from luthier.data.ledger import Ledger
from luthier.data.splits import split_labelled
from luthier.errors import UserError
from luthier.recipe import Train
from luthier.train import check


def item(number: int, label: bool | None, *, question: str = "", rejected: str | None = None) -> Item:
    said = replace(Conversation.pair(question or f"q{number}", f"a{number}", rejected=rejected), label=label)
    return Item(str(number), f"votes.jsonl:{number}", question or f"q{number}", said)


def dataset(*items: Item) -> Dataset:
    return Dataset(list(items), Ledger(read=len(items)), Choice("messages", {}), "", ["votes.jsonl"])


LIKED, DISLIKED, UNSAID = item(1, True), item(2, False), item(3, None)
PAIR = item(4, None, rejected="b4")


def test_a_disliked_answer_is_dropped_by_name_where_answers_are_learnt() -> None:
    data = dataset(LIKED, DISLIKED, UNSAID, PAIR)
    found, held_out = labels.select(data, HeldOut(test=[LIKED, DISLIKED]), unpaired=False)
    assert found.items == [LIKED, UNSAID, PAIR] and held_out.test == [LIKED]
    assert data.ledger.dropped == {
        "disliked by people, so not learnt (train.objective=kto learns from it)": ["votes.jsonl:2"],
        "disliked by people, so not asked": ["votes.jsonl:2"],
    }


def test_rows_without_a_label_are_dropped_where_labels_are_learnt_from() -> None:
    data = dataset(LIKED, DISLIKED, UNSAID, PAIR)
    assert labels.select(data, HeldOut(), unpaired=True)[0].items == [LIKED, DISLIKED, PAIR]
    assert data.ledger.dropped == {"no label that says whether people liked the answer": ["votes.jsonl:3"]}


@pytest.mark.parametrize(
    ("held_out", "unpaired", "message"),
    [
        (HeldOut(), False, "votes.jsonl: people liked none of its 1 answers, and only liked ones are learnt"),
        (HeldOut(test=[DISLIKED]), True, "data.test_path: people liked none of its answers"),
        (HeldOut(dev=[DISLIKED]), True, "data.dev_path: people liked none of its answers"),
    ],
)
def test_files_of_disliked_answers_alone_are_refused(held_out: HeldOut, unpaired: bool, message: str) -> None:
    with pytest.raises(UserError) as caught:
        labels.select(dataset(DISLIKED), held_out, unpaired=unpaired)
    assert message in str(caught.value)


def test_both_kinds_of_answers_are_needed() -> None:
    kto = Train(objective="kto")
    check.check_rows(kto, dataset(PAIR))
    for items, dev, message in (
        ([UNSAID], None, 'train.objective: "kto" learns from answers that people liked or did not like'),
        ([LIKED, LIKED], None, "train.objective: kto learns from the difference"),
        ([DISLIKED], None, "there are 0 liked and 1 disliked answer. Expected both"),
        ([PAIR], [LIKED], "data.dev_path: kto learns from the difference"),
    ):
        with pytest.raises(UserError) as caught:
            check.check_rows(kto, dataset(*items), dev)
        assert message in str(caught.value)


def votes(count: int) -> list[Item]:
    """Questions with a liked and a disliked answer, and as many with a disliked one alone."""
    both = [item(2 * n + (not liked), liked, question=f"both {n}") for n in range(count) for liked in (True, False)]
    return [*both, *(item(2 * count + n, False, question=f"alone {n}") for n in range(count))]


def test_train_and_dev_have_both_sides_and_test_has_liked_answers_only() -> None:
    found = split_labelled(votes(40), test_items=None, dev_items=None)
    assert Sides.of(found.test) == (4, 0)
    assert Sides.of(found.dev) == (4, 4 + 4)
    assert Sides.of(found.train) == (32, 32 + 36)
    groups = [{one.group for one in part} for part in (found.train, found.dev, found.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_the_same_questions_are_asked_whatever_the_objective() -> None:
    items = votes(40)
    answers, _ = labels.select(dataset(*items), HeldOut(), unpaired=False)
    plain = split(answers.items, test_items=7, dev_items=3)
    assert plain.test == split_labelled(items, test_items=7, dev_items=3).test


def test_files_for_dev_and_test_are_taken_as_they_are() -> None:
    items, held = votes(5), votes(2)
    found = split_labelled(items, test_items=None, dev_items=None, test=held[:1], dev=held)
    assert (found.train, found.dev, found.test) == (items, held, held[:1])


def test_a_side_that_train_or_dev_would_lack_is_refused() -> None:
    items = [*(item(n, True) for n in range(10)), item(99, False)]
    with pytest.raises(UserError, match="of 10 liked and 1 disliked answer, dev got 1 and 0: kto needs both"):
        split_labelled(items, test_items=None, dev_items=None)


def test_a_pair_becomes_a_liked_and_a_disliked_answer() -> None:
    row = Encoded([1, 2], [False, True], Encoded([1, 3], [False, True]))
    (liked, first), (disliked, second) = both_sides(PAIR, row)
    assert (liked.id, liked.conversation.answer, liked.conversation.label) == ("4", "a4", True)
    assert (disliked.id, disliked.conversation.answer, disliked.conversation.label) == ("4.rejected", "b4", False)
    assert liked.conversation.rejected is None and disliked.conversation.rejected is None
    assert (first.ids, second.ids, first.rejected) == ([1, 2], [1, 3], None)
    assert both_sides(LIKED, second) == [(LIKED, second)]


def test_a_label_speaks_of_the_last_answer_alone() -> None:
    before = Encoded([1, 2], [False, True])
    row = Encoded([1, 2, 3, 4, 5, 6], [False, True, False, True, True, False], before)
    assert of_last_answer([before, row]) == [
        Encoded([1, 2, 3, 4, 5, 6], [False, False, False, True, True, False], before)
    ]
