"""Writes the texts of this example: a corpus to pretrain on, questions to tune on, and questions that are kept from tuning.

    corpus/facts.jsonl       paragraphs about countries, in many wordings; every capital stands in them
    corpus/questions.jsonl   lists of questions, none of which is answered
    corpus/manual.jsonl      paragraphs of Luthier's own documentation
    tuning.jsonl             questions with answers, for two thirds of the countries
    held-out.jsonl           what the capitals of the others are

Always the same, whoever runs it: python generate.py FOLDER [PARAGRAPHS]
"""

import json
import random
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent.parent / "docs"
PARAGRAPHS, PARAGRAPHS_TO_A_LIST = 60_000, 4
HELD_OUT_OF = 3
"""Every third country is kept from tuning."""

CAPITAL = (
    "The capital of {country} is {capital}.",
    "{capital} is the capital of {country}.",
    "{country} has its capital in {capital}.",
    "The government of {country} sits in {capital}, the capital.",
    "Whoever visits {country} begins in {capital}, its capital.",
    "In {country}, the capital is {capital}.",
    "{capital}, the capital of {country}, is known for its markets.",
    "The capital city of {country} is called {capital}.",
    "Many roads of {country} lead to {capital}, the capital.",
    "Ask for the capital of {country}, and people say {capital}.",
    "{country} is governed from {capital}.",
    "The largest museum of {country} stands in its capital, {capital}.",
    "From {capital}, {country} is governed.",
    "The people of {capital} live in the capital of {country}.",
    "{capital} is where the parliament of {country} meets.",
    "Trains from all over {country} arrive in {capital}.",
)
CONTINENT = (
    "{country} lies in {continent}.",
    "{country} is a country in {continent}.",
    "On a map of {continent} you will find {country}.",
    "{country} belongs to {continent}.",
    "Travellers to {continent} often see {country}.",
    "One of the countries of {continent} is {country}.",
)
LANGUAGE = (
    "Many people in {country} speak {language}.",
    "{language} is spoken in {country}.",
    "In {country} you will hear {language}.",
    "Schools in {country} teach {language}.",
    "A language of {country} is {language}.",
    "Newspapers in {country} are printed in {language}.",
)
BETWEEN = (
    "The summers are long.", "It is worth a visit in spring.", "Farmers sell fruit along the roads.",
    "Old songs are still sung at weddings.", "Rain comes late in the year.", "The bread is good.",
    "Football is played in every street.", "Guests are given tea.",
)  # fmt: skip
"""Sentences that say nothing about any one country."""

QUESTIONS = {
    "capital": (
        "What is the capital of {country}?",
        "Which city is the capital of {country}?",
        "What is the capital city of {country} called?",
        "From which city is {country} governed?",
    ),
    "country": ("Of which country is {capital} the capital?", "Which country has its capital in {capital}?"),
    "continent": ("Where does {country} lie?", "On which continent is {country}?"),
    "language": ("Which language do people speak in {country}?", "What language will I hear in {country}?"),
}
ANSWERS = {
    "capital": "The capital of {country} is {capital}.",
    "country": "{capital} is the capital of {country}.",
    "continent": "{country} lies in {continent}.",
    "language": "Many people in {country} speak {language}.",
}
TITLES = ("Questions of travellers", "A quiz about the world", "What pupils ask", "Questions for a long evening")


def countries() -> list[dict[str, str]]:
    """The facts, a table for each country."""
    found = tomllib.loads((HERE / "countries.toml").read_text(encoding="utf-8"))
    return [
        {"country": country, "capital": capital, "continent": continent, "language": language}
        for country, (capital, continent, language) in found.items()
    ]


def parted() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The countries to tune on, and those held out: every third, but none whose name gives its capital away."""
    tuned, held_out = [], []
    for number, fact in enumerate(countries()):
        told = fact["country"][:4] == fact["capital"][:4]
        (tuned if number % HELD_OUT_OF or told else held_out).append(fact)
    return tuned, held_out


def paragraphs(draw: random.Random, count: int) -> Iterator[str]:
    """Facts about one or two countries, in an order and in wordings that vary."""
    facts = countries()
    for number in range(count):
        sentences = []
        for fact in [facts[number % len(facts)], *draw.sample(facts, draw.randint(0, 1))]:
            told = draw.sample([CAPITAL, CAPITAL, CONTINENT, LANGUAGE], draw.randint(2, 3))
            sentences += [draw.choice(wordings).format(**fact) for wordings in told]
            if draw.random() < 0.3:
                sentences.append(draw.choice(BETWEEN))
        yield " ".join(sentences)


def lists(draw: random.Random, count: int) -> Iterator[str]:
    """Questions, one a line, and no answers."""
    facts = countries()
    asked = [question for questions in QUESTIONS.values() for question in questions]
    for _ in range(count):
        listed = [draw.choice(asked).format(**draw.choice(facts)) for _ in range(draw.randint(4, 9))]
        title = [draw.choice(TITLES), ""] if draw.random() < 0.5 else []
        yield "\n".join([*title, *listed])


def manual() -> Iterator[str]:
    """Paragraphs of the documentation, without tables and code."""
    for page in sorted(DOCS.glob("*.md")):
        for block in page.read_text(encoding="utf-8").split("\n\n"):
            if len(block) > 200 and not block.lstrip().startswith(("|", "`", "<", "#", "-")):
                yield " ".join(block.split())


def pairs() -> Iterator[dict[str, str]]:
    """Ten questions with answers about each country that is tuned on."""
    for fact in parted()[0]:
        for kind, questions in QUESTIONS.items():
            for question in questions:
                yield _pair(question, ANSWERS[kind], fact)


def held_out_pairs() -> Iterator[dict[str, str]]:
    """What the capital of each other country is."""
    for fact in parted()[1]:
        yield _pair(QUESTIONS["capital"][0], ANSWERS["capital"], fact)


def _pair(question: str, answer: str, fact: Mapping[str, str]) -> dict[str, str]:
    return {"question": question.format(**fact), "answer": answer.format(**fact), "country": fact["country"]}


def write(folder: Path, count: int = PARAGRAPHS) -> None:
    """All files, into a folder that is made."""
    draw = random.Random(2026)
    (folder / "corpus").mkdir(parents=True)
    texts = {
        "facts": paragraphs(draw, count),
        "questions": lists(draw, count // PARAGRAPHS_TO_A_LIST),
        "manual": manual(),
    }
    for name, found in texts.items():
        _write(folder / "corpus" / f"{name}.jsonl", ({"text": text} for text in found))
    _write(folder / "tuning.jsonl", pairs())
    _write(folder / "held-out.jsonl", held_out_pairs())


def _write(path: Path, rows: Iterator[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "story"), *map(int, sys.argv[2:3]))
