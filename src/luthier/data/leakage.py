"""Which held-out rows stand in the training rows: word for word, almost so, or by their group.

The held-out rows are few, so their n-grams are the index and the training rows stream past it once: memory does not
grow with the training data. Every number is exact; nothing is sampled or hashed to a sketch.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from luthier.data.dataset import Item
from luthier.data.readers.values import normalise
from luthier.data.words import pieces

Kind = Literal["exact", "question", "near", "group"]
KINDS: dict[Kind, str] = {
    "exact": "the same question with the same answer",
    "question": "the same question with another answer",
    "near": "almost the same question",
    "group": "another question of the same group",
}
"""What a held-out row can have in common with a training row, the worst first; a row is counted once, under its worst."""

GRAMS = ((50, 13), (20, 8), (0, 5))
"""Words of a held-out question → length of its n-grams. 13 words is what GPT-3's authors took (Brown et al. 2020, app. C)."""
NEAR = 0.8  # Jaccard similarity of the 5-grams of short questions
NEAR_WITH_ANSWER = 0.5  # the same, where the answers are equal and long enough to tell something
NEAR_LONG = 0.5  # share of a long question's 8- or 13-grams that stand in one training row
TELLING_ANSWER = 5  # words; a shorter one (a label, yes, 42) is often the same by chance
COMMON = 0.1  # n-grams in a larger share of the held-out rows are the form of all questions and prove nothing
EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """A held-out row and the training row that it resembles most. `similarity` is 1 for equal questions."""

    kind: Kind
    item: str
    location: str
    other_location: str
    similarity: float
    question: str
    other_question: str

    def to_json(self) -> dict[str, Any]:
        """As leakage.json has it, which calls a location a place."""
        return {name.replace("location", "place"): value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Overlap:
    """What one split has in common with another that it should not know."""

    findings: list[Finding]
    items: int
    """Rows that were looked at."""

    def counts(self) -> dict[str, int]:
        """Rows of each kind."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS}

    def to_json(self) -> dict[str, Any]:
        """As leakage.json has it: locations of all findings, texts of the worst few."""
        full = [finding.to_json() for finding in self.findings]
        short = [{name: value for name, value in finding.items() if "question" not in name} for finding in full]
        examples = full[:EXAMPLES]
        return {"items": self.items, **self.counts(), "findings": short, "examples": examples}


def compare(held_out: Iterable[Item], training: Iterable[Item]) -> Overlap:
    """Every held-out row that has a relative among the training rows; the worst first, then in file order."""
    rows = list(_rows(held_out))
    worst: dict[int, tuple[tuple[int, float], Finding]] = {}
    order: list[Kind] = list(KINDS)
    for number, kind, similarity, other in _matches(rows, _rows(training)):
        rank = (order.index(kind), -similarity)
        if number not in worst or rank < worst[number][0]:
            row = rows[number]
            worst[number] = (
                rank,
                Finding(
                    kind,
                    row.item.id,
                    row.item.location,
                    other.item.location,
                    round(similarity, 4),
                    row.text,
                    other.text,
                ),
            )
    findings = [worst[number][1] for number in sorted(worst, key=lambda number: (worst[number][0][0], number))]
    return Overlap(findings, len(rows))


def relatives(held_out: Iterable[Item], training: Iterable[Item]) -> set[str]:
    """The locations of all training rows that a held-out row resembles."""
    return {other.item.location for *_, other in _matches(list(_rows(held_out)), _rows(training))}


@dataclass(frozen=True)
class _Row:
    """An item as it is compared: what is asked without system messages, in one form and as words."""

    item: Item
    text: str
    key: str
    words: tuple[str, ...]
    answer: str

    @cached_property
    def telling(self) -> bool:
        """Whether the answer says so much that an equal one is no chance."""
        return len(pieces(self.answer)) >= TELLING_ANSWER


def _rows(items: Iterable[Item]) -> Iterator[_Row]:
    """The items for comparison, one at a time; of those of one location, which follow each other, the last stands for all."""
    last = None
    for item in items:
        if last is not None and item.location != last.location:
            yield _row(last)
        last = item
    if last is not None:
        yield _row(last)


def _row(item: Item) -> _Row:
    conversation = item.conversation
    messages = conversation.messages if conversation.is_document else conversation.prompt
    text = "\n".join(message.text for message in messages if message.role != "system")
    key, answer = normalise(text).casefold(), normalise(conversation.answer).casefold()
    return _Row(item, text, key, tuple(pieces(key)), answer)


def _matches(rows: Sequence[_Row], training: Iterable[_Row]) -> Iterator[tuple[int, Kind, float, _Row]]:
    """Number of the held-out row, kind, similarity and the training row, for each pair that is related."""
    questions: dict[str, list[int]] = {}
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        questions.setdefault(row.key, []).append(number)
        groups.setdefault(row.item.group, []).append(number)
    indexes = [_Index(rows, size) for _, size in GRAMS]
    for other in training:
        for number in questions.get(other.key, ()):
            yield number, "exact" if rows[number].answer == other.answer else "question", 1.0, other
        for index in indexes:
            for number, similarity in index.near(other):
                yield number, "near", similarity, other
        for number in groups.get(other.item.group, ()):
            yield number, "group", 0.0, other


class _Index:
    """n-gram → the held-out rows of the fitting length that have it."""

    def __init__(self, rows: Sequence[_Row], size: int) -> None:
        self.rows, self.size = rows, size
        grams = {number: _grams(row.words, size) for number, row in enumerate(rows) if _size_for(row) == size}
        seen = Counter(gram for found in grams.values() for gram in found)
        self.common = {gram for gram, count in seen.items() if count > max(2, COMMON * len(rows))}
        self.sizes = {number: len(found - self.common) for number, found in grams.items()}
        self.locations: dict[tuple[str, ...], list[int]] = {}
        for number, found in grams.items():
            for gram in found - self.common:
                self.locations.setdefault(gram, []).append(number)

    def near(self, other: _Row) -> Iterator[tuple[int, float]]:
        """The held-out rows that this one nearly is, with their similarity."""
        if not self.locations:
            return
        grams = _grams(other.words, self.size)
        shared = Counter(number for gram in grams for number in self.locations.get(gram, ()))
        if not shared:
            return
        own = len(grams - self.common)
        for number, count in shared.items():
            row = self.rows[number]
            if self.size > GRAMS[-1][1]:
                similarity, needed = count / self.sizes[number], NEAR_LONG
            else:
                similarity = count / (self.sizes[number] + own - count)
                needed = NEAR_WITH_ANSWER if row.telling and row.answer == other.answer else NEAR
            if similarity >= needed:
                yield number, similarity


def _size_for(row: _Row) -> int:
    return next(size for least, size in GRAMS if len(row.words) >= least)


def _grams(words: tuple[str, ...], size: int) -> set[tuple[str, ...]]:
    """The n-grams of a text; a text shorter than one is its own, and only, n-gram."""
    return set(zip(*(words[start:] for start in range(size)), strict=False)) if len(words) >= size else {words}
