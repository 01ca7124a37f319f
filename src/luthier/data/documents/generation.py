"""What a model is asked to make pairs of a passage, and how its replies are read: strictly, so that nothing is guessed.

The prompts are files with a version, in `prompts/`; a change to one is another version.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from luthier.data.documents import support
from luthier.data.documents.pairs import Dropped, Pair
from luthier.data.documents.passages import Passage
from luthier.data.documents.reading import Document
from luthier.data.words import normalised

PROMPTS = Path(__file__).parent / "prompts"
NAMES = ("pairs", "answerable", "paraphrase", "self-instruct")
QUESTIONS = 5
"""Asked for of a passage of 200 words; fewer of a shorter one."""
SAME_ANSWER = 0.5
"""From this share of words on, with the same numbers, two answers are the same."""
_FIELD = re.compile(r"\{(\w+)\}")
_VERDICT = re.compile(r"\W*(yes|no)\b\W*(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Prompt:
    """A text with fields, and its version."""

    version: int
    text: str

    def filled(self, **values: object) -> str:
        """The text with a value in each field; braces of anything else stay."""
        return _FIELD.sub(lambda field: str(values[field[1]]) if field[1] in values else field[0], self.text)


@cache
def prompt(name: str) -> Prompt:
    """The prompt of this name."""
    head, _, text = (PROMPTS / f"{name}.txt").read_text(encoding="utf-8").partition("\n")
    return Prompt(int(head.removeprefix("# version ")), text)


def ask_for_pairs(passage: Passage, document: Document) -> str:
    """What asks for the questions of a passage."""
    count = max(1, round(QUESTIONS * len(passage.text.split()) / 200))
    return prompt("pairs").filled(
        count=count, document=document.title, heading=passage.heading or document.title, passage=passage.text
    )


def read_pairs(
    reply: str, passage: Passage, document: Document, *, by: str, split: str | None
) -> Iterator[Pair | Dropped]:
    """The pairs of a reply whose quotes stand in the passage and hold their answers; and the others, each with its reason."""
    found = list(objects(reply, ("question", "answer", "quote")))
    if not found:
        yield Dropped("a reply that could not be read", passage.location, by)
    for each in found:
        if not each["question"] or not each["answer"]:
            yield Dropped("an empty question or answer", passage.location, by)
            continue
        span = locate(each["quote"], passage.text)
        if span is None:
            yield Dropped("a quote that is not in the passage", passage.location, by)
            continue
        pair = Pair(each["question"], each["answer"], document.name, passage, *span, by, split)
        reason = support.fault(pair, [document.title])
        yield pair if reason is None else Dropped(reason, passage.location, by)


def ask_whether_answered(pair: Pair) -> str:
    """What asks whether the passage answers the question."""
    heading = f"{pair.passage.heading}\n\n" if pair.passage.heading else ""
    return prompt("answerable").filled(passage=heading + pair.passage.text, question=pair.question)


def answer_fault(reply: str, pair: Pair) -> str | None:
    """Why a reply does not confirm the pair, or None: it must say yes, and give the same answer."""
    verdict = _VERDICT.match(reply)
    if not verdict:
        return "no clear reply to whether the passage answers it"
    if verdict[1].lower() == "no":
        return "the model does not find the answer in the passage"
    answer = verdict[2].strip() or verdict[1]
    same = normalised(answer).strip(" .") == normalised(pair.answer).strip(" .")
    if not same and support.agreement(answer, pair.answer) < SAME_ANSWER:
        return "the model answers otherwise from the same passage"
    return None


def ask_for_paraphrase(question: str) -> str:
    """What asks for other words."""
    return prompt("paraphrase").filled(question=question)


def read_paraphrase(reply: str, question: str) -> str | None:
    """The question in other words; None where it is not one line, not another question, or has other numbers."""
    lines = [line.strip().strip("\"'") for line in reply.strip().splitlines() if line.strip()]
    if len(lines) != 1 or not lines[0].endswith("?") or normalised(lines[0]) == normalised(question):
        return None
    same = support.numbers(lines[0]) == support.numbers(question)
    return lines[0] if same else None


def locate(quote: str, text: str) -> tuple[int, int] | None:
    """Where a quote stands in a text: as it is, else with other white space; None where it does not."""
    words = quote.split()
    if not words:
        return None
    if (start := text.find(quote)) >= 0:
        return start, start + len(quote)
    match = re.search(r"\s+".join(map(re.escape, words)), text)
    return match.span() if match else None


def objects(reply: str, keys: Sequence[str]) -> Iterator[dict[str, str]]:
    """The JSON objects of a reply that have a text under each of these keys, whatever stands around them."""
    decoder = json.JSONDecoder()
    position = 0
    while (position := reply.find("{", position)) >= 0:
        try:
            value, end = decoder.raw_decode(reply, position)
        except (ValueError, RecursionError):
            position += 1
            continue
        position = end
        if isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys):
            yield {key: value[key].strip() for key in keys}
