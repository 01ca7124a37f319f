"""Writes tickets.jsonl: mails to the help desk of a made-up shop, each with the five fields that the desk reads off it.

    python examples/tickets/generate.py

Mails are put together from phrases.toml. One that shares too many runs of five words with another customer's mail is
thrown away, so that no mail of the test split has a twin in training. Needs the standard library only; the same seed
gives the same bytes on every Python.
"""

import json
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

FOLDER = Path(__file__).parent
SEED = 20
MAILS = 640
FEWEST_WORDS, MOST_WORDS = 25, 90
MOST_OVERLAP = 0.3  # Jaccard index of the sets of five-word runs, between mails of different customers

T = TypeVar("T")
Fields: TypeAlias = dict[str, str | bool | None]


class Dice:
    """Choices from a seed. Built on `random()` alone, the one method whose numbers Python promises never to change."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, share: float) -> bool:
        """True in this share of the throws."""
        return self._random() < share

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, things: Sequence[T]) -> T:
        """One of them."""
        return things[self.number(0, len(things) - 1)]

    def fill(self, phrase: str, slots: Mapping[str, str]) -> str:
        """The phrase with its choices made, numbers drawn and slots filled, innermost brackets first."""
        while found := re.search(r"\[([^\[\]]*)\]|<(\d+)-(\d+)>|\{(\w+)\}", phrase):
            choices, low, high, slot = found.groups()
            if slot:
                part = slots[slot]
            elif low:
                part = str(self.number(int(low), int(high)))
            else:
                part = self.pick(choices.split("|"))
            phrase = phrase[: found.start()] + part + phrase[found.end() :]
        return phrase


@dataclass(frozen=True)
class Product:
    """What people say about a product: an entry of phrases.toml, as are the next two."""

    mentions: str
    faults: list[str]
    questions: list[str]


@dataclass(frozen=True)
class Category:
    """What the mails of a category may show."""

    bought: bool
    annoyed: bool


@dataclass(frozen=True)
class Kind:
    """Something that people write about."""

    category: str
    stories: list[str]
    asks: list[str]
    refunds: str | None = None


class Phrases:
    """phrases.toml, with types."""

    def __init__(self, file: Path) -> None:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        self.slots: dict[str, str] = content["slots"]
        self.products = {name: Product(**entry) for name, entry in content["products"].items()}
        self.categories = {name: Category(**entry) for name, entry in content["categories"].items()}
        self.kinds = [Kind(**entry) for entry in content["kinds"]]
        self.refunds: dict[str, list[str]] = content["refunds"]
        self.urgency: dict[str, list[str]] = content["urgency"]
        self.beside: dict[str, list[str]] = content["beside"]
        self.order_number: dict[str, list[str]] = content["order_number"]
        self.subjects: list[str] = content["letters"]["subjects"]
        self.tones: dict[str, dict[str, str]] = content["tones"]
        self.first_names: list[str] = content["names"]["first"].split()
        self.last_names: list[str] = content["names"]["last"].split()


@dataclass(frozen=True)
class Customer:
    """Who writes, and in which manner. All mails of a customer belong into one split: `address` is their group."""

    name: str
    tone: str
    slips: int
    lower_case: bool

    @property
    def address(self) -> str:
        return self.name.lower().replace(" ", ".") + "@example.org"


def customers(phrases: Phrases, dice: Dice) -> Iterator[Customer]:
    """Customers without end, each under a name of their own."""
    taken = set()
    while True:
        name = f"{dice.pick(phrases.first_names)} {dice.pick(phrases.last_names)}"
        tone = dice.pick(list(phrases.tones))
        slips = dice.number(1, 3) if dice.chance(0.35) else 0
        lower_case = tone != "polite" and dice.chance(0.2)
        if name not in taken:
            taken.add(name)
            yield Customer(name, tone, slips, lower_case)


def write_mail(customer: Customer, phrases: Phrases, dice: Dice) -> tuple[str, Fields]:
    """A mail of this customer, and what the help desk should read off it."""
    category = dice.pick(list(phrases.categories))
    kinds = [kind for kind in phrases.kinds if kind.category == category]
    kind, story = dice.pick([(kind, story) for kind in kinds for story in kind.stories])
    product = dice.pick(list(phrases.products))
    other = dice.pick([name for name in phrases.products if name != product])
    fields: Fields = {
        "product": product if "{product}" in story else None,
        "category": category,
        "urgency": dice.pick(["low", "normal", "normal", "high"]),
        "order_number": draw_order_number(dice) if phrases.categories[category].bought and dice.chance(0.8) else None,
        "wants_refund": kind.refunds is not None and dice.chance(0.5),
    }
    slots = {
        **phrases.slots,
        "product": phrases.products[product].mentions,
        "fault": dice.pick(phrases.products[product].faults),
        "question": dice.pick(phrases.products[product].questions),
        "other": other,
        "an_other": f"an {other}" if other[0] in "aeiou" else f"a {other}",
        "order": str(fields["order_number"]),
    }
    wishes = phrases.refunds[kind.refunds] if kind.refunds and fields["wants_refund"] else kind.asks
    sentences = [story, dice.pick(wishes)]
    add_asides(sentences, fields, phrases, dice)
    add_mood(sentences, fields, phrases, dice)
    subject = dice.pick(phrases.subjects) if dice.chance(0.35) else ""
    postscript = quote = ""
    if fields["order_number"]:
        match dice.pick(["inside", "inside", "inside", "subject", "postscript", "quote"]):
            case "inside":
                sentences.insert(dice.number(0, 2), dice.pick(phrases.order_number["stated"]))
            case "subject":
                subject = dice.pick(phrases.order_number["subject"])
            case "postscript":
                postscript = "PS: " + dice.pick(phrases.order_number["stated"])
            case "quote":
                quote = dice.pick(phrases.order_number["quoted"])
    tone = phrases.tones[customer.tone]
    letter = [tone["greeting"], " ".join(filter(None, sentences)), tone["closing"], customer.name, postscript]
    parts = [
        f"Subject: {dice.fill(subject, slots)}" if subject else "",
        with_manner(dice.fill("\n".join(letter), slots), customer, dice),
        dice.fill(quote, slots),
    ]
    return "\n".join(line for part in parts for line in part.splitlines() if line), fields


def draw_order_number(dice: Dice) -> str:
    """Five digits, at times with a zero in front or the letter of a part delivery behind."""
    digits = f"{dice.number(2000, 98999):05d}"
    return f"{digits}-{dice.pick('ABC')}" if dice.chance(0.25) else digits


def add_asides(sentences: list[str], fields: Fields, phrases: Phrases, dice: Dice) -> None:
    """Put up to two things behind the story that change none of the fields, and at times that the number is lost."""
    bought = phrases.categories[str(fields["category"])].bought
    if bought and not fields["order_number"] and dice.chance(0.5):
        sentences.insert(dice.number(1, 2), dice.pick(phrases.order_number["missing"]))
    asides = list(phrases.beside["anybody"])
    asides += phrases.beside["buyer"] if bought else []
    asides += phrases.beside["product"] if fields["product"] else []
    for _ in range(dice.number(0, 2)):
        aside = dice.pick(asides)
        if aside not in sentences:
            sentences.insert(dice.number(1, len(sentences)), aside)


def add_mood(sentences: list[str], fields: Fields, phrases: Phrases, dice: Dice) -> None:
    """Put in how soon it has to be, or how the writer feels; someone in a hurry may begin with that."""
    mood = str(fields["urgency"])
    if mood == "normal" and phrases.categories[str(fields["category"])].annoyed and dice.chance(0.5):
        mood = "annoyed"
    first = mood == "high" and dice.chance(0.25)
    sentences.insert(0 if first else len(sentences) - dice.number(0, 1), dice.pick(phrases.urgency[mood]))


def with_manner(letter: str, customer: Customer, dice: Dice) -> str:
    """The letter as this customer types: in small letters, or with slips in longer words. Numbers are never touched."""
    words = re.split(r"(\s+)", letter)
    if customer.lower_case:
        words = [word if any(letter.isdigit() for letter in word) else word.lower() for word in words]
    for _ in range(customer.slips):
        place = dice.number(0, len(words) - 1)
        word = words[place]
        if re.fullmatch(r"[a-z]{5,}", word):
            cut = dice.number(1, len(word) - 3)
            dropped, doubled = word[:cut] + word[cut + 1 :], word[:cut] + word[cut] + word[cut:]
            swapped = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
            words[place] = dice.pick([dropped, doubled, swapped])
    return "".join(words)


def runs_of_five(text: str) -> frozenset[tuple[str, ...]]:
    """Every five words in a row, without regard to case and punctuation."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(*(words[start:] for start in range(5)), strict=False))


def tickets(seed: int = SEED, number: int = MAILS) -> list[dict[str, str | Fields]]:
    """The rows: customers one after the other, each with one to four mails."""
    phrases, dice = Phrases(FOLDER / "phrases.toml"), Dice(seed)
    everyone = customers(phrases, dice)
    rows: list[dict[str, str | Fields]] = []
    before: list[frozenset[tuple[str, ...]]] = []  # runs of the mails of earlier customers
    while len(rows) < number:
        customer = next(everyone)
        own: list[frozenset[tuple[str, ...]]] = []
        for _ in range(dice.number(1, 4)):
            text, fields = write_mail(customer, phrases, dice)
            runs = runs_of_five(text)
            fits = FEWEST_WORDS <= len(text.split()) <= MOST_WORDS and runs not in own
            if fits and all(len(runs & other) <= MOST_OVERLAP * len(runs | other) for other in before):
                own.append(runs)
                rows.append({"customer": customer.address, "input": text, "output": fields})
        before += own
    return rows[:number]


if __name__ == "__main__":
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in tickets()]
    (FOLDER / "tickets.jsonl").write_bytes("".join(lines).encode())
    print(f"{len(lines)} mails written to {FOLDER / 'tickets.jsonl'}")
