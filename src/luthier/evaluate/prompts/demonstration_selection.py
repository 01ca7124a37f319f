"""Chooses the fixed few-shot prompt on dev: how many examples, and which.

Successive halving (Jamieson and Talwalkar 2016): all candidates answer a few questions, the better half answers more, until
two have answered all. What a candidate has answered is kept, so each question is put to it once. The cost is estimated before
anything is asked, and as many candidates are tried as the budget allows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DEV_QUESTIONS = 48
"""Enough to tell which prompt is best, at a third of the time that all dev items would take."""
TRIED = (1, 2, 4, 8, 16)
"""Numbers of examples."""
DRAWS = 3
"""Sets of examples for each number."""
STEP, STEP_ROW = 20, 2
"""What one step of generating costs, in prompt tokens computed in the same time: for a batch, and for each of its rows.
Measured with 135 M parameters in fp32 on one core: a step of 6 rows takes as long as 32 tokens, one of 24 rows as 74."""
ROWS_TOKENS = 24576  # tokens of a batch, as in model/generate.py


@dataclass(frozen=True)
class Candidate:
    """A fixed few-shot prompt: the first `shots` examples of a draw."""

    shots: int
    draw: int

    @property
    def name(self) -> str:
        return f"few-shot {self.shots}, set {self.draw + 1}"


@dataclass(frozen=True)
class Costs:
    """What asking costs, in tokens: of one example, of a question, of the longest answer."""

    example: float
    question: float
    answer: int

    @classmethod
    def of(cls, lengths: Sequence[int], learnt: Sequence[int], answer: int) -> "Costs":
        """Averages over training rows: their tokens, and how many of these are the answers' own."""
        mean = sum(lengths) / len(lengths)
        return cls(mean, max(1.0, mean - sum(learnt) / len(learnt)), answer)

    def asking(self, questions: int, shots: int, *, shared: bool = True) -> int:
        """Tokens computed for some questions behind a prompt, generating included as so many tokens as take the same time.

        Examples that all questions share are computed once.
        """
        prompt = shots * self.example
        rows = max(1, int(ROWS_TOKENS // (prompt + self.question + self.answer)))
        steps = self.answer * (math.ceil(questions / rows) * STEP + questions * STEP_ROW)
        examples = prompt if shared else questions * prompt
        return math.ceil(examples + questions * self.question + steps)


@dataclass(frozen=True)
class Standing:
    """How far a candidate came: dev questions answered, and their mean score."""

    candidate: Candidate
    questions: int
    mean: float


def rungs(candidates: int, questions: int) -> list[tuple[int, int]]:
    """How many candidates answer how many questions in total, rung by rung; the last rung is all questions."""
    counts = [candidates]
    while counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    last = len(counts) - 1
    return [(count, max(1, math.ceil(questions / 2 ** (last - rung)))) for rung, count in enumerate(counts)]


def affordable(shots: Sequence[int], questions: int, costs: Costs, budget: int) -> tuple[list[Candidate], int]:
    """The most candidates that the budget allows, and their cost; where it allows few, the smallest numbers go first.

    One candidate, the most examples that were asked for, is always there: it costs what the arm costs anyway.
    """
    ordered = sorted(set(shots))
    ways = [
        [Candidate(count, draw) for count in ordered[start:] for draw in range(draws)]
        for start in range(len(ordered))
        for draws in range(DRAWS, 0, -1)
    ]
    for candidates in sorted(ways, key=len, reverse=True):
        if (spent := cost(candidates, questions, costs)) <= budget:
            return candidates, spent
    alone = [Candidate(ordered[-1], 0)]
    return alone, cost(alone, questions, costs)


def cost(candidates: Sequence[Candidate], questions: int, costs: Costs) -> int:
    """What halving costs at most: the candidates with the most examples survive."""
    order = sorted(candidates, key=lambda candidate: -candidate.shots)
    asked, total = 0, 0
    for count, until in rungs(len(order), questions):
        total += sum(costs.asking(until - asked, candidate.shots) for candidate in order[:count])
        asked = until
    return total


def halve(candidates: Sequence[Candidate], questions: int, ask: Callable[[Candidate, int], float]) -> list[Standing]:
    """The candidates' standings, the chosen one first. `ask` gives the mean score over the first so many questions.

    Of equals the one with fewer examples, and then the earlier set, goes on.
    """
    going = list(candidates)
    best: list[Standing] = []
    out: list[Standing] = []
    for count, until in rungs(len(going), questions):
        standings = [Standing(candidate, until, ask(candidate, until)) for candidate in going[:count]]
        standings.sort(
            key=lambda standing: (-round(standing.mean, 9), standing.candidate.shots, standing.candidate.draw)
        )
        keep = math.ceil(count / 2) if count > 2 else 1
        out = standings[keep:] + out
        going = [standing.candidate for standing in standings[:keep]]
        best = standings[:keep]
    return best + out
