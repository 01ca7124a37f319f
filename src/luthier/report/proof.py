"""What stands beside the verdict: plan, other comparisons, leakage, guards, errors, a judge's opinion, as typed values.

Each comes from a file of its own in evaluation/, and a run that has not come so far, or an older one, lacks it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.report import fields
from luthier.report.fields import Fields
from luthier.report.figures import DASH, signed

UNDECIDED, PASSED, FAILED = "?", "✓", "✗"


@dataclass(frozen=True)
class Seal:
    """The plan that was frozen before the test questions were opened, and what was done otherwise."""

    sha256: str
    frozen: str
    test_opened: int
    deviations: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Fine-tuned against an arm that the verdict is not about; `adjusted` is the p-value after Holm's correction."""

    arm: str
    word: str
    difference: float
    interval: tuple[float, float] | None
    adjusted: float | None


@dataclass(frozen=True)
class Guard:
    """One check for harm; values are in the check's own unit, written out."""

    title: str
    mark: str
    word: str
    base: str
    tuned: str
    change: str
    sentence: str
    examples: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class ErrorKind:
    """How often one kind of error was made before and after, and what to change in the data."""

    name: str
    meaning: str
    base: int | None
    tuned: int | None
    mended: int | None
    new: int | None
    advice: str
    places: tuple[str, ...]
    """Where the tuned model's errors of this kind are, and the training rows nearest to the first of them."""


@dataclass(frozen=True)
class Benchmark:
    """One metric of one public task, before and after."""

    task: str
    metric: str
    items: int
    base: str
    tuned: str
    change: str
    word: str


@dataclass(frozen=True)
class Proof:
    """All of it."""

    seal: Seal | None
    comparisons: tuple[Comparison, ...]
    excluded: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    leakage: Fields
    guards: tuple[Guard, ...]
    errors: tuple[ErrorKind, ...]
    errors_sentence: str
    opinion: str
    benchmarks: tuple[Benchmark, ...]


def read(folder: Path, verdict: Fields) -> Proof:
    """What the run's evaluation/ folder holds of it."""
    evaluation = folder / "evaluation"
    errors = fields.json_object(evaluation / "errors.json")
    bench = fields.json_object(evaluation / "benchmarks.json")
    return Proof(
        seal=_seal(verdict.get("plan") or {}),
        comparisons=tuple(_comparison(each) for each in verdict.get("secondary") or ()),
        excluded=tuple((fields.text(each, "arm"), fields.text(each, "why")) for each in verdict.get("excluded") or ()),
        notes=tuple(map(str, verdict.get("notes") or ())),
        leakage=verdict.get("leakage") or {},
        guards=tuple(
            _guard(each) for each in fields.json_object(evaluation / "guards.json").get("guards") or () if each
        ),
        errors=tuple(found for each in errors.get("categories") or () if (found := _error(each))),
        errors_sentence=fields.text(errors, "sentence"),
        opinion=fields.text(fields.json_object(evaluation / "judge.json"), "sentence"),
        benchmarks=tuple(
            _benchmark(task, metric) for task in bench.get("tasks") or () for metric in task.get("metrics") or ()
        ),
    )


def leaked(leakage: Fields) -> str:
    """What the split let through, in a sentence; empty where no test row has a relative in train or dev."""
    words = {
        "exact": "copied whole",
        "question": "with the same question",
        "near": "nearly the same",
        "group": "of a learnt group",
    }
    counts = {kind: fields.count(leakage, kind) or 0 for kind in words}
    if not leakage:
        return ""
    if not any(counts.values()):
        return f"None of {fields.count(leakage, 'of'):,} test rows has a copy or a near copy in train or dev."
    listed = ", ".join(f"{count:,} {words[kind]}" for kind, count in counts.items() if count)
    return f"Of {fields.count(leakage, 'of'):,} test rows, training or choosing has seen {listed}."


def _seal(values: Fields) -> Seal | None:
    if not values:
        return None
    deviations = tuple(fields.text(each, "sentence") for each in values.get("deviations") or ())
    return Seal(
        fields.text(values, "sha256"),
        fields.text(values, "frozen"),
        fields.count(values, "test_opened") or 0,
        deviations,
    )


def _comparison(values: Fields) -> Comparison:
    return Comparison(
        arm=fields.text(values, "arm"),
        word=fields.text(values, "word"),
        difference=fields.number(values, "difference") or 0.0,
        interval=fields.interval(values.get("interval")),
        adjusted=fields.number(values, "adjusted_p_value"),
    )


def _guard(values: Fields) -> Guard:
    unit = {"percent": " %", "points": ""}.get(fields.text(values, "unit"), " " + fields.text(values, "unit"))
    interval = fields.interval(values.get("interval"))
    difference = fields.number(values, "difference")
    change = DASH if difference is None else f"{signed(difference, 1)}{unit}"
    tuned = _measured(values, "fine_tuned", unit)
    if interval and fields.text(values, "word").endswith("LIMIT"):  # what counts is the value after, not its change
        tuned += f" [{interval[0]:.1f}, {interval[1]:.1f}]"
    elif interval and difference is not None:
        change += f" [{signed(interval[0], 1)}, {signed(interval[1], 1)}]"
    passed = values.get("passed")
    return Guard(
        title=fields.text(values, "title"),
        mark=UNDECIDED if passed is None else PASSED if passed else FAILED,
        word=fields.text(values, "word"),
        base=_measured(values, "base", unit),
        tuned=tuned,
        change=change.replace("-", "\N{MINUS SIGN}"),
        sentence=fields.text(values, "sentence"),
        examples=tuple(fields.texts(each) for each in values.get("examples") or ()),
    )


def _measured(values: Fields, key: str, unit: str) -> str:
    """A guard's value; bits per byte are given as they are and their change in per cent."""
    value = fields.number(values, key)
    if value is None:
        return DASH
    return f"{value:.3f}" if fields.text(values, "check") == "general text" else f"{value:.1f}{unit}"


def _error(values: Fields) -> ErrorKind | None:
    """A kind of error that somebody made; None for one that nobody did."""
    base, tuned = (fields.count(values.get(side) or {}, "count") for side in ("base", "fine_tuned"))
    if not (base or tuned):
        return None
    examples: Sequence[Any] = (values.get("examples") or {}).get("fine_tuned") or ()
    places = [fields.text(each, "place") for each in examples[:3]]
    nearest = [fields.text(row, "place") for row in (examples[0].get("nearest") or ())] if examples else []
    return ErrorKind(
        name=fields.text(values, "category"),
        meaning=fields.text(values, "meaning"),
        base=base,
        tuned=tuned,
        mended=fields.count(values, "mended"),
        new=fields.count(values, "new"),
        advice=fields.text(values, "advice"),
        places=(", ".join(places), ", ".join(nearest)),
    )


def _benchmark(task: Fields, metric: Fields) -> Benchmark:
    value, base = fields.number(metric, "value"), fields.number(metric, "base")
    change, interval = fields.number(metric, "difference"), fields.interval(metric.get("interval"))
    told = (
        DASH
        if change is None
        else signed(change, 4) + (f" [{signed(interval[0], 4)}, {signed(interval[1], 4)}]" if interval else "")
    )
    return Benchmark(
        task=fields.text(task, "task"),
        metric=fields.text(metric, "metric"),
        items=fields.count(task, "items") or 0,
        base=DASH if base is None else f"{base:.4f}",
        tuned=DASH if value is None else f"{value:.4f}",
        change=told.replace("-", "\N{MINUS SIGN}"),
        word=fields.text(metric, "word"),
    )
