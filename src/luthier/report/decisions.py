"""How sure the tuned model is of labels, before and after calibration: evaluation/decisions.json as typed values."""

from dataclasses import dataclass
from pathlib import Path

from luthier.report import json_fields
from luthier.report.formatting import plural, signed
from luthier.report.json_fields import JsonObject

SCORES = (
    ("Brier score", "brier"),
    ("calibration error", "calibration_error"),
    ("log loss", "log_loss"),
    ("right", "accuracy"),
)


@dataclass(frozen=True)
class Bin:
    """Decisions of like confidence: how many, how sure on the average, and what share is right."""

    n: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Decisions:
    """What the probabilities of labels are worth on test, as the model gives them and at the temperature from dev."""

    answers: int
    temperature: float
    dev: int
    n: int
    rows: tuple[tuple[str, str, str], ...]
    """A score's name, its value before and after."""
    before: tuple[Bin, ...]
    after: tuple[Bin, ...]
    sentence: str


def read(folder: Path) -> Decisions | None:
    """Of a run's evaluation/ folder; None where answers are no labels, or the run has not come so far."""
    values = json_fields.read_json_object(folder / "decisions.json")
    before, after = values.get("before"), values.get("after")
    temperature = json_fields.number(values, "temperature")
    if not isinstance(before, dict) or not isinstance(after, dict) or temperature is None:
        return None
    n, dev = json_fields.count(after, "n") or 0, json_fields.count(values, "dev") or 0
    rows = tuple((name, _shown(before, key), _shown(after, key)) for name, key in SCORES)
    answers = len(values.get("answers") or ())
    return Decisions(
        answers, temperature, dev, n, rows, _bins(before), _bins(after), _sentence(values, answers, temperature, dev, n)
    )


def _sentence(values: JsonObject, answers: int, temperature: float, dev: int, n: int) -> str:
    """What was measured, in words."""
    head = f"A probability for each of {answers} allowed answers, from likelihoods, on {plural(n, 'test question')}."
    mass = json_fields.number(values, "allowed_mass") or 0.0
    if mass < 0.5:
        head += f" The model gives all of them together {100 * mass:.1f} % only: it would often say something else."
    if not dev:
        return f"{head} Too few dev questions to fit a temperature: the probabilities are the model's own."
    manner = "too sure" if temperature > 1 else "not sure enough"
    interval = json_fields.interval(values.get("change"))
    change = f" The Brier score moves by {signed(interval[0], 3)} to {signed(interval[1], 3)}." if interval else ""
    return (
        f"{head} By {plural(dev, 'dev question')} the model was {manner}: its probabilities are taken at temperature "
        f"{temperature:.2f}.{change}"
    )


def _shown(values: JsonObject, key: str) -> str:
    value = json_fields.number(values, key)
    assert value is not None, key
    return f"{100 * value:.1f} %" if key in ("accuracy", "calibration_error") else f"{value:.3f}"


def _bins(values: JsonObject) -> tuple[Bin, ...]:
    return tuple(
        Bin(
            json_fields.count(each, "n") or 0,
            json_fields.number(each, "confidence") or 0.0,
            json_fields.number(each, "right") or 0.0,
        )
        for each in values.get("bins") or ()
    )
