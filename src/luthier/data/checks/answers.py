"""Answers that teach little: refusals, placeholders, the question said again, a passage in circles."""

import re
from collections import Counter
from collections.abc import Iterator

from luthier.data.checks import personal
from luthier.data.checks.findings import Finding, Severity, Spot, plural, share
from luthier.data.checks.rows import Row, Scope
from luthier.data.readers.values import normalise
from luthier.data.refusals import is_refusal

MANY_REFUSALS = 0.2
_PLACEHOLDER = re.compile(
    r"(?:n/?a|nan|null|none|nil|undefined|todo|tbd|fixme|xxx+|lorem ipsum\b.*|\[?(?:deleted|removed|redacted)\]?|"
    r"(?:answer|text|response|content) (?:here|goes here)|\[[^\]\n]{0,20}(?:insert|your|placeholder)[^\]\n]{0,40}\]|"
    r"\.{2,}|…|-+|\?+)[.!]?",
    re.IGNORECASE | re.DOTALL,
)
_BLANKS = re.compile(
    r"\[(?:insert|your|enter|add)\b[^\]\n]{0,60}\]|\blorem ipsum\b|<insert [^>\n]{1,60}>|\bTODO:", re.IGNORECASE
)
_SENTENCE = re.compile("[^.!?\n\u3002\uff01\uff1f]{12,}")
CIRCLES = 4
"""Times that a passage stands in an answer that goes in circles."""


class Refusals:
    """Answers that decline to answer."""

    def __init__(self, scope: Scope) -> None:
        self.own = scope.refusal
        self.rows = 0
        self.words: Counter[str] = Counter()
        self.spots: list[Spot] = []

    def see(self, row: Row) -> None:
        if row.item.conversation.is_document:
            return
        self.rows += 1
        if is_refusal(row.answer, self.own):
            self.spots.append(Spot(row.location))
            self.words[normalise(row.answer)] += 1

    def findings(self) -> Iterator[Finding]:
        if not self.spots:
            return
        severity: Severity = "warning" if len(self.spots) > max(2, MANY_REFUSALS * self.rows) else "note"
        sentence = f"{plural(len(self.spots), 'answer')} ({share(len(self.spots), self.rows)}) declining to answer"
        words, count = self.words.most_common(1)[0]
        if count > 1:
            sentence += f", {count:,} in the words “{personal.without(words)[:80]}”"
        advice = "The model learns to refuse as often. Good where it should keep to its subject; else take them out."
        yield Finding("refusal", severity, sentence, advice, tuple(self.spots))


class Placeholders:
    """Answers that stand for an answer still to be written. Where short answers are usual, `none` may be a label."""

    def __init__(self, scope: Scope) -> None:
        self.rows = 0
        self.short: Counter[str] = Counter()
        self.spots: list[tuple[Spot, str]] = []

    def see(self, row: Row) -> None:
        self.rows += 1
        answer = row.answer.strip()
        if len(answer) < 40:
            self.short[answer.casefold()] += 1
        if _PLACEHOLDER.fullmatch(answer):
            self.spots.append((Spot(row.location, f"“{answer[:30]}”"), answer.casefold()))
        elif found := _BLANKS.search(answer):
            self.spots.append((Spot(row.location, f"“{found[0][:30]}”"), ""))

    def findings(self) -> Iterator[Finding]:
        labels = self.short.total() > self.rows / 2
        spots = tuple(spot for spot, answer in self.spots if not (labels and answer))
        if spots:
            sentence = f"{plural(len(spots), 'answer')} ({share(len(spots), self.rows)}) still to be written"
            yield Finding("placeholder", "warning", sentence, "Write the answers, or take the rows out.", spots)


def echo(row: Row) -> str | None:
    """An answer that says the question again and nothing else."""
    conversation = row.item.conversation
    if conversation.is_document or len(row.answer_words) < 3:
        return None
    same = normalise(conversation.answer).casefold() == normalise(conversation.question).casefold()
    return "the answer is the question" if same else None


def circles(row: Row) -> str | None:
    """A sentence that stands four times or more in an answer."""
    answer = row.answer
    if len(answer) < 4 * CIRCLES * 3 or row.item.conversation.is_document:
        return None
    counts = Counter(part.strip().casefold() for part in _SENTENCE.findall(answer))
    part, count = counts.most_common(1)[0] if counts else ("", 0)
    return f"a sentence stands {count} times" if count >= CIRCLES and len(part.split()) >= 4 else None
