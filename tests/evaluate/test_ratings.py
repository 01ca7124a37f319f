"""Ratings depend on the votes and on nothing else, least of all on their order."""

import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from luthier.errors import UserError
from luthier.evaluate.judge.ratings import PRIOR_TIES, SCALE, Vote, rate

PLAYERS = "abcd"


@st.composite
def ballots(draw: st.DrawFn) -> list[Vote]:
    """Votes in which everybody has met player a."""
    pairs = [("a", other) for other in PLAYERS[1:]]
    pairs += draw(st.lists(st.sampled_from([(x, y) for x in PLAYERS for y in PLAYERS if x != y]), max_size=20))
    items = st.none() | st.sampled_from(["1", "2", "3"])
    return [Vote(x, y, draw(st.sampled_from([x, y, None])), draw(items)) for x, y in pairs]


@settings(deadline=None)
@given(votes=ballots(), seed=st.integers(0, 2**32))
def test_any_order_of_the_votes_gives_the_same_ratings_and_intervals(votes: list[Vote], seed: int) -> None:
    shuffled = random.Random(seed).sample(votes, len(votes))
    turned = [Vote(vote.second, vote.first, vote.winner, vote.item) for vote in shuffled]
    assert rate(votes, resamples=50) == rate(shuffled, resamples=50) == rate(turned, resamples=50)


@settings(deadline=None, max_examples=25)
@given(votes=ballots())
def test_the_ratings_are_the_maximum_of_the_penalised_likelihood(votes: list[Vote]) -> None:
    def loss(strengths: np.ndarray) -> float:
        place = {name: float(strengths[at]) for at, name in enumerate(PLAYERS)}
        total = sum(PRIOR_TIES * 0.5 * (math.log1p(math.exp(-s)) + math.log1p(math.exp(s))) for s in strengths)
        for vote in votes:
            won = 0.5 if vote.winner is None else float(vote.winner == vote.first)
            gap = place[vote.first] - place[vote.second]
            total += won * math.log1p(math.exp(-gap)) + (1 - won) * math.log1p(math.exp(gap))
        return total

    best = minimize(loss, np.zeros(len(PLAYERS)), method="BFGS", options={"gtol": 1e-9}).x
    found = {rating.name: rating.rating for rating in rate(votes, resamples=2)}
    expected = 1000 + SCALE * (best - best.mean())
    assert [found[name] for name in PLAYERS] == pytest.approx(expected.tolist(), abs=0.05)


def test_ten_to_one_is_four_hundred_points_when_votes_are_many() -> None:
    votes = [Vote("x", "y", "x")] * 10_000 + [Vote("x", "y", "y")] * 1_000
    best, other = rate(votes, resamples=100)
    assert best.name == "x" and best.rating - other.rating == pytest.approx(400, abs=1)
    assert best.interval[0] < best.rating < best.interval[1]
    assert (best.votes, best.wins) == (11_000, 10_000)


def test_who_wins_every_vote_has_a_finite_rating() -> None:
    best, _ = rate([Vote("x", "y", "x")] * 20, resamples=20)
    assert 1_100 < best.rating < 1_500


def test_ties_alone_leave_all_alike() -> None:
    assert [rating.rating for rating in rate([Vote("x", "y", None)] * 5)] == pytest.approx([1000, 1000])


def test_votes_on_one_item_stand_and_fall_together() -> None:
    alone = [Vote("x", "y", winner) for winner in "xxxyx" * 8]
    same = [
        Vote(vote.first, vote.second, vote.winner, str(number // 8))
        for number, vote in enumerate(sorted(alone, key=str))
    ]
    wide, narrow = (rate(votes)[0].interval for votes in (same, alone))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


@pytest.mark.parametrize(
    ("votes", "told"),
    [
        ([], "no votes"),
        ([Vote("x", "x", None)], '"x" is compared with itself'),
        ([Vote("a", "b", "a"), Vote("c", "d", "d")], "2 groups that were never compared with each other (a, b; c, d)"),
    ],
)
def test_what_cannot_be_rated_is_refused(votes: list[Vote], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        rate(votes)


@pytest.mark.parametrize("winner", ["x", None])
def test_votes_that_all_say_the_same_leave_a_doubt(winner: str | None) -> None:
    first, second = rate([Vote("x", "y", winner)] * 10)
    for rating in (first, second):
        assert rating.interval[0] <= rating.rating <= rating.interval[1]
        assert rating.interval[1] - rating.interval[0] > 50
    many, _ = rate([Vote("x", "y", winner)] * 10_000)
    assert many.interval[1] - many.interval[0] < 500
