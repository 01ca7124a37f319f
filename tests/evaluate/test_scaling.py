"""What more data would bring, on curves whose answer is known."""

import numpy as np
import pytest

from luthier.evaluate.statistics.scaling import doubling

ROWS = [100, 200, 400, 800]


def curve(means: list[float], items: int = 200, seed: int = 0) -> list[list[float]]:
    """0/1 scores with these means: an item that is right with less data mostly stays right with more."""
    luck = np.random.default_rng(seed).permutation(items) / items
    return [[float(value < mean) for value in luck] for mean in means]


def fit(means: list[float], rows: list[int] = ROWS, items: int = 200):  # type: ignore[no-untyped-def]
    return doubling(rows, curve(means, items), [str(n) for n in range(items)], margin=0.02, seed=0)


def test_a_straight_line_gives_its_slope_with_an_interval_around_it() -> None:
    found = fit([0.4, 0.5, 0.6, 0.7])
    assert (found.word, found.gain, found.rows) == ("MORE HELPS", pytest.approx(0.1), 800)
    assert 0.07 < found.interval.low < 0.1 < found.interval.high < 0.13
    assert found.stray == pytest.approx(0, abs=1e-9)
    assert (found.last_gain, found.last_from) == (pytest.approx(0.1), 400)


def test_no_gain_leads_above_the_best_possible_score() -> None:
    items = [str(n) for n in range(200)]
    found = doubling(ROWS, curve([0.58, 0.69, 0.8, 0.97]), items, margin=0.02, seed=0, ceiling=1.0)
    assert found.word == "MORE HELPS" and found.room == pytest.approx(0.03)
    assert found.interval.high == found.room == found.gain
    full = doubling(ROWS, curve([0.7, 0.8, 0.9, 0.99]), items, margin=0.02, seed=0, ceiling=1.0)
    assert full.word == "LITTLE CHANGE"  # one point is missing


def test_the_order_of_the_points_does_not_matter() -> None:
    assert fit([0.7, 0.5, 0.4, 0.6], [800, 200, 100, 400]) == fit([0.4, 0.5, 0.6, 0.7])


def test_a_flat_curve_changes_little() -> None:
    assert fit([0.6, 0.6, 0.6, 0.6]).word == "LITTLE CHANGE"


def test_two_questions_that_change_alike_cannot_tell() -> None:
    found = doubling([100, 200], [[0.5, 0.5], [0.5, 0.5]], ["a", "b"], margin=0.02, seed=0)
    # 3.8415 / (2 + 3.8415) of unseen questions could each gain or lose 1 with a doubling.
    assert found.word == "CANNOT TELL" and found.interval == pytest.approx((-0.6576, 0.6576), abs=1e-4)


def test_a_falling_curve_says_so() -> None:
    assert fit([0.7, 0.6, 0.5, 0.4]).word == "MORE HURTS"


def test_a_curve_that_jumps_about_cannot_tell() -> None:
    found = fit([0.4, 0.7, 0.4, 0.7])
    assert found.word == "CANNOT TELL" and found.interval.low < 0 < found.interval.high


def test_few_items_cannot_tell_what_many_can() -> None:
    rng = np.random.default_rng(0)
    scores = [(rng.random(2_000) < mean).astype(float).tolist() for mean in (0.50, 0.54)]

    def word(items: int) -> str:
        few = [row[:items] for row in scores]
        return doubling([100, 200], few, [str(n) for n in range(items)], margin=0.02, seed=0).word

    assert (word(30), word(2_000)) == ("CANNOT TELL", "MORE HELPS")


def test_the_slope_is_numpys() -> None:
    rng = np.random.default_rng(3)
    scores = rng.random((4, 50))
    rows = [90, 170, 400, 1_000]
    expected = np.polyfit(np.log2(rows), scores.mean(axis=1), 1)[0]
    found = doubling(rows, scores.tolist(), [str(n) for n in range(50)], margin=0.02, seed=0)
    assert found.gain == pytest.approx(expected)


def test_the_distances_from_the_line_widen_the_interval_as_a_regression_does() -> None:
    from scipy.stats import linregress

    means = [0.40, 0.53, 0.59, 0.68]
    assert fit(means).stray == pytest.approx(linregress(np.log2(ROWS), means).stderr)
