"""How far an exported model may be from its original, by number format: told before anything is compared.

The limits are a few times what was measured on SmolLM2-135M and on tiny models of each family (docs/export.md).
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a number format has to keep."""

    top1: float
    """Least share of positions at which the most likely token is the same."""
    kl: float
    """Most nats that a position's distribution may be away from the original's, on average."""
    answers: float
    """Least share of test questions that get the very same answer."""

    def words(self) -> str:
        return f"top-1 at least {self.top1:.1%}, KL at most {self.kl:g}, the same answer to at least {self.answers:.0%}"


LIMITS: dict[str, Limits] = {
    "f32": Limits(0.999, 1e-6, 0.99),
    "f16": Limits(0.98, 1e-4, 0.90),
    "bf16": Limits(0.93, 3e-3, 0.50),
    "q8_0": Limits(0.85, 3e-2, 0.25),
    "q4_k_m": Limits(0.50, 0.5, 0.0),
}
"""By the word of the number format. In f32 nothing is rounded, so a difference beyond the order of sums is a fault."""
EXACT = "f32"
"""The format that is run without flash attention and with a cache in fp32, where llama.cpp rounds nothing."""
ALLOWED = 1
"""Answers that may differ however few there are: two tokens may be equally likely."""
TIE = 0.01
"""Logits by which two tokens may be apart and count as equally likely: llama.cpp looks GELU up in a table of f16 numbers."""


def fewest_same(limits: Limits, count: int, *, exact: bool) -> float:
    """How many of so many answers have to be the same; of few, chance may take two standard errors more."""
    wanted = limits.answers * count
    chance = 0.0 if exact else 2 * math.sqrt(wanted * (1 - limits.answers))
    return min(wanted - chance, count - ALLOWED)
