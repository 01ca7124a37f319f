"""Choosing the few-shot prompt: who is asked how much, and what it costs."""

import pytest

from luthier.evaluate.prompts import demonstration_selection
from luthier.evaluate.prompts.demonstration_selection import Candidate, TokenCosts

MANY = [Candidate(shots, draw) for shots in demonstration_selection.SHOT_COUNTS for draw in range(3)]


def test_half_of_the_candidates_go_on_to_twice_the_questions() -> None:
    assert demonstration_selection.rungs(15, 48) == [(15, 6), (8, 12), (4, 24), (2, 48)]
    assert demonstration_selection.rungs(1, 48) == [(1, 48)] and demonstration_selection.rungs(3, 5) == [(3, 3), (2, 5)]


def test_the_best_is_found_and_each_question_is_asked_once() -> None:
    asked: dict[Candidate, list[int]] = {}

    def ask(candidate: Candidate, questions: int) -> float:
        asked.setdefault(candidate, []).append(questions)
        return candidate.shots - candidate.draw / 10

    ranking = demonstration_selection.successive_halving(MANY, 48, ask)
    assert ranking[0] == demonstration_selection.CandidateScore(Candidate(16, 0), 48, 16.0)
    assert asked[Candidate(16, 0)] == [6, 12, 24, 48] and asked[Candidate(1, 0)] == [6]
    assert sorted(map(len, asked.values())) == [1] * 7 + [2] * 4 + [3] * 2 + [4] * 2
    assert {ranked.candidate for ranked in ranking} == set(MANY)


def test_of_equals_the_shorter_prompt_is_chosen() -> None:
    assert demonstration_selection.successive_halving(MANY, 48, lambda candidate, questions: 0.5)[
        0
    ].candidate == Candidate(1, 0)


def test_a_shared_beginning_is_counted_once() -> None:
    costs = TokenCosts(demonstration=100, question=20, answer=10)
    # One batch: 4 × 100 for the examples, 48 × 20 for the questions, 10 steps of 20 and 2 for each row.
    assert costs.tokens_to_ask(48, 4) == 400 + 960 + 10 * (20 + 96)
    # 24,576 / 430 = 57 rows fit into a batch; without sharing every question brings its own examples.
    assert costs.tokens_to_ask(48, 4, shared=False) == 48 * 400 + 960 + 1160
    assert costs.tokens_to_ask(58, 4) == 400 + 58 * 20 + 10 * (40 + 116)


def test_costs_are_averages_over_the_training_rows() -> None:
    assert TokenCosts.of([30, 50], [10, 20], answer=16) == TokenCosts(demonstration=40, question=25, answer=16)


@pytest.mark.parametrize(("answer", "budget"), [(16, 20_000), (16, 30_000), (200, 73_000), (500, 100_000)])
def test_no_more_is_tried_than_the_budget_allows(answer: int, budget: int) -> None:
    candidates, spent = demonstration_selection.affordable_candidates(
        (1, 2, 4, 8), 48, TokenCosts(100, 40, answer), budget
    )
    assert spent <= budget and Candidate(8, 0) in candidates
    assert spent == demonstration_selection.halving_cost(candidates, 48, TokenCosts(100, 40, answer))


def test_short_answers_leave_room_for_all_candidates_and_long_ones_for_few() -> None:
    short, long = TokenCosts(100, 30, 16), TokenCosts(250, 50, 256)
    of_short, _ = demonstration_selection.affordable_candidates(
        (1, 2, 4, 8), 48, short, short.tokens_to_ask(48, 8, shared=False)
    )
    of_long, _ = demonstration_selection.affordable_candidates(
        (1, 2, 4), 48, long, long.tokens_to_ask(48, 4, shared=False)
    )
    assert len(of_short) == 12 and 1 < len(of_long) < 9


def test_one_candidate_is_always_left() -> None:
    assert demonstration_selection.affordable_candidates((1, 2, 4), 48, TokenCosts(100, 40, 200), 1)[0] == [
        Candidate(4, 0)
    ]
