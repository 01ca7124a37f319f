"""How much two texts share: for scores, and to tell a new task from those that are there."""

from collections.abc import Sequence

from rapidfuzz.distance import LCSseq


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over the longest common subsequence of two lists of words (Lin 2004, section 3).

    0 where one of them is empty.
    """
    return 2 * LCSseq.similarity(one, other) / (len(one) + len(other)) if one and other else 0.0
