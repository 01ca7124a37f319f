"""Several sampled answers to one question: how much of the uncertainty more of them could remove."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from luthier.evaluate.statistics.units import SAME, units


class Sampling(NamedTuple):
    """A mean over questions whose answers were drawn several times, averaged within each question first.

    Var(mean) = between + within, the second being what more answers to the same questions would shrink (Miller 2024,
    arXiv 2411.00640, section 3.2).
    """

    means: list[float]
    """Each question's mean score: the value that tests and intervals see."""
    samples: float
    """Answers to a question, on average."""
    between: float
    """Variance of the mean that comes from the choice of questions; more of them make it smaller."""
    within: float | None
    """Variance of the mean that comes from drawing answers; None where each question was answered once."""

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.between + (self.within or 0.0))

    def to_json(self) -> dict[str, float | str | None]:
        """What verdict.json says of an arm's samples."""
        return {
            "samples": self.samples,
            "variance_between": self.between,
            "variance_within": self.within,
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """Whether to add questions or samples, with what each would bring."""
        if self.within is None:
            return "Each question was answered once, so how much answers vary by chance was not measured."
        total = self.between + self.within
        if total <= SAME**2:
            return "All answers scored the same, so neither more questions nor more samples would show more."
        share = self.within / total
        by_samples = 1 - math.sqrt((self.between + self.within / 2) / total)
        advice = (
            "add samples, which need no new reference answers"
            if share >= 0.5
            else "add questions, for more samples would bring little"
        )
        return (
            f"{share:.0%} of the variance comes from sampling {self.samples:.3g} answers to a question, the rest from the "
            f"questions. Twice the samples would narrow the interval by {by_samples:.0%}, twice the questions by "
            f"{1 - math.sqrt(0.5):.0%}; {advice}."
        )


def sampled(scores: Sequence[Sequence[float]], groups: Sequence[str]) -> Sampling:
    """The scores of each question's answers, reduced to one mean a question, with the variance split in two.

    The total is the squared (cluster-robust) standard error of the means. `within` is estimated from the questions that
    have two answers or more; where it exceeds the total, drawing alone explains all of it.
    """
    means = [math.fsum(each) / len(each) for each in scores]
    count = len(scores)
    total = units(means, groups).standard_error ** 2
    spreads = [float(np.var(each, ddof=1)) for each in scores if len(each) > 1]
    samples = sum(map(len, scores)) / count
    if not spreads:
        return Sampling(means, samples, total, None)
    spread = math.fsum(spreads) / len(spreads)
    within = spread * math.fsum(1 / len(each) for each in scores) / count**2 if spread > SAME**2 else 0.0
    return Sampling(means, samples, max(0.0, total - within), min(within, total))
