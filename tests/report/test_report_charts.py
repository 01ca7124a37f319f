"""The drawings: round scales, curves that neither lag nor lose a spike, and marks at the right places."""

import re
from xml.etree import ElementTree

import pytest

from luthier.report import charts
from luthier.report.charts import Scale, Share


@pytest.mark.parametrize(
    ("values", "ends"),
    [([0.41, 0.667], (0.4, 0.7)), ([3.1, 0.4], (0.0, 4.0)), ([0.5, 0.5], (0.45, 0.55)), ([0.0], (-0.5, 0.5))],
)
def test_a_scale_has_round_ends_that_hold_all_values(values: list[float], ends: tuple[float, float]) -> None:
    scale = Scale.around(values)
    assert (scale.low, scale.high) == pytest.approx(ends, abs=0.06)
    assert scale.low <= min(values) and max(values) <= scale.high
    gaps = {round(b - a, 9) for a, b in zip(scale.ticks, scale.ticks[1:], strict=False)}
    assert len(gaps) == 1 and str(gaps.pop()).strip("0.")[0] in "125"


@pytest.mark.parametrize(
    "values", [[0.5, 0.5], [0.0], [1e-12, 1e-12], [0.0, 1e-9], [-0.8, -0.8 + 1e-7], [100.0] * 3, [1e-5, 3e-5]]
)
def test_no_two_ticks_look_alike(values: list[float]) -> None:
    scale = Scale.around(values)
    told = [f"{tick:.{scale.digits}f}" for tick in scale.ticks]
    assert len(set(told)) == len(told) and scale.low <= min(values) <= max(values) <= scale.high


def test_a_place_is_the_share_of_the_range() -> None:
    assert Scale(0.2, 0.6, ()).at(0.3) == pytest.approx(25)


@pytest.mark.parametrize(("ticks", "digits"), [((0.0, 0.25, 0.5), 2), ((0.0, 0.5, 1.0), 1), ((0.0, 20.0), 0)])
def test_ticks_are_written_with_the_digits_they_need(ticks: tuple[float, ...], digits: int) -> None:
    assert Scale(ticks[0], ticks[-1], ticks).digits == digits


def test_smoothing_is_the_mean_around_each_point() -> None:
    points = [(0.0, 1.0), (1.0, 4.0), (2.0, 7.0), (3.0, 1.0)]
    assert charts.smooth(points, 3) == [(0, 1), (1, 4), (2, 4), (3, 1)]


def test_a_straight_line_stays_where_it_is_when_smoothed() -> None:
    line = [(float(x), 2.0 * x) for x in range(50)]
    assert [y for _, y in charts.smooth(line, 9)] == pytest.approx([y for _, y in line])


def test_thinning_keeps_the_one_spike_of_a_long_run() -> None:
    points = [(float(step), 0.5) for step in range(20_000)]
    points[13_131] = (13_131.0, 9.0)
    thinned = charts.thin(points)
    assert len(thinned) <= charts.MOST_POINTS
    assert max(thinned, key=lambda point: point[1]) == (13_131.0, 9.0)
    assert thinned == sorted(thinned)


def test_the_kept_checkpoint_is_marked_at_its_place() -> None:
    drawing = charts.loss_curves([(1, 2.0), (100, 1.0)], [(0, 2.0), (50, 1.2), (100, 1.4)], best_step=50)
    assert re.findall(r'class="dev-best" cx="([\d.]+)%"', drawing) == ["50.00"]
    assert "best 1.200" in drawing


def test_an_arm_is_drawn_at_its_mean_between_the_ends_of_its_interval() -> None:
    scale = Scale(0.0, 1.0, (0.0, 1.0))
    row = charts.forest_row(0.5, (0.4, 0.7), scale=scale, compared=0.45, kind="tuned", label="fine-tuned: 50.0")
    assert 'x1="40.00%" x2="70.00%"' in row
    assert '<svg x="50.00%" y="50%" overflow="visible"><path' in row
    assert 'class="compared" x1="45.00%"' in row


def test_shares_fill_the_bar_in_proportion_and_nothing_is_drawn_for_none() -> None:
    bar = charts.shares(
        "counts", "Answers", [Share("fixed", "solid", 3), Share("same", "faint", 0), Share("broken", "hatched", 1)]
    )
    assert re.findall(r'<rect class="(\w+)" x="([\d.]+)%" width="([\d.]+)%"', bar) == [
        ("solid", "0.000", "75.000"),
        ("hatched", "75.000", "25.000"),
    ]


@pytest.mark.parametrize(
    "drawing",
    [
        charts.loss_curves([(1, 2.0), (2, 1.0)], [(2, 1.5)], best_step=2),
        charts.shares("splits", "A <title> & more", [Share("<train>", "solid", 1)]),
        charts.difference(0.1, (-0.1, 0.3), margin=0.02, words=("a", "b", "c"), title="<t>", description="a & b"),
    ],
)
def test_a_drawing_is_well_formed_and_told_in_words(drawing: str) -> None:
    root = ElementTree.fromstring(drawing)
    title, description = root[0], root[1]
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text and description.text
