"""Numbers, units and names as readers meet them, the same on the page, in the Markdown and in the drawings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from luthier.report.evidence import WHOLE_TEXT, Verdict
from luthier.report.figures import DASH, signed

METRICS = {
    "accuracy": ("accuracy", "choosing a label"),
    "exact_match": ("exact match", "answering questions"),
    "field_accuracy": ("field accuracy", "writing JSON"),
    "json_valid": ("valid JSON", "writing JSON"),
    "number": ("right number", "giving numbers"),
    "normalised_match": ("normalised match", "answering questions"),
    "token_f1": ("token F1", "answering questions"),
    "rouge_l": ("ROUGE-L", "answering questions"),
    "chrf": ("chrF", "answering questions"),
    WHOLE_TEXT: ("bits per byte", "continuing documents"),
}
"""Metric → its name for readers, and the task that it speaks of."""


@dataclass(frozen=True)
class Unit:
    """How scores are written: shares of 1 as points of 100, other measures as they are."""

    factor: float
    digits: int
    name: str

    def score(self, value: float) -> str:
        return signed(value * self.factor, self.digits).removeprefix("+")

    def signed(self, value: float) -> str:
        return signed(value * self.factor, self.digits)

    def interval(self, ends: tuple[float, float]) -> str:
        return f"{self.score(ends[0])} {DASH} {self.score(ends[1])}"


POINTS = Unit(100, 1, " points")
BITS = Unit(1, 3, " bits per byte")


def unit_of(verdict: Verdict | None) -> Unit:
    """Points of 100 for scores between 0 and 1 where higher is better; else the measure's own numbers."""
    plain = verdict is not None and (verdict.metric == WHOLE_TEXT or not verdict.higher_is_better)
    return BITS if plain else POINTS


def metric_name(metric: str) -> str:
    return METRICS[metric][0] if metric in METRICS else metric.rpartition(":")[2].replace("_", " ")


def visible_effect(verdict: Verdict, unit: Unit) -> str:
    """The smallest visible effect with its unit; empty where none was measured (0 is none) or none could be seen."""
    effect = verdict.smallest_visible_effect
    if not effect or (unit is POINTS and effect >= 1):
        return ""
    least = 10.0**-unit.digits
    return f"{unit.score(effect)}{unit.name}" if effect * unit.factor >= least else f"{least:g}{unit.name}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """3 h 05 min, 14 min 02 s, 9 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def gigabytes(count: float) -> str:
    """3.42 GB."""
    return f"{count / 1e9:.2f} GB"


def moment(text: str) -> str:
    """24 November 2026, 13:03 UTC; as it stands where it is not a time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    time = time.astimezone(UTC) if time.tzinfo else time
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def rounded(count: int) -> str:
    """135 M, 1.24 B, 999."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= 0.9995 * size and count >= 1000:
            return f"{count / size:.3g} {letter}"
    return str(count)


def or_dash(value: float | int | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def p_value(value: float | None) -> str:
    """0.0213, 0.41, < 0.0001."""
    if value is None:
        return DASH
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
