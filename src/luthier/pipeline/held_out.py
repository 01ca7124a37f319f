"""What a model makes of text that nobody trained on: bits per byte of held-out documents, with an interval."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from luthier.data.corpora import CorpusRows
from luthier.errors import Interrupted
from luthier.evaluate.metrics.likelihood import Likelihood, bits_per_byte, combine, perplexity
from luthier.evaluate.statistics.intervals import Resampled
from luthier.evaluate.statistics.units import RESAMPLES, Units
from luthier.model import likelihood
from luthier.model.loading import LanguageModel

CONFIDENCE = 0.95
TOGETHER = 32
"""Passages between two looks whether to stop."""


@dataclass(frozen=True)
class HeldOut:
    """Of held-out text: bits per byte, its interval over documents, and how much text there was."""

    bits_per_byte: float
    interval: tuple[float, float]
    confidence: float
    perplexity: float
    """By token; comparable between models with the same tokenizer only."""
    documents: int
    passages: int
    bytes: int
    tokens: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    lm: LanguageModel, rows: CorpusRows, end: int, *, seed: int = 0, stop: Callable[[], bool] = lambda: False
) -> HeldOut:
    """Each passage behind an end-of-text token, all of its tokens counted; documents are resampled whole."""
    passages = list(rows.passages())
    found: list[Likelihood] = []
    for at in range(0, len(passages), TOGETHER):
        if stop():
            raise Interrupted("stopped while held-out text was looked at; it is looked at again.")
        part = passages[at : at + TOGETHER]
        sums = likelihood.continuations(lm, [([end], ids.tolist()) for _, ids, _ in part])
        found += [Likelihood(one.logprob, len(ids), size) for one, (_, ids, size) in zip(sums, part, strict=True)]
    names = {name: number for number, name in enumerate(dict.fromkeys(name for name, _, _ in passages))}
    member = np.array([names[name] for name, _, _ in passages])
    if len(names) < 2:  # one long document: its passages are what there is
        member = np.arange(len(passages))
    bits = np.bincount(member, weights=[-one.total / math.log(2) for one in found])
    sizes = np.bincount(member, weights=[one.size for one in found])
    units = Units(bits.astype(np.float64), sizes.astype(np.float64))
    interval = Resampled.of(units, resamples=RESAMPLES, seed=seed).interval(CONFIDENCE)
    whole = combine(found)
    return HeldOut(
        bits_per_byte(whole), (interval.low, interval.high), CONFIDENCE, perplexity(whole), len(names), len(passages),
        whole.size, whole.tokens,
    )  # fmt: skip
