"""How scores are written, and what metrics are called."""

from dataclasses import dataclass

from luthier.report.formatting import DASH, signed
from luthier.report.run_contents import WHOLE_TEXT, Verdict

METRICS = {
    "accuracy": ("accuracy", "choosing a label"),
    "exact_match": ("exact match", "answering questions"),
    "field_accuracy": ("field accuracy", "writing JSON"),
    "json_valid": ("valid JSON", "writing JSON"),
    "tool_call": ("right calls", "calling functions"),
    "tool_name": ("right functions", "calling functions"),
    "schema_valid": ("keeps to the schema", "writing JSON"),
    "similarity": ("similarity of meaning", "answering questions"),
    "number": ("right number", "giving numbers"),
    "normalised_match": ("normalised match", "answering questions"),
    "token_f1": ("token F1", "answering questions"),
    "rouge_l": ("ROUGE-L", "answering questions"),
    "chrf": ("chrF", "answering questions"),
    WHOLE_TEXT: ("bits per byte", "continuing documents"),
}
"""Metric → its name for readers, and the task that it is used for."""


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
