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
    """A hundred passages, and of each the four pairs that hold, in other words than the passage's own where that is fair."""
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
            passage = Passage(f"{shop.lower()}.md:1", text)
            for question, answer, quote in questions:
                start = text.index(quote)
                yield Pair(question, answer, f"{shop.lower()}.md", passage, start, start + len(quote), "model: m")


GOOD = list(pairs())


def beside(pair: Pair, draw: random.Random) -> Pair:
    """Another pair of the same passage."""
    return draw.choice([each for each in GOOD if each.passage == pair.passage and each.question != pair.question])


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
    "another answer of the same passage": lambda pair, draw: replace(pair, answer=beside(pair, draw).answer),
    "another quote of the same passage": lambda pair, draw: replace(
        (one := beside(pair, draw)), question=pair.question, answer=pair.answer, start=one.start, end=one.end
    ),
    "answer and quote of another question": lambda pair, draw: replace(beside(pair, draw), question=pair.question),
    "a question about something else": lambda pair, draw: replace(
        pair,
        question=f"How deep is the {draw.choice(['lake', 'well', 'trench'])} near {draw.choice(['Oslo', 'Quito'])}?",
    ),
}


def test_pairs_that_hold_pass() -> None:
    assert {support.fault(pair) for pair in GOOD} == {None}


@pytest.mark.parametrize("kind", PLANTS)
def test_planted_pairs_pass_in_at_most_two_per_cent(kind: str) -> None:
    """By the upper end of the 95 % interval (Clopper and Pearson), over 400 planted pairs of each kind."""
    draw = random.Random(0)
    planted = [PLANTS[kind](pair, draw) for pair in GOOD]
    passed = [(pair.question, pair.answer) for pair in planted if support.fault(pair) is None]
    upper = stats.binomtest(len(passed), len(planted)).proportion_ci(0.95, "exact").high
    assert len(planted) == 400 and upper <= 0.02, passed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("At 8.", "an answer that shares no word with its quote"),
        ("The kiln opens at 8.", "an answer with a number that is not in the passage"),
        ("The kiln opens at 7 sharp.", "an answer with words that are not in the passage"),
        ("The kiln does not open at 7.", "an answer that negates what its quote does not, or the other way round"),
        ("The kiln opens at 9.", "an answer with more than its quote says"),
        ("Yes, the kiln opens at 7.", "yes or no to a question that asks for something else"),
        ("The kiln opens.", "no time or amount for a question that asks for one"),
        ("It is there.", "an answer without words or numbers of its own"),
        ("The kilns open at 7.0.", None),
    ],
)
def test_why_an_answer_does_not_hold(answer: str, reason: str | None) -> None:
    passage = Passage("k.md:1", "The kiln opens at 7 and closes at 9.")
    assert support.fault(Pair("When does the kiln open?", answer, "k.md", passage, 0, 19, "model: m")) == reason


@pytest.mark.parametrize(
    ("question", "answer", "quote", "reason"),
    [
        ("Who opens the kiln?", "At 7.", "opens at 7", "an amount for a question that asks for something else"),
        ("Does Ada sell gloves?", "4 euros.", "4 euros", "neither yes nor no to a question that asks for it"),
        ("Is the kiln hot?", "The kiln opens.", "The kiln opens", None),
        ("What do gloves cost?", "At 7.", "at 7", "a quote whose sentence is about something else than the question"),
        ("What do gloves cost?", "4 euros.", "4 euros", None),
        ("Who sells gloves?", "Ada.", "Ada sells gloves", None),
    ],
)
def test_a_quote_is_of_the_kind_that_is_asked_for(question: str, answer: str, quote: str, reason: str | None) -> None:
    passage = Passage("k.md:1", "The kiln opens at 7 and is hot. Ada sells gloves for 4 euros.")
    start = passage.text.index(quote)
    assert support.fault(Pair(question, answer, "k.md", passage, start, start + len(quote), "model: m")) == reason


def test_answers_agree_by_their_words_and_numbers() -> None:
    assert support.agreement("The kiln opens at 7.", "At 7 the kiln opens") == 1
    assert support.agreement("At 7.", "At 8.") == 0 and support.agreement("Open.", "Not open.") == 0
