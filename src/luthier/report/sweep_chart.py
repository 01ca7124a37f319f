"""A sweep's chart: scores over amounts of data, or side by side where there is one amount. One SVG, alone or in a page.

Sizes are fixed and colours stand in one style block, so that the file can go into a document or a slide. Series differ by
colour, by dash and by the shape of their marks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from luthier.report.charts import Scale

WIDTH, HEIGHT = 880, 460
LEFT, RIGHT, TOP, BOTTOM = 62, 190, 26, 66
GAP = 17  # pixels between two lines of labels, at least

_LIGHT = ("#8a4a1c", "#27567f", "#1b6343", "#7a2f6b", "#6b5716", "#a02d1c")
_DARK = ("#e0a06c", "#8fbde8", "#7dcb9f", "#d79fcb", "#dcc272", "#f09683")
_DASHES = ("none", "9 4", "3 3", "12 3 3 3", "6 2", "1 4")


def _colours(colours: Sequence[str]) -> str:
    """A rule for each series; plain colours, since not every program that opens an SVG knows variables."""
    return "\n".join(
        f".curve .s{number} .line, .curve .s{number} .whisker {{ stroke: {colour}; }} "
        f".curve .s{number} .mark, .curve .name.s{number} {{ fill: {colour}; }}"
        for number, colour in enumerate(colours)
    )


STYLE = f"""
.curve text {{ fill: #5f574c;
  font: 400 13px ui-sans-serif, system-ui, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif; }}
.curve .ground {{ fill: #fcfbf8; }} .curve .rule {{ stroke: #e6e0d5; }} .curve .axis {{ stroke: #5f574c; }}
.curve .name {{ font-weight: 700; }} .curve .strong {{ fill: #1f1b16; }}
.curve .line, .curve .whisker {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}
.curve .prompt {{ stroke: #5f574c; stroke-width: 1.5; stroke-dasharray: 2 4; }}
.curve .band {{ fill: #8f867a; opacity: .16; }}
{_colours(_LIGHT)}
{" ".join(f".s{number} .line {{ stroke-dasharray: {dash}; }}" for number, dash in enumerate(_DASHES))}
"""
DARK = f"""
@media screen and (prefers-color-scheme: dark) {{
  .curve text {{ fill: #aea596; }} .curve .ground {{ fill: #181613; }} .curve .rule {{ stroke: #2c2822; }}
  .curve .axis, .curve .prompt {{ stroke: #aea596; }} .curve .strong {{ fill: #ece6db; }}
  {_colours(_DARK)}
}}
"""
MARKS = ("M0-6 6 0 0 6-6 0z", "M-5-5H5V5H-5z", "M0-6 6 5H-6z", "M0 6-6-5H6z", "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2z")
_CIRCLE = "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z"


@dataclass(frozen=True)
class Spot:
    """A score at a horizontal position: a number of training rows, or a column's number where there is one column a series."""

    at: float
    mean: float
    interval: tuple[float, float]
    label: str


@dataclass(frozen=True)
class Series:
    """Points that belong together; with one of them there is no line."""

    name: str
    spots: Sequence[Spot]


@dataclass(frozen=True)
class Level:
    """A horizontal line: the best prompt, which does not depend on the amount of data, with its interval."""

    name: str
    mean: float
    interval: tuple[float, float]


def draw(
    series: Sequence[Series],
    levels: Sequence[Level],
    *,
    y_title: str,
    x_title: str,
    description: str,
    factor: float = 1.0,
) -> Markup:
    """The chart over training rows, each doubling equally wide; where every series has one spot, a column for each series."""
    categories = all(len(each.spots) == 1 for each in series)
    values = [value * factor for each in series for spot in each.spots for value in (spot.mean, *spot.interval)]
    values += [value * factor for level in levels for value in (level.mean, *level.interval)]
    y = _Vertical(Scale.around(values, ticks=5), factor)
    x_of = _columns(series) if categories else _doublings(series)
    parts = [f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>', *_rules(y)]
    parts.append(_text(LEFT - 46, 14, y_title, anchor="start"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 10, x_title, anchor="end"))
    parts += _labels_below(series, x_of)
    labels = []
    for level in levels:
        parts += _level(level, y)
        labels.append((y.at(level.mean), level.name, "strong"))
    for number, each in enumerate(series):
        style = f"s{number % 6}"
        parts.append(f'<g class="{style}">{"".join(_series(each, number, x_of, y))}</g>')
        if not categories:
            labels.append((y.at(each.spots[-1].mean), each.name, f"name {style}"))
    parts += _at_the_right(labels)
    heading = f'<title id="curve-title">{escape(y_title)} over {escape(x_title)}</title>'
    heading += f'<desc id="curve-desc">{escape(description)}</desc>'
    return Markup(
        f'<svg class="curve" xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="curve-title curve-desc" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}">{heading}{"".join(parts)}</svg>'
    )


def standalone(drawn: Markup) -> str:
    """The drawing as a file of its own, with its colours in it."""
    start, rest = str(drawn).split(">", 1)
    size = f' width="{WIDTH}" height="{HEIGHT}"'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{start}{size}><style>{STYLE}</style>{rest}\n'


@dataclass(frozen=True)
class _Vertical:
    """Scores to pixels; `factor` makes points of shares."""

    scale: Scale
    factor: float

    def at(self, value: float) -> float:
        """The y of a score, in pixels."""
        return self.at_tick(value * self.factor)

    def at_tick(self, tick: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - self.scale.at(tick) / 100)


def _columns(series: Sequence[Series]) -> dict[float, float]:
    """Column number (0, 1, 2 …) → x in pixels, one column for each series."""
    width = WIDTH - LEFT - RIGHT
    return {each.spots[0].at: LEFT + width * (number + 0.5) / len(series) for number, each in enumerate(series)}


def _doublings(series: Sequence[Series]) -> dict[float, float]:
    """Training rows → x in pixels, each doubling equally wide."""
    rows = sorted({spot.at for each in series for spot in each.spots})
    low, high = math.log2(rows[0]), math.log2(rows[-1])
    inner, start = WIDTH - LEFT - RIGHT - 36, LEFT + 18
    return {count: start + inner * (math.log2(count) - low) / ((high - low) or 1) for count in rows}


def _rules(y: _Vertical) -> list[str]:
    parts = []
    for tick in y.scale.ticks:
        height = y.at_tick(tick)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(_text(LEFT - 10, height + 4.5, f"{tick:.{y.scale.digits}f}", anchor="end"))
    base = HEIGHT - BOTTOM
    return [*parts, f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>']


def _labels_below(series: Sequence[Series], x_of: dict[float, float]) -> list[str]:
    """The labels under the axis. From right to left, those that would touch the one before are left out."""
    labels = {spot.at: spot.label for each in series for spot in each.spots}
    shown: list[str] = []
    free = math.inf
    for at in sorted(x_of, reverse=True):
        half_width = 3.6 * max(len(line) for line in labels[at].split("\n"))
        if x_of[at] + half_width > free:
            continue
        free = x_of[at] - half_width - 6
        for number, line in enumerate(labels[at].split("\n")):
            style = "strong" if number == 0 else ""
            shown.append(_text(x_of[at], HEIGHT - BOTTOM + 20 + GAP * number, line, style, anchor="middle"))
    return shown


def _level(level: Level, y: _Vertical) -> list[str]:
    high, low = y.at(level.interval[1]), y.at(level.interval[0])
    top, bottom = min(high, low), max(high, low)
    span = f'x="{LEFT}" width="{WIDTH - LEFT - RIGHT}"'
    line = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.at(level.mean):.1f}" y2="{y.at(level.mean):.1f}"'
    return [
        f'<rect class="band" {span} y="{top:.1f}" height="{bottom - top:.1f}"/>',
        f'<line class="prompt" {line}/>',
    ]


def _series(series: Series, number: int, x_of: dict[float, float], y: _Vertical) -> list[str]:
    spots = sorted(series.spots, key=lambda spot: spot.at)
    path = " ".join(f"{x_of[spot.at]:.1f},{y.at(spot.mean):.1f}" for spot in spots)
    parts = [f'<polyline class="line" points="{path}"/>'] if len(spots) > 1 else []
    mark = (_CIRCLE, *MARKS)[number % 6]
    for spot in spots:
        x, (low, high) = x_of[spot.at], (y.at(end) for end in spot.interval)
        parts.append(
            f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 6:.1f} {low:.1f}h12M{x - 6:.1f} {high:.1f}h12"/>'
        )
        parts.append(f'<path class="mark" transform="translate({x:.1f} {y.at(spot.mean):.1f})" d="{mark}"/>')
        value = f"{spot.mean * y.factor:.1f}" if y.factor != 1 else f"{spot.mean:.3f}"
        parts.append(_text(x + 11, y.at(spot.mean) - 8, value, "strong", anchor="start"))
    return parts


def _at_the_right(labels: Sequence[tuple[float, str, str]]) -> list[str]:
    """Names beside the ends of their lines, moved apart where they would lie on each other."""
    parts = []
    height = -math.inf
    for wanted, name, style in sorted(labels):
        height = max(wanted, height + GAP)
        parts.append(_text(WIDTH - RIGHT + 14, height + 4.5, _short(name), style, anchor="start"))
    return parts


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"


def _text(x: float, y: float, text: str, style: str = "", *, anchor: str) -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
