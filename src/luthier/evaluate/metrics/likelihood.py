"""What a model thinks of a given text, from its summed log-likelihood alone; natural logarithms throughout.

Sums add up over texts before they are divided, so a long answer weighs by its length, as in one long text.
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


def together(parts: Iterable[Likelihood]) -> Likelihood:
    """Many texts as one; raises UserError for a log-likelihood that is no finite number."""
    listed = list(parts)
    for number, part in enumerate(listed, 1):
        if not math.isfinite(part.total):
            told = f"the log-likelihood of text {number} of {len(listed)} is {part.total}; expected a finite number."
            raise UserError(f"{told} Is the model sound? Its answers would show it.")
    return Likelihood(
        math.fsum(part.total for part in listed), sum(part.tokens for part in listed), sum(part.size for part in listed)
    )


def perplexity(likelihood: Likelihood) -> float:
    """exp of the mean negative log-likelihood of a token; comparable between models with the same tokenizer only."""
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
    """The option that a model finds likeliest, by three ways of looking; the first of equals."""

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
    """The likeliest of a question's options, given each one's summed log-likelihood.

    Lengths are those of the options as they are listed, without the blank that stands before them in the prompt: so
    does the harness count, and its acc_norm divides by characters, not by bytes or tokens.
    """
    if len(log_likelihoods) != len(options) or not options:
        told = f"found {len(log_likelihoods)} log-likelihoods for {len(options)} options; expected one for each."
        raise UserError(told)
    if not all(map(math.isfinite, log_likelihoods)):
        raise UserError(f"found log-likelihoods {list(log_likelihoods)}; expected finite numbers.")
    if not all(options):
        raise UserError("an option is empty, so its likelihood cannot be divided by its length; give it a text.")
    sums = np.array(log_likelihoods)
    characters = np.array([len(option) for option in options], dtype=np.float64)
    sizes = np.array([len(option.encode()) for option in options], dtype=np.float64)
    return Choice(int(sums.argmax()), int((sums / characters).argmax()), int((sums / sizes).argmax()))
