"""A pair that its passage does not hold is dropped: planted by the hundred, of every kind that a rule can see."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from scipy import stats

from luthier.data.documents import support
from luthier.data.documents.pairs import Pair
from luthier.data.documents.passages import Passage

SHOPS = ["Kiln", "Bakery", "Garage", "Library", "Museum", "Harbour", "Cinema", "Pharmacy", "Orchard", "Foundry"]
PEOPLE = ["Ada", "Bela", "Carla", "Dario", "Emil", "Fatima", "Greta", "Hugo", "Ines", "Jonas"]
GOODS = ["clay", "bread", "tyres", "novels", "coins", "ropes", "tickets", "pills", "cherries", "bells"]


def pairs() -> Iterator[Pair]:
    """A hundred pairs that hold, in other words than the passage's own where that is fair."""
    for number, shop in enumerate(SHOPS):
        for other in range(10):
            person, good, hour, price = PEOPLE[other], GOODS[(number + other) % 10], 6 + other, 3 + number + other / 4
            text = (
                f"The {shop} opens at {hour} and is run by {person}. It sells {good} for {price:.2f} euros. "
                f"Dogs are not allowed. Parking costs nothing on Sundays."
            )
            questions = [
                (f"When does the {shop} open?", f"At {hour}.", f"The {shop} opens at {hour}"),
                (f"Who runs the {shop}?", f"{person} runs the {shop}.", f"is run by {person}"),
                (f"What do {good} of the {shop} cost?", f"{price} euros.", f"{good} for {price:.2f} euros"),
                (f"Are dogs allowed in the {shop}?", "No, dogs are not allowed.", "Dogs are not allowed"),
            ]
            question, answer, quote = questions[(number + other) % 4]
            start = text.index(quote)
            passage = Passage(f"{shop.lower()}.md:1", text)
            yield Pair(question, answer, f"{shop.lower()}.md", passage, start, start + len(quote), "model: m")


GOOD = list(pairs())


def other(pair: Pair, draw: random.Random) -> Pair:
    """A pair with another answer of another document."""
    return draw.choice([each for each in GOOD if each.document != pair.document and each.answer != pair.answer])


PLANTS: dict[str, Callable[[Pair, random.Random], Pair]] = {
    "another document's answer": lambda pair, draw: replace(
        pair, answer=f"It is {draw.choice(['granite', 'velvet', 'amber', 'cobalt'])} {draw.randint(40, 99)}."
    ),
    "another number": lambda pair, draw: replace(pair, answer=f"{pair.answer} That is {draw.randint(30, 99)}."),
    "a name that nobody mentioned": lambda pair, draw: replace(pair, answer=f"{pair.answer} Ask Zora."),
    "an invented reason": lambda pair, draw: replace(
        pair, answer=f"{pair.answer.rstrip('.')} because the {draw.choice(['owner', 'council', 'weather'])} demands it."
    ),
    "the contrary": lambda pair, draw: replace(
        pair, answer=pair.answer.replace("not ", "") if "not" in pair.answer else f"Not {pair.answer}"
    ),
    "a question about something else": lambda pair, draw: replace(
        pair,
        question=f"How deep is the {draw.choice(['lake', 'well', 'trench'])} near {draw.choice(['Oslo', 'Quito'])}?",
    ),
}


def test_pairs_that_hold_pass() -> None:
    assert {support.fault(pair) for pair in GOOD} == {None}


def test_planted_pairs_pass_in_at_most_two_per_cent() -> None:
    """By the upper end of the 95 % interval (Clopper and Pearson), over 600 planted pairs of six kinds."""
    draw = random.Random(0)
    planted = [(kind, plant(pair, draw)) for kind, plant in PLANTS.items() for pair in GOOD]
    passed = [(kind, pair.question, pair.answer) for kind, pair in planted if support.fault(pair) is None]
    upper = stats.binomtest(len(passed), len(planted)).proportion_ci(0.95, "exact").high
    assert len(planted) == 600 and upper <= 0.02, passed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("At 8.", "an answer that shares no word with its quote"),
        ("The kiln opens at 8.", "an answer with a number that is not in the passage"),
        ("The kiln opens at 7 sharp.", "an answer with words that are not in the passage"),
        ("The kiln does not open at 7.", "an answer that negates what its quote does not, or the other way round"),
        ("It is there.", "an answer without words or numbers of its own"),
        ("The kilns open at 7.0.", None),
    ],
)
def test_why_an_answer_does_not_hold(answer: str, reason: str | None) -> None:
    passage = Passage("k.md:1", "The kiln opens at 7 and closes at 9.")
    assert support.fault(Pair("When does the kiln open?", answer, "k.md", passage, 0, 19, "model: m")) == reason


def test_answers_agree_by_their_words_and_numbers() -> None:
    assert support.agreement("The kiln opens at 7.", "At 7 the kiln opens") == 1
    assert support.agreement("At 7.", "At 8.") == 0 and support.agreement("Open.", "Not open.") == 0
