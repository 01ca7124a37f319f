"""How long rows are, what kind of task they make, and whether there are enough of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from luthier.data.checks.findings import Finding, Severity, plural, share
from luthier.data.checks.rows import Row

ENOUGH = 1_000
"""Pairs that a first fine-tuning should have; fewer often do for a narrow task, many more rarely change the kind of result."""
FEW = 100
BINS = 24
COPIED = 0.8
"""Share of an answer's words that stand in the question, from which on it is taken from there."""
LABEL_WORDS = 4
LONGEST_LABELS = 50
MOST_OF_A_LABEL = 0.9
FEW_OF_A_LABEL = 10

Task = Literal["document", "classification", "calls", "extraction", "expansion"]
TASKS: dict[Task, str] = {
    "document": "plain text to continue",
    "classification": "a label for each text",
    "calls": "calls of functions: reading, in one form, which small models learn well",
    "extraction": "less text out than in: reading, which small models learn well",
    "expansion": "more text out than in: writing, which asks more of a model",
}


@dataclass(frozen=True)
class Lengths:
    """Quantiles and a histogram of whole numbers; each bin counts lengths up to its edge."""

    p50: int
    p95: int
    max: int
    total: int
    edges: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "Lengths":
        """Bins of equal width, up to the 99th percentile; the last one has all that is longer."""
        ranked = sorted(lengths) or [0]
        top = max(1, ranked[int(0.99 * (len(ranked) - 1))])
        width = max(1, -(-top // BINS))
        counts = [0] * min(BINS, -(-top // width))
        for length in ranked:
            counts[min(len(counts) - 1, max(0, length - 1) // width)] += 1
        edges = [width * (number + 1) for number in range(len(counts))]
        return cls(_at(ranked, 0.5), _at(ranked, 0.95), ranked[-1], sum(ranked), tuple(edges), tuple(counts))

    def to_json(self) -> dict[str, Any]:
        return {
            "p50": self.p50,
            "p95": self.p95,
            "max": self.max,
            "total": self.total,
            "histogram": [list(pair) for pair in zip(self.edges, self.counts, strict=True)],
        }


def _at(ranked: Sequence[int], share: float) -> int:
    return ranked[min(len(ranked) - 1, max(0, round(share * len(ranked)) - 1))]


class Shape:
    """Words of questions and answers, and from them what the task is."""

    def __init__(self) -> None:
        self.rows = self.copied = self.shorter = self.calls = 0
        self.documents = False
        self.asked: list[int] = []
        self.answers: list[int] = []
        self.labels: dict[str, int] | None = {}

    def see(self, row: Row) -> None:
        """Count a row."""
        if row.held_out:
            return
        self.rows += 1
        self.documents = row.item.conversation.is_document
        asked, answer = row.asked_words, row.answer_words
        self.asked.append(len(asked))
        self.answers.append(len(answer))
        inside = set(asked)
        self.copied += bool(answer) and sum(word in inside for word in answer) >= COPIED * len(answer)
        self.shorter += len(answer) < len(asked)
        self.calls += bool(row.item.conversation.messages[-1].tool_calls)
        self._count_label(row.answer, len(answer))

    def _count_label(self, answer: str, words: int) -> None:
        if self.labels is None:
            return
        label = answer.strip()
        self.labels[label] = self.labels.get(label, 0) + 1
        if words > LABEL_WORDS or len(self.labels) > LONGEST_LABELS:
            self.labels = None

    def sizes(self) -> dict[str, Lengths]:
        """Lengths in words of whole rows, of what is asked and of answers."""
        rows = [asked + answer for asked, answer in zip(self.asked, self.answers, strict=True)]
        named = {"row": rows, "question": self.asked, "answer": self.answers}
        return {name: Lengths.of(lengths) for name, lengths in named.items()}

    @property
    def task(self) -> Task:
        """What most rows ask for."""
        if self.documents:
            return "document"
        if self.calls > self.rows / 2:
            return "calls"
        if self.balance:
            return "classification"
        copies = self.copied > self.rows / 2
        return "extraction" if self.shorter > self.rows / 2 or copies else "expansion"

    @property
    def balance(self) -> dict[str, int]:
        """Label → its rows, the commonest first; empty where answers are no labels."""
        labels = self.labels or {}
        if len(labels) < 2 or self.rows < 5 * len(labels):
            return {}
        return dict(sorted(labels.items(), key=lambda pair: (-pair[1], pair[0])))


def enough(rows: int) -> Iterator[Finding]:
    """Whether there are about a thousand rows, which a first fine-tuning should have."""
    if rows >= ENOUGH:
        return
    severity: Severity = "warning" if rows < FEW else "note"
    yield Finding(
        "few-rows", severity, f"{plural(rows, 'usable row')}; about {ENOUGH:,} are a good first amount",
        "A narrow task may do with fewer. `luthier sweep` shows whether more data would help.",
    )  # fmt: skip


def label_balance(shape: Shape) -> Iterator[Finding]:
    """Whether one label has nearly all rows, or some have next to none."""
    labels = shape.balance
    if not labels:
        return
    (most, count), *_ = labels.items()
    rare = [label for label, rows in labels.items() if rows < FEW_OF_A_LABEL]
    if count >= MOST_OF_A_LABEL * shape.rows:
        yield Finding(
            "label-balance", "warning", f"{share(count, shape.rows)} of the rows have the label “{most}”",
            "A model that always says so is nearly right. Give more rows of the others, and look at macro F1.",
        )  # fmt: skip
    elif rare:
        listed = ", ".join(f"“{label}” {labels[label]}" for label in rare[:5])
        yield Finding(
            "label-balance", "note", f"{plural(len(rare), 'label')} with fewer than {FEW_OF_A_LABEL} rows: {listed}",
            "Test and training rows both need some of each.",
        )  # fmt: skip
