"""What a run's evaluation holds besides the verdict: plan, other comparisons, leakage, guards, errors, judge, benchmarks,
how sure labels are.

Each part may be missing: the run has not come so far, or an older version made it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luthier.report import decisions, json_fields
from luthier.report.decisions import Decisions
from luthier.report.formatting import DASH, signed
from luthier.report.json_fields import JsonObject

UNDECIDED, PASSED, FAILED = "?", "✓", "✗"


@dataclass(frozen=True)
class FrozenPlan:
    """The plan that was frozen before the test questions were opened, and how the run deviated from it."""

    sha256: str
    frozen: str
    test_opened: int
    departures: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Fine-tuned against an arm that the verdict is not about; `adjusted` is the p-value after Holm's correction."""

    arm: str
    word: str
    difference: float
    interval: tuple[float, float] | None
    adjusted: float | None


@dataclass(frozen=True)
class GuardCheck:
    """One check for harm, with its values as text in the check's own unit."""

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
    """How often one kind of error occurs before and after training, and what to change in the data."""

    name: str
    meaning: str
    base: int | None
    tuned: int | None
    fixed: int | None
    new: int | None
    advice: str
    locations: tuple[str, str]
    """Some of the tuned model's errors of this kind, and the training rows nearest to the first of them."""


@dataclass(frozen=True)
class Benchmark:
    """One metric of one public task, before and after training."""

    task: str
    metric: str
    items: int
    base: str
    tuned: str
    change: str
    word: str


@dataclass(frozen=True)
class EvaluationDetails:
    """What stands beside the verdict."""

    plan: FrozenPlan | None
    comparisons: tuple[Comparison, ...]
    excluded: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    leakage: JsonObject
    guards: tuple[GuardCheck, ...]
    errors: tuple[ErrorKind, ...]
    errors_sentence: str
    judge_sentence: str
    benchmarks: tuple[Benchmark, ...]
    decisions: Decisions | None

    def to_json(self) -> dict[str, Any]:
        """As report.json holds it under "beside"."""
        values = asdict(self)
        errors = [_renamed(kind, {"fixed": "mended", "locations": "places"}) for kind in values["errors"]]
        return _renamed(values | {"errors": errors}, {"plan": "seal", "judge_sentence": "opinion"})


def _renamed(values: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same values in the same order, some under the keys that report.json gives them."""
    return {names.get(key, key): value for key, value in values.items()}


def read(folder: Path, verdict: JsonObject) -> EvaluationDetails:
    """The details in a run's evaluation/ folder; `verdict` is the content of its verdict.json."""
    evaluation = folder / "evaluation"
    errors = json_fields.read_json_object(evaluation / "errors.json")
    benchmarks = json_fields.read_json_object(evaluation / "benchmarks.json")
    return EvaluationDetails(
        plan=_frozen_plan(verdict.get("plan") or {}),
        comparisons=tuple(_comparison(each) for each in verdict.get("secondary") or ()),
        excluded=tuple(
            (json_fields.text(each, "arm"), json_fields.text(each, "why")) for each in verdict.get("excluded") or ()
        ),
        notes=tuple(map(str, verdict.get("notes") or ())),
        leakage=verdict.get("leakage") or {},
        guards=tuple(
            _guard(each)
            for each in json_fields.read_json_object(evaluation / "guards.json").get("guards") or ()
            if each
        ),
        errors=tuple(found for each in errors.get("categories") or () if (found := _error(each))),
        errors_sentence=json_fields.text(errors, "sentence"),
        judge_sentence=json_fields.text(json_fields.read_json_object(evaluation / "judge.json"), "sentence"),
        benchmarks=tuple(
            _benchmark(task, metric) for task in benchmarks.get("tasks") or () for metric in task.get("metrics") or ()
        ),
        decisions=decisions.read(evaluation),
    )


def leakage_sentence(leakage: JsonObject) -> str:
    """How many test rows have a copy or a relative in train or dev; empty where that was not measured."""
    words = {
        "exact": "with an exact copy",
        "question": "with the same question",
        "near": "with a near copy",
        "group": "with a row of the same group",
    }
    counts = {kind: json_fields.count(leakage, kind) or 0 for kind in words}
    if not leakage:
        return ""
    if not any(counts.values()):
        return f"None of {json_fields.count(leakage, 'of'):,} test rows has a copy or a near copy in train or dev."
    listed = ", ".join(f"{count:,} {words[kind]}" for kind, count in counts.items() if count)
    return f"Of {json_fields.count(leakage, 'of'):,} test rows, these resemble a row of train or dev: {listed}."


def _frozen_plan(values: JsonObject) -> FrozenPlan | None:
    if not values:
        return None
    departures = tuple(json_fields.text(each, "sentence") for each in values.get("deviations") or ())
    return FrozenPlan(
        json_fields.text(values, "sha256"),
        json_fields.text(values, "frozen"),
        json_fields.count(values, "test_opened") or 0,
        departures,
    )


def _comparison(values: JsonObject) -> Comparison:
    return Comparison(
        arm=json_fields.text(values, "arm"),
        word=json_fields.text(values, "word"),
        difference=json_fields.number(values, "difference") or 0.0,
        interval=json_fields.interval(values.get("interval")),
        adjusted=json_fields.number(values, "adjusted_p_value"),
    )


def _guard(values: JsonObject) -> GuardCheck:
    unit = {"percent": " %", "points": ""}.get(json_fields.text(values, "unit"), " " + json_fields.text(values, "unit"))
    interval = json_fields.interval(values.get("interval"))
    difference = json_fields.number(values, "difference")
    change = DASH if difference is None else f"{signed(difference, 1)}{unit}"
    tuned = _measured(values, "fine_tuned", unit)
    # Limits are about the value after training, not about its change.
    if interval and json_fields.text(values, "word").endswith("LIMIT"):
        tuned += f" [{interval[0]:.1f}, {interval[1]:.1f}]"
    elif interval and difference is not None:
        change += f" [{signed(interval[0], 1)}, {signed(interval[1], 1)}]"
    passed = values.get("passed")
    return GuardCheck(
        title=json_fields.text(values, "title"),
        mark=UNDECIDED if passed is None else PASSED if passed else FAILED,
        word=json_fields.text(values, "word"),
        base=_measured(values, "base", unit),
        tuned=tuned,
        change=change.replace("-", "\N{MINUS SIGN}"),
        sentence=json_fields.text(values, "sentence"),
        examples=tuple(json_fields.texts(each) for each in values.get("examples") or ()),
    )


def _measured(values: JsonObject, key: str, unit: str) -> str:
    """A value with its unit; bits per byte stay as they are, only their change is in per cent."""
    value = json_fields.number(values, key)
    if value is None:
        return DASH
    return f"{value:.3f}" if json_fields.text(values, "check") == "general text" else f"{value:.1f}{unit}"


def _error(values: JsonObject) -> ErrorKind | None:
    """A kind of error that occurs before or after training; None where it does not."""
    base, tuned = (json_fields.count(values.get(side) or {}, "count") for side in ("base", "fine_tuned"))
    if not (base or tuned):
        return None
    examples: Sequence[Any] = (values.get("examples") or {}).get("fine_tuned") or ()
    locations = [json_fields.text(each, "place") for each in examples[:3]]
    nearest = [json_fields.text(row, "place") for row in (examples[0].get("nearest") or ())] if examples else []
    return ErrorKind(
        name=json_fields.text(values, "category"),
        meaning=json_fields.text(values, "meaning"),
        base=base,
        tuned=tuned,
        fixed=json_fields.count(values, "mended"),
        new=json_fields.count(values, "new"),
        advice=json_fields.text(values, "advice"),
        locations=(", ".join(locations), ", ".join(nearest)),
    )


def _benchmark(task: JsonObject, metric: JsonObject) -> Benchmark:
    value, base = json_fields.number(metric, "value"), json_fields.number(metric, "base")
    change, interval = json_fields.number(metric, "difference"), json_fields.interval(metric.get("interval"))
    shown = DASH if change is None else signed(change, 4)
    if change is not None and interval:
        shown += f" [{signed(interval[0], 4)}, {signed(interval[1], 4)}]"
    return Benchmark(
        task=json_fields.text(task, "task"),
        metric=json_fields.text(metric, "metric"),
        items=json_fields.count(task, "items") or 0,
        base=DASH if base is None else f"{base:.4f}",
        tuned=DASH if value is None else f"{value:.4f}",
        change=shown.replace("-", "\N{MINUS SIGN}"),
        word=json_fields.text(metric, "word"),
    )
