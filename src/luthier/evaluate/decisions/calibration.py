"""Probabilities that mean what they say: one temperature fitted on dev, and what it changes on test.

Temperature scaling: Guo et al., "On Calibration of Modern Neural Networks" (2017). It changes no decision, only how sure it
is. Targets are smoothed as by Platt (1999), so that a dev split without a mistake does not ask for certainty. Brier score:
Brier (1950), the sum over all classes, from 0 to 2. Calibration error: the mean distance between confidence and share of
right answers over bins of equal size, weighted (Naeini et al., 2015).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from luthier.evaluate.statistics import Interval, paired_interval

FEWEST = 20
"""Dev questions from which a temperature is fitted."""
ITEMS_A_BIN, MOST_BINS = 15, 10
HOTTEST = 20.0
_LEAST = 1e-12
Floats = NDArray[np.float64]


class Bin(NamedTuple):
    """Decisions of like confidence: how many, how sure on the average, and what share is right."""

    n: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Outcomes:
    """How good probabilities are on questions with known answers: lower is better, but for accuracy."""

    n: int
    accuracy: float
    brier: float
    log_loss: float
    calibration_error: float
    bins: tuple[Bin, ...]

    @classmethod
    def of(cls, predicted: Floats, right: Sequence[int]) -> "Outcomes":
        """Of probabilities [questions, answers] and the number of each question's right answer, -1 where it is none of them."""
        answers = np.asarray(right)
        hits = predicted.argmax(axis=1) == answers
        chosen = np.where(answers < 0, 0.0, predicted[np.arange(len(predicted)), np.maximum(answers, 0)])
        bins = tuple(_bins(predicted.max(axis=1), hits))
        error = sum(each.n * abs(each.confidence - each.right) for each in bins) / len(predicted)
        return cls(
            len(predicted),
            float(hits.mean()),
            float(brier_scores(predicted, right).mean()),
            float(-np.log(np.maximum(chosen, _LEAST)).mean()),
            float(error),
            bins,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"bins": [each._asdict() for each in self.bins]}


@dataclass(frozen=True)
class Calibrated:
    """A temperature and what it does to the test questions."""

    temperature: float
    dev: int
    """Questions that it was fitted on; 0 where they are too few and it stays at 1."""
    before: Outcomes
    after: Outcomes
    change: Interval
    """Of the Brier score, after less before, at 95 %."""
    allowed_mass: float
    """The mean probability that the model gives to the allowed answers together; the rest is other text."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "change": list(self.change),
        }


def probabilities(log_likelihoods: Floats, temperature: float = 1.0) -> Floats:
    """Softmax over the last axis, the allowed answers, at this temperature."""
    return np.asarray(special.softmax(log_likelihoods / temperature, axis=-1), dtype=np.float64)


def calibrate(
    dev: Floats, dev_right: Sequence[int], test: Floats, test_right: Sequence[int], groups: Sequence[str], *, seed: int
) -> Calibrated:
    """The temperature from dev, judged on test; log-likelihoods are [questions, answers].

    `groups` are those of the test questions, which the interval keeps whole.
    """
    known = np.asarray(dev_right) >= 0
    fitted = int(known.sum()) if known.sum() >= FEWEST else 0
    found = temperature(dev[known], np.asarray(dev_right)[known].tolist()) if fitted else 1.0
    before, after = probabilities(test), probabilities(test, found)
    # halves of the scores lie between 0 and 1, which is what the interval expects
    after_half, before_half = ((brier_scores(each, test_right) / 2).tolist() for each in (after, before))
    half = paired_interval(after_half, before_half, groups, confidence=0.95, seed=seed)
    return Calibrated(
        found,
        fitted,
        Outcomes.of(before, test_right),
        Outcomes.of(after, test_right),
        Interval(2 * half.low, 2 * half.high),
        float(np.exp(np.minimum(special.logsumexp(test, axis=1), 0.0)).mean()),
    )


def temperature(log_likelihoods: Floats, right: Sequence[int]) -> float:
    """The temperature with the smallest log loss on these questions; above 1 where the model is too sure."""
    questions, answers = log_likelihoods.shape
    targets = np.full(log_likelihoods.shape, 1 / (questions + 2) / (answers - 1))
    targets[np.arange(questions), right] = (questions + 1) / (questions + 2)

    def loss(log_temperature: float) -> float:
        return float(-(targets * special.log_softmax(log_likelihoods / np.exp(log_temperature), axis=1)).sum())

    bounds = (-np.log(HOTTEST), np.log(HOTTEST))
    return float(np.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x))


def brier_scores(predicted: Floats, right: Sequence[int]) -> Floats:
    """Σ (p − y)² over the answers, for each question; a right answer that is not allowed was given probability 0."""
    answers = np.asarray(right)
    known = answers >= 0
    wanted = np.zeros_like(predicted)
    wanted[np.flatnonzero(known), answers[known]] = 1.0
    return np.asarray(np.square(predicted - wanted).sum(axis=1) + ~known, dtype=np.float64)


def _bins(confidence: Floats, hits: NDArray[np.bool_]) -> list[Bin]:
    """Bins of equal size, the least sure decisions first; equal confidences keep their order."""
    count = max(1, min(MOST_BINS, len(confidence) // ITEMS_A_BIN))
    order = np.argsort(confidence, kind="stable")
    return [
        Bin(len(part), float(confidence[part].mean()), float(hits[part].mean()))
        for part in np.array_split(order, count)
    ]
