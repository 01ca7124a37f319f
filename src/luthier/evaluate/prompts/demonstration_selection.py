"""Selects the fixed few-shot prompt on dev: how many demonstrations, and which.

Successive halving (Jamieson and Talwalkar 2016): all candidates answer a few questions, the better half answers more, until
two have answered all. What a candidate has answered is kept, so each question is put to it once. The cost is estimated before
anything is asked, and as many candidates are tried as the budget allows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DEV_QUESTIONS = 48
"""Enough to tell which prompt is best, at a third of the time that all dev items would take."""
SHOT_COUNTS = (1, 2, 4, 8, 16)
"""Numbers of demonstrations that are tried."""
SETS_PER_COUNT = 3
"""Candidate sets of demonstrations for each number."""
STEP_TOKENS, STEP_TOKENS_PER_ROW = 20, 2
"""What one step of generating costs, in prompt tokens computed in the same time: for a batch, and for each of its rows.
Measured with 135 M parameters in fp32 on one core: a step of 6 rows takes as long as 32 tokens, one of 24 rows as 74."""
TOKENS_PER_BATCH = 24_576
"""Prompts and answers that the estimate puts into one batch. Real batches are bounded by the bytes of their cache
(`model/generate.py`): of 135 M parameters in fp32, 2 GiB hold about 46,000 tokens."""


@dataclass(frozen=True)
class Candidate:
    """A fixed few-shot prompt: the first `shots` demonstrations of a draw."""

    shots: int
    draw: int

    @property
    def name(self) -> str:
        return f"few-shot {self.shots}, set {self.draw + 1}"


@dataclass(frozen=True)
class TokenCosts:
    """What asking costs, in tokens: of one demonstration, of a question, of the longest answer."""

    demonstration: float
    question: float
    answer: int

    @classmethod
    def of(
        cls,
        lengths: Sequence[int] | np.ndarray,
        answer_lengths: Sequence[int] | np.ndarray,
        answer: int,
        definitions: float = 0.0,
    ) -> "TokenCosts":
        """Averages over training rows: their tokens, and how many of these are the answers' own.

        `definitions` are tokens that define functions, on average: a demonstration has none, the question brings its own.
        """
        mean = float(np.mean(lengths))
        question = max(1.0, mean - float(np.mean(answer_lengths)))
        return cls(max(1.0, mean - definitions), question, answer)

    def tokens_to_ask(self, questions: int, shots: int, *, shared: bool = True) -> int:
        """Tokens computed for some questions behind a prompt, generating included as so many tokens as take the same time.

        Demonstrations that all questions share are computed once.
        """
        prompt = shots * self.demonstration
        rows = max(1, int(TOKENS_PER_BATCH // (prompt + self.question + self.answer)))
        steps = self.answer * (math.ceil(questions / rows) * STEP_TOKENS + questions * STEP_TOKENS_PER_ROW)
        demonstrations = prompt if shared else questions * prompt
        return math.ceil(demonstrations + questions * self.question + steps)


@dataclass(frozen=True)
class CandidateScore:
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


def affordable_candidates(
    shots: Sequence[int], questions: int, costs: TokenCosts, budget: int
) -> tuple[list[Candidate], int]:
    """The most candidates that the budget allows, and their cost; where it allows few, the smallest numbers go first.

    One candidate, the most demonstrations that were asked for, is always there: it costs what the arm costs anyway.
    """
    ordered = sorted(set(shots))
    choices = [
        [Candidate(count, draw) for count in ordered[start:] for draw in range(draws)]
        for start in range(len(ordered))
        for draws in range(SETS_PER_COUNT, 0, -1)
    ]
    for candidates in sorted(choices, key=len, reverse=True):
        if (spent := halving_cost(candidates, questions, costs)) <= budget:
            return candidates, spent
    alone = [Candidate(ordered[-1], 0)]
    return alone, halving_cost(alone, questions, costs)


def halving_cost(candidates: Sequence[Candidate], questions: int, costs: TokenCosts) -> int:
    """What successive halving costs at most: the candidates with the most demonstrations survive."""
    order = sorted(candidates, key=lambda candidate: -candidate.shots)
    asked, total = 0, 0
    for count, goal in rungs(len(order), questions):
        total += sum(costs.tokens_to_ask(goal - asked, candidate.shots) for candidate in order[:count])
        asked = goal
    return total


def successive_halving(
    candidates: Sequence[Candidate], questions: int, ask: Callable[[Candidate, int], float]
) -> list[CandidateScore]:
    """All candidates, the chosen one first. `ask` gives the mean score over the first so many questions.

    Of equals the one with fewer demonstrations, and then the earlier set, goes on.
    """
    left = list(candidates)
    survivors: list[CandidateScore] = []
    dropped: list[CandidateScore] = []
    for count, goal in rungs(len(left), questions):
        ranking = [CandidateScore(candidate, goal, ask(candidate, goal)) for candidate in left[:count]]
        ranking.sort(key=lambda ranked: (-round(ranked.mean, 9), ranked.candidate.shots, ranked.candidate.draw))
        keep = math.ceil(count / 2) if count > 2 else 1
        dropped = ranking[keep:] + dropped
        survivors = ranking[:keep]
        left = [ranked.candidate for ranked in survivors]
    return survivors + dropped
