"""Rows of tokens as a training wants them, made by hand instead of prepared from data."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Row:
    """A row's token ids, and which of them are learnt."""

    ids: np.ndarray
    loss_mask: np.ndarray


class Rows(list[Row]):
    """Rows with their lengths and places."""

    @property
    def lengths(self) -> list[int]:
        return [len(row.ids) for row in self]

    def location(self, number: int) -> str:
        return f"rows.jsonl:{number + 1}"


def counting(number: int, *, seed: int = 0) -> Rows:
    """Rows that follow a rule: the next token is the one before plus three."""
    generator = np.random.default_rng(seed)
    rows = Rows()
    for length in generator.integers(6, 30, number):
        ids = (generator.integers(0, 200) + 3 * np.arange(length)) % 300 + 10
        rows.append(Row(ids, np.arange(length) >= 2))
    return rows
