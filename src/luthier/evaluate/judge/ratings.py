"""Ratings from votes between pairs: Bradley–Terry strengths on Elo's scale, by maximum likelihood over all votes at once.

Classic Elo updates after every game, so the same votes in another order give other ratings. Here only the counts matter,
and everything is sorted before it is summed: any order of the votes gives the same bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luthier.errors import UserError
from luthier.evaluate.statistics import unseen

Floats = NDArray[np.float64]

SCALE = 400 / math.log(10)
"""Elo's points per unit of log strength: 400 points are odds of 10 to 1."""

MEAN = 1000.0
PRIOR_TIES = 1.0
"""Ties of each player with a player of mean strength. Without them, whoever won every vote would be rated infinite."""

RESAMPLES = 1_000
_STEPS = 60


@dataclass(frozen=True)
class Vote:
    """One comparison. `winner` is `first`, `second` or None for a tie; votes of one `item` are resampled together."""

    first: str
    second: str
    winner: str | None
    item: str | None = None


@dataclass(frozen=True)
class Rating:
    """A player's rating: Elo points around 1000 with an interval, and how often it was compared. Ties are half wins."""

    name: str
    rating: float
    interval: tuple[float, float]
    votes: int
    wins: float


def rate(votes: Sequence[Vote], *, confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES) -> list[Rating]:
    """Every player's rating, the best first; a UserError where some players were never compared, even indirectly.

    P(i beats j) = 1 / (1 + 10^((r_j − r_i)/400)) (Bradley & Terry 1952, Biometrika 39:324), a tie counting as half a win
    for each. Intervals are percentiles of a bootstrap over items, or over votes that name none; where all of these are the
    same, they follow from Wilson's bound of the share that may differ.
    """
    names = sorted({name for vote in votes for name in (vote.first, vote.second)})
    _check(votes, names)
    units, counts = _units(votes, names)
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), resamples)
    total, resampled = (np.tensordot(weights.astype(np.float64), units, axes=1) for weights in (counts, drawn))
    ratings = _fit(total[None])[0]
    tails = (1 - confidence) / 2
    low, high = np.quantile(_fit(resampled), [tails, 1 - tails], axis=0)
    played, wins = total + total.T, total.sum(axis=1)
    if len(units) == 1:
        # All units are the same, so resampling shows no variation: as many as may be unseen go to either side.
        share = unseen(int(counts.sum()), confidence)
        sides = np.stack([(1 - share) * total + share * half(played) for half in (np.triu, np.tril)])
        low, high = (end([*_fit(sides), ratings], axis=0) for end in (np.min, np.max))
    found = [
        Rating(name, float(ratings[at]), (float(low[at]), float(high[at])), round(played[at].sum()), float(wins[at]))
        for at, name in enumerate(names)
    ]
    return sorted(found, key=lambda rating: (-round(rating.rating, 6), rating.name))


def _check(votes: Sequence[Vote], names: Sequence[str]) -> None:
    """Refuses votes that cannot be rated together."""
    if not votes:
        raise UserError("no votes; a rating needs at least one comparison between two players.")
    for vote in votes:
        if vote.first == vote.second:
            raise UserError(f'"{vote.first}" is compared with itself; a vote needs two players.')
    leader = {name: name for name in names}

    def leader_of(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for vote in votes:
        leader[leader_of(vote.first)] = leader_of(vote.second)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(leader_of(name), []).append(name)
    if len(groups) > 1:
        names_by_group = "; ".join(", ".join(group) for group in groups.values())
        raise UserError(
            f"the players fall into {len(groups)} groups that were never compared with each other ({names_by_group}), so they "
            "have no common scale. Add votes between the groups, or rate each group by itself."
        )


def _units(votes: Sequence[Vote], names: Sequence[str]) -> tuple[Floats, NDArray[np.int64]]:
    """What is resampled: a table of wins of row over column for each item (or vote without one), and how often it occurs.

    They are sorted by content, so the order of the votes does not matter.
    """
    index_of = {name: at for at, name in enumerate(names)}
    tables: dict[str | int, Floats] = {}
    for number, vote in enumerate(votes):
        first, second = index_of[vote.first], index_of[vote.second]
        won = 0.5 if vote.winner is None else float(vote.winner == vote.first)
        table = tables.setdefault(number if vote.item is None else vote.item, np.zeros((len(names), len(names))))
        table[first, second] += won
        table[second, first] += 1 - won
    flat = np.stack([table.ravel() for table in tables.values()])
    alike, counts = np.unique(flat, axis=0, return_counts=True)
    return alike.reshape(-1, len(names), len(names)), counts


def _fit(wins: Floats) -> Floats:
    """Ratings of each table of wins: Newton's method on the log likelihood, which the prior makes strictly concave."""
    tables, players = wins.shape[0], wins.shape[1]
    played = wins + wins.transpose(0, 2, 1)
    strengths = np.zeros((tables, players))
    diagonal = np.arange(players)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(strengths[:, None, :] - strengths[:, :, None]))
        alone = 1 / (1 + np.exp(-strengths))
        slope = wins.sum(axis=2) - (played * chance).sum(axis=2) + PRIOR_TIES * (0.5 - alone)
        spread = played * chance * (1 - chance)
        curvature = -spread
        curvature[:, diagonal, diagonal] = spread.sum(axis=2) + PRIOR_TIES * alone * (1 - alone)
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        step *= np.minimum(1, 2 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))  # no wild first steps
        strengths += step
        if np.abs(step).max() < 1e-10:
            break
    ratings: Floats = MEAN + SCALE * (strengths - strengths.mean(axis=1, keepdims=True))
    return ratings
