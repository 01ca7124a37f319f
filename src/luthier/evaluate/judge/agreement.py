"""How far people who rated the same things agree, beyond what chance would give."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WORDS = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"), (0.0, "slight"))
"""Kappa above this → what it is usually called (Landis & Koch 1977, table on page 165)."""


@dataclass(frozen=True)
class Agreement:
    """Kappa over the items that all reviewers rated, and `same`, the share of equal pairs of ratings.

    `value` is None where all ratings are the same word: chance alone would agree as much.
    """

    kind: str
    value: float | None
    same: float
    items: int

    def sentence(self) -> str:
        """In words."""
        questions = f"{self.items} question{'s' * (self.items != 1)}"
        sentence = f"On the {questions} that everyone marked, {100 * self.same:.0f} % of the pairs of marks agree"
        if self.value is None:
            return f"{sentence}; {self.kind} is not defined, because all marks are the same."
        word = next((word for least, word in WORDS if self.value > least), "no better than chance")
        return f"{sentence}; {self.kind} {self.value:.2f} ({word})."


def among(ratings: Mapping[str, Mapping[str, str]]) -> Agreement | None:
    """Cohen's kappa of two reviewers, Fleiss' of more; None for one reviewer, or without an item that all have rated."""
    people = list(ratings.values())
    common = [item for item in people[0] if all(item in person for person in people)] if people else []
    if len(people) < 2 or not common:
        return None
    rows = [[person[item] for person in people] for item in common]
    pairs = len(people) * (len(people) - 1)
    same = sum(sum(n * (n - 1) for n in Counter(row).values()) for row in rows) / (pairs * len(rows))
    if len(people) == 2:
        return Agreement("Cohen's kappa", cohen([(first, second) for first, second in rows]), same, len(rows))
    return Agreement("Fleiss' kappa", fleiss(rows), same, len(rows))


def cohen(pairs: Sequence[tuple[str, str]]) -> float | None:
    """(observed − expected) / (1 − expected), expected from each reviewer's own shares (Cohen 1960, EPM 20:37)."""
    observed = sum(first == second for first, second in pairs) / len(pairs)
    shares = [Counter(side) for side in zip(*pairs, strict=True)]
    expected = sum(shares[0][word] * shares[1][word] for word in shares[0]) / len(pairs) ** 2
    return _beyond_chance(observed, expected)


def fleiss(rows: Sequence[Sequence[str]]) -> float | None:
    """The same for any number of reviewers, expected from the shares of all (Fleiss 1971, Psych Bull 76:378)."""
    people = len(rows[0])
    counts = [Counter(row) for row in rows]
    observed = sum(sum(n * (n - 1) for n in count.values()) for count in counts) / (people * (people - 1) * len(rows))
    total = sum(counts, Counter[str]())
    expected = sum((n / total.total()) ** 2 for n in total.values())
    return _beyond_chance(observed, expected)


def _beyond_chance(observed: float, expected: float) -> float | None:
    return None if expected > 1 - 1e-12 else (observed - expected) / (1 - expected)
