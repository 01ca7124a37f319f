"""Perplexity, bits per byte and choices among options, from summed log-likelihoods alone (natural logarithms).

Sums are added over texts before they are divided, so a text weighs by its length.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from luthier.errors import UserError


class Likelihood(NamedTuple):
    """The log-likelihood of a text's tokens, their number, and the length of the text in UTF-8 bytes."""

    total: float
    tokens: int
    size: int


def combine(parts: Iterable[Likelihood]) -> Likelihood:
    """The likelihood of many texts as of one; raises UserError for a log-likelihood that is not finite."""
    listed = list(parts)
    for number, part in enumerate(listed, 1):
        if not math.isfinite(part.total):
            message = f"the log-likelihood of text {number} of {len(listed)} is {part.total}; expected a finite number."
            raise UserError(f"{message} Are the model's weights intact? Look at some of its answers.")
    return Likelihood(
        math.fsum(part.total for part in listed), sum(part.tokens for part in listed), sum(part.size for part in listed)
    )


def perplexity(likelihood: Likelihood) -> float:
    """exp of the mean negative log-likelihood per token; comparable between models with the same tokenizer only."""
    if likelihood.tokens < 1:
        raise UserError("no tokens to take a perplexity of; the answers are empty.")
    mean = -likelihood.total / likelihood.tokens
    return math.exp(mean) if mean < 700 else math.inf


def bits_per_byte(likelihood: Likelihood) -> float:
    """Negative log-likelihood in bits over the text's bytes; comparable between any two models."""
    if likelihood.size < 1:
        raise UserError("no bytes to take bits per byte of; the answers are empty.")
    return -likelihood.total / math.log(2) / likelihood.size


class Choice(NamedTuple):
    """The index of the most likely option, in three normalizations; of equals the first."""

    plain: int
    """By the sum alone."""
    by_characters: int
    """By the sum over the option's characters."""
    by_bytes: int
    """By the sum over the option's UTF-8 bytes."""

    def scores(self, right: int) -> dict[str, float]:
        """0 or 1 each under the names of EleutherAI's lm-evaluation-harness: acc, acc_norm and acc_bytes."""
        return {
            "acc": float(self.plain == right),
            "acc_norm": float(self.by_characters == right),
            "acc_bytes": float(self.by_bytes == right),
        }


def choose(log_likelihoods: Sequence[float], options: Sequence[str]) -> Choice:
    """The most likely of a question's options, from each one's summed log-likelihood.

    Lengths are those of the options as listed, without the blank before them in the prompt. The harness counts so too,
    and its acc_norm divides by characters, not by bytes or tokens.
    """
    if len(log_likelihoods) != len(options) or not options:
        message = f"found {len(log_likelihoods)} log-likelihoods for {len(options)} options; expected one for each."
        raise UserError(message)
    if not all(map(math.isfinite, log_likelihoods)):
        raise UserError(f"found log-likelihoods {list(log_likelihoods)}; expected finite numbers.")
    if not all(options):
        raise UserError("an option is empty, so its likelihood cannot be divided by its length; give it a text.")
    sums = np.array(log_likelihoods)
    characters = np.array([len(option) for option in options], dtype=np.float64)
    sizes = np.array([len(option.encode()) for option in options], dtype=np.float64)
    return Choice(int(sums.argmax()), int((sums / characters).argmax()), int((sums / sizes).argmax()))
