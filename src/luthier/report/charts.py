"""The report's drawings as inline SVG: pure functions from numbers to markup, coloured by the page's style sheet.

Horizontal positions are percentages of the width, and curves are in a nested, stretched `<svg>`. So a drawing fills a
phone and a sheet of paper alike while letters and strokes keep their size, without a script. Each drawing has a title and
a description for readers who cannot see it; nothing is shown by colour alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from markupsafe import Markup, escape

Point = tuple[float, float]
ArmKind = Literal["prompt", "chosen", "tuned"]

MOST_POINTS = 600
"""Points of a curve that a page can show; more are thinned, extremes kept."""

FINEST = 1e-4
"""Smallest distance of two ticks, since they are written with four digits at most."""


@dataclass(frozen=True)
class Scale:
    """A range with round ends and the round values between them."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Sequence[float], *, ticks: int = 4) -> "Scale":
        """The tightest round range that holds all values, with about `ticks` divisions that four digits tell apart."""
        low, high = min(values), max(values)
        if high - low < ticks * FINEST:
            half_range = max(0.1 * abs(low), ticks * FINEST) if low or high else 0.5
            low, high = low - half_range, high + half_range
        step = _round_step((high - low) / ticks)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        marks = tuple(round(number * step, 12) for number in range(first, last + 1))
        return cls(marks[0], marks[-1], marks)

    @classmethod
    def steps(cls, last: int, *, ticks: int = 5) -> "Scale":
        """From 0 to exactly `last`, with round ticks: the axis of optimizer steps."""
        step = max(1.0, _round_step(last / ticks))
        return cls(0, max(last, 1), tuple(number * step for number in range(int(last / step) + 1)))

    @property
    def digits(self) -> int:
        """Decimals that write every tick exactly, at most 4."""
        return next(digits for digits in range(5) if digits == 4 or all(round(t, digits) == t for t in self.ticks))

    def at(self, value: float) -> float:
        """Where a value lies, in per cent of the range."""
        return 100 * (value - self.low) / (self.high - self.low)


def smooth(points: Sequence[Point], window: int) -> list[Point]:
    """Mean over `window` points around each one, fewer at both ends: it neither lags behind nor starts late."""
    sums = list(accumulate((y for _, y in points), initial=0.0))
    half = window // 2
    result = []
    for number, (x, _) in enumerate(points):
        beside = min(half, number, len(points) - 1 - number)
        result.append((x, (sums[number + beside + 1] - sums[number - beside]) / (2 * beside + 1)))
    return result


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: of each stretch the lowest and the highest, so that no spike disappears."""
    if len(points) <= most:
        return list(points)
    stretches = most // 2
    kept: list[Point] = []
    for number in range(stretches):
        stretch = points[len(points) * number // stretches : len(points) * (number + 1) // stretches]
        ends = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def loss_curves(train: Sequence[Point], dev: Sequence[Point], *, best_step: int | None) -> Markup:
    """Train loss (each step and smoothed) and dev loss over optimizer steps, the kept checkpoint marked."""
    window = max(3, len(train) // 25)
    soft = smooth(train, window)
    shown = [loss for _, loss in [*train, *dev]]
    x, y = Scale.steps(max(int(step) for step, _ in [*train, *dev])), Scale.around(shown, ticks=5)
    height = 280
    parts = [
        *(_horizontal(y, tick, height) for tick in y.ticks),
        *(_below(x.at(tick), f"{tick:,.0f}", height) for tick in x.ticks),
        _words("100%", height + 38, "optimizer step", "axis-name", anchor="end"),
        f'<svg class="stretched" width="100%" height="{height}" viewBox="0 0 100 100" preserveAspectRatio="none">',
        _line(thin(train), x, y, "train-raw"),
        _line(thin(soft), x, y, "train-smooth"),
        _line(dev, x, y, "dev-line"),
        "</svg>",
    ]
    for step, loss in dev:
        kept = step == best_step
        parts.append(
            _dot(x.at(step), height * (1 - y.at(loss) / 100), 5.5 if kept else 3, "dev-best" if kept else "dev-dot")
        )
        if kept:
            parts.append(_callout(x.at(step), height * (1 - y.at(loss) / 100), f"best {loss:.3f}"))
    sentences = []
    if train:
        sentences.append(
            f"Training loss from {train[0][1]:.3f} to {soft[-1][1]:.3f} (smoothed) over {len(train)} steps."
        )
    if dev:
        sentences.append(f"Dev loss: {', '.join(f'{loss:.3f} at step {step:,.0f}' for step, loss in dev[-12:])}.")
    return _drawing("loss", "Loss while training", " ".join(sentences), height, parts)


def reliability(before: Sequence[Point], after: Sequence[Point]) -> Markup:
    """Share of right decisions over confidence, both from 0 to 1; on the diagonal probabilities mean what they say."""
    scale, height = Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0)), 220
    parts = [
        *(_horizontal(scale, tick, height) for tick in scale.ticks),
        *(_below(scale.at(tick), f"{tick:.2f}", height) for tick in scale.ticks),
        _words("100%", height + 38, "how sure", "axis-name", anchor="end"),
        f'<svg class="stretched" width="100%" height="{height}" viewBox="0 0 100 100" preserveAspectRatio="none">',
        _line([(0.0, 0.0), (1.0, 1.0)], scale, scale, "train-raw"),
        _line(before, scale, scale, "dev-line"),
        _line(after, scale, scale, "train-smooth"),
        "</svg>",
        *(_dot(scale.at(x), height * (1 - y), 3, "dev-dot") for x, y in before),
        *(_dot(scale.at(x), height * (1 - y), 4, "dev-best") for x, y in after),
    ]
    listed = ", ".join(f"{y:.2f} right where {x:.2f} sure" for x, y in after)
    return _drawing("reliability", "Right answers over confidence", f"After calibration: {listed}.", height, parts)


def forest_scale(arms: Sequence[tuple[float, tuple[float, float] | None]]) -> Scale:
    """One scale for the arms' means and intervals, so that the rows of the table can be compared."""
    return Scale.around([value for mean, interval in arms for value in (mean, *(interval or ()))])


def forest_row(
    mean: float,
    interval: tuple[float, float] | None,
    *,
    scale: Scale,
    compared: float | None,
    kind: ArmKind,
    label: str,
) -> Markup:
    """One arm: mean and interval, with the grid behind and a dashed line at the mean of the best prompt arm."""
    parts = [_vertical(scale.at(tick), "grid") for tick in scale.ticks]
    if compared is not None:
        parts.append(_vertical(scale.at(compared), "compared"))
    if interval is not None:
        low, high = (scale.at(end) for end in interval)
        parts.append(f'<line class="whisker {kind}" x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%"/>')
        for end in (low, high):
            parts.append(_at(end, "50%", f'<line class="whisker {kind}" y1="-5" y2="5"/>'))
    shape = '<path d="M0-8 8 0 0 8-8 0z"' if kind == "tuned" else '<circle r="5.5"'
    parts.append(_at(scale.at(mean), "50%", f'{shape} class="mean {kind}"/>'))
    return Markup(f'<svg class="forest" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>')


def forest_axis(scale: Scale, words: Sequence[str]) -> Markup:
    """The ticks' values, under the rows; one word for each tick."""
    parts = [
        _words(f"{scale.at(tick):.2f}%", 14, word, anchor="middle")
        for tick, word in zip(scale.ticks, words, strict=True)
    ]
    return Markup(f'<svg class="forest-axis" aria-hidden="true">{"".join(parts)}</svg>')


def difference(
    value: float,
    interval: tuple[float, float],
    *,
    margin: float | None,
    words: tuple[str, str, str],
    title: str,
    description: str,
) -> Markup:
    """The planned comparison on one line: interval, zero, and the zone of differences too small to matter.

    Right of zero the fine-tuned model is better. `words` name low end, difference and high end.
    """
    low, high = interval
    half_range = max(abs(low), abs(high), 1.6 * (margin or 0.0)) * 1.18 or 1.0
    scale = Scale(-half_range, half_range, (0.0,))
    parts = []
    if margin is not None:
        left, right = scale.at(-margin), scale.at(margin)
        parts.append(f'<rect class="margin" x="{left:.2f}%" width="{right - left:.2f}%" y="26" height="40"/>')
    parts += [
        '<line class="base-line" x1="0" x2="100%" y1="66" y2="66"/>',
        '<line class="zero" x1="50%" x2="50%" y1="20" y2="72"/>',
        _words("50%", 88, "no difference", "axis-name", anchor="middle"),
        _words("0", 88, "← prompt better", "axis-name", anchor="start"),
        _words("100%", 88, "fine-tuned better →", "axis-name", anchor="end"),
        f'<line class="whisker tuned thick" x1="{scale.at(low):.2f}%" x2="{scale.at(high):.2f}%" y1="46" y2="46"/>',
        *(_at(scale.at(end), "46", '<line class="whisker tuned thick" y1="-8" y2="8"/>') for end in interval),
        _at(scale.at(value), "46", '<path class="mean tuned" d="M0-10 10 0 0 10-10 0z"/>'),
        _words(f"{scale.at(value):.2f}%", 18, words[1], "value strong", anchor=_anchor(scale.at(value))),
    ]
    far = abs(scale.at(high) - scale.at(low)) > 34
    if far:
        parts.append(_words(f"{scale.at(low):.2f}%", 18, words[0], "value", anchor="middle"))
        parts.append(_words(f"{scale.at(high):.2f}%", 18, words[2], "value", anchor="middle"))
    return _drawing("difference", title, description, 96, parts)


class Share(NamedTuple):
    """A part of a whole: its bar is `solid`, `half`, `faint` or `hatched`."""

    label: str
    style: str
    size: int


def shares(name: str, title: str, parts: Sequence[Share]) -> Markup:
    """Parts of a whole as one bar; the numbers stand in the page's text beside it."""
    total = sum(part.size for part in parts) or 1
    drawn, start = [], 0.0
    for part in parts:
        width = 100 * part.size / total
        if width:
            drawn.append(f'<rect class="{part.style}" x="{start:.3f}%" width="{width:.3f}%" height="22"/>')
            if part.style == "hatched":
                drawn.append(f'<rect fill="url(#{name}-hatch)" x="{start:.3f}%" width="{width:.3f}%" height="22"/>')
        start += width
        if 0 < start < 99.99 and width:
            drawn.append(f'<line class="gap" x1="{start:.3f}%" x2="{start:.3f}%" y2="22"/>')
    hatch = (
        f'<defs><pattern id="{name}-hatch" width="6" height="6" '
        'patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<line class="hatch" y2="6" x1="1" x2="1"/></pattern></defs>'
    )
    description = ", ".join(f"{part.label} {part.size:,}" for part in parts)
    return _drawing(name, title, description, 22, [hatch, *drawn])


def share_bar(share: float, *, limit: float | None, label: str) -> Markup:
    """One share of a whole as a bar, with a mark at the least that is allowed."""
    parts = [
        '<rect class="faint" width="100%" height="100%"/>',
        f'<rect class="solid" width="{100 * share:.2f}%" height="100%"/>',
    ]
    if limit is not None and limit < 1:
        parts.append(f'<line class="limit" x1="{100 * limit:.2f}%" x2="{100 * limit:.2f}%" y1="0" y2="100%"/>')
    return Markup(f'<svg class="share" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>')


def histogram(name: str, title: str, bins: Sequence[tuple[int, int]]) -> Markup:
    """Bars of equal width, each with the values up to its edge; what is not zero is seen. The last one has all the rest."""
    height, width = 96, 100 / (len(bins) or 1)
    top = max((count for _, count in bins), default=0) or 1
    parts = ['<line class="base-line" x1="0" x2="100%" y1="96" y2="96"/>']
    for number, (_, count) in enumerate(bins):
        bar = max(1.5, height * count / top) if count else 0.0
        parts.append(
            f'<rect x="{(number + 0.1) * width:.2f}%" width="{0.8 * width:.2f}%" y="{height - bar:.1f}" height="{bar:.1f}"/>'
        )
    if bins:
        parts.append(_words("0", height + 16, "0", anchor="start"))
        parts.append(_words("100%", height + 16, f"{bins[-1][0]:,} and more", anchor="end"))
    description = ", ".join(f"up to {edge:,}: {count:,}" for edge, count in bins if count)
    return _drawing(name, title, description, height + 22, parts)


def _round_step(step: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))


def _drawing(name: str, title: str, description: str, height: int, parts: Sequence[str]) -> Markup:
    """An accessible SVG as wide as its container."""
    head = (
        f'<svg class="drawing" role="img" aria-labelledby="{name}-title {name}-desc" width="100%" height="{height}">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    )
    return Markup(head + "".join(parts) + "</svg>")


def _line(points: Sequence[Point], x: Scale, y: Scale, style: str) -> str:
    if len(points) < 2:
        return ""
    path = " ".join(f"{x.at(a):.2f},{100 - y.at(b):.2f}" for a, b in points)
    return f'<polyline class="{style}" points="{path}"/>'


def _dot(percent: float, y: float, radius: float, style: str) -> str:
    return f'<circle class="{style}" cx="{percent:.2f}%" cy="{y:.1f}" r="{radius}"/>'


def _callout(percent: float, y: float, text: str) -> str:
    """A short word over a point, kept inside the drawing."""
    return _words(f"{percent:.2f}%", y - 13, text, "value strong halo", anchor=_anchor(percent))


def _at(percent: float, y: str, content: str) -> str:
    """Content whose origin lies at a percentage of the width: a nested SVG can be put there, a path cannot."""
    return f'<svg x="{percent:.2f}%" y="{y}" overflow="visible">{content}</svg>'


def _horizontal(scale: Scale, tick: float, height: int) -> str:
    y = height * (1 - scale.at(tick) / 100)
    label = _words("-8", y + 4, f"{tick:.{scale.digits}f}", anchor="end")
    return f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>{label}'


def _below(percent: float, text: str, height: int) -> str:
    return _words(f"{percent:.2f}%", height + 18, text, anchor="middle")


def _vertical(percent: float, style: str) -> str:
    return f'<line class="{style}" x1="{percent:.2f}%" x2="{percent:.2f}%" y1="0" y2="100%"/>'


def _words(x: str, y: float, text: str, style: str = "", *, anchor: str) -> str:
    return f'<text class="{style}" x="{x}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _anchor(percent: float) -> str:
    """The anchor with which a label at this percentage stays inside the drawing."""
    return "start" if percent < 8 else "end" if percent > 92 else "middle"
