"""How far people who rated the same things agree, beyond what chance would give."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WORDS = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"), (0.0, "slight"))
"""Landis & Koch 1977, table on page 165: kappa above this → what it is usually called."""


@dataclass(frozen=True)
class Agreement:
    """Kappa over the items that all reviewers rated. `value` is None where all ratings are one and the same word:
    then chance alone would agree, and nothing can be said beyond it. `same` is the share of equal pairs of ratings."""

    kind: str
    value: float | None
    same: float
    items: int

    def sentence(self) -> str:
        """In words."""
        told = f"Over {self.items} question{'s' * (self.items != 1)} that all marked, {100 * self.same:.0f} % of the "
        told += "pairs of marks agree"
        if self.value is None:
            return f"{told}; {self.kind} is not defined where there is one kind of mark only."
        word = next((word for least, word in WORDS if self.value > least), "no better than chance")
        return f"{told}; {self.kind} {self.value:.2f} ({word})."


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
    return _beyond(observed, expected)


def fleiss(rows: Sequence[Sequence[str]]) -> float | None:
    """The same for any number of reviewers, expected from the shares of all (Fleiss 1971, Psych Bull 76:378)."""
    people = len(rows[0])
    counts = [Counter(row) for row in rows]
    observed = sum(sum(n * (n - 1) for n in count.values()) for count in counts) / (people * (people - 1) * len(rows))
    total = sum(counts, Counter[str]())
    expected = sum((n / total.total()) ** 2 for n in total.values())
    return _beyond(observed, expected)


def _beyond(observed: float, expected: float) -> float | None:
    return None if expected > 1 - 1e-12 else (observed - expected) / (1 - expected)
