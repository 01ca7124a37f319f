"""What a sweep's points scored, side by side, and what follows from them in words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier.evaluate import statistics
from luthier.evaluate.prompts.arms import TUNED
from luthier.evaluate.statistics.scaling import CONFIDENCE, Doubling, doubling
from luthier.pipeline.sweep.points import Point, short_names
from luthier.recipe import Recipe
from luthier.report.run_contents import WHOLE_TEXT
from luthier.report.score_units import BITS, POINTS, Unit, metric_name
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

Lines = Sequence[Mapping[str, Any]]


def results(folder: Path, points: Sequence[Point], asked: Recipe) -> dict[str, Any]:
    """For sweep.json: `results` of these points, `curves` fitted to them and `answers` in words."""
    found = {point.name: _outcome(folder, point) | {"series": _label(point, points)} for point in points}
    lines = {point.name: _tuned_lines(folder / "points" / point.name) for point in points}
    series: dict[str, list[Point]] = {}
    for point in points:
        series.setdefault(_label(point, points), []).append(point)
    metric = found[points[0].name]["metric"]
    unit, of = (BITS, "") if metric == WHOLE_TEXT else (POINTS, f" of {metric_name(metric)}")
    curves: dict[str, Doubling] = {}
    for label, members in series.items():
        rows = [found[point.name]["rows"] for point in members]
        if len(set(rows)) > 1:
            curves[label] = doubling(
                rows,
                [[line["score"] for line in lines[point.name]] for point in members],
                [line["group"] for line in lines[members[0].name]],
                margin=asked.evaluate.margin,
                seed=asked.train.seed,
                ceiling=1.0 if unit is POINTS and found[members[0].name]["higher_is_better"] else None,
            )
    answers = [in_words("" if len(series) == 1 else f"{label}: ", fit, unit, of) for label, fit in curves.items()]
    if any(each["verdict"] == "WITHHELD" for each in found.values()):
        answers.append(
            "Test rows were trained on, so these scores prove little. Verdicts are WITHHELD; the points' reports say why."
        )
    answers += _compared(series, found, lines, unit, seed=asked.train.seed)
    return {
        "metric": metric,
        "higher_is_better": found[points[0].name]["higher_is_better"],
        "results": list(found.values()),
        "curves": {label: asdict(fit) | {"confidence": CONFIDENCE} for label, fit in curves.items()},
        "answers": answers,
    }


def _tuned_lines(folder: Path) -> list[dict[str, Any]]:
    lines = [line for line in read_json_lines(folder / "evaluation" / "answers.jsonl") if line["arm"] == TUNED]
    return sorted(lines, key=lambda line: str(line["item"]))


def _outcome(folder: Path, point: Point) -> dict[str, Any]:
    """A point's numbers from its run folder; `rows` are training rows."""
    current = Run(folder / "points" / point.name)
    verdict = json.loads((current.folder / "evaluation" / "verdict.json").read_text(encoding="utf-8"))
    data, model, trained = (current.events(kind)[-1] for kind in ("data", "model", "trained"))
    arm, best = verdict["arms"][TUNED], verdict["arms"][verdict["best_prompt_arm"]]
    return {
        **asdict(point),
        "folder": f"points/{point.name}",
        "rows": data["train"],
        "parameters": model["parameters"],
        "metric": verdict["metric"],
        "higher_is_better": verdict["higher_is_better"],
        "n": verdict["n"],
        "mean": arm["mean"],
        "interval": arm["interval"],
        "best_prompt_arm": verdict["best_prompt_arm"],
        "prompt_mean": best["mean"],
        "prompt_interval": best["interval"],
        "difference": verdict["difference"],
        "difference_interval": verdict["interval"],
        "verdict": verdict["verdict"],
        "dev_loss": trained["best_loss"],
        "train_seconds": trained["seconds"],
    }


def _label(point: Point, points: Sequence[Point]) -> str:
    """What a curve is called: its model and its settings, as far as they are not the same everywhere."""
    models = dict.fromkeys(other.model for other in points)
    parts = [short_names(list(models))[point.model]] if len(models) > 1 else []
    parts += [f"{key}={value}" for key, value in point.settings.items()]
    return ", ".join(parts) or "fine-tuned"


def in_words(label: str, fit: Doubling, unit: Unit, of: str) -> str:
    """What more data would bring, in plain English; gains are positive also where lower scores are better."""
    low, high = fit.interval
    cut = high == fit.room
    what = f"Doubling the data, from {fit.rows:,} to {2 * fit.rows:,} training rows,"
    between = f"between {unit.signed(low)} and {unit.signed(high)}{unit.name}{of}"
    claims = {
        "MORE HELPS": f"{what} would likely gain {_range(low, high, unit)}{unit.name}{of}"
        f"{', and could reach the best possible score' if cut else ''}.",
        "MORE HURTS": f"{what} would likely lose {_range(-high, -low, unit)}{unit.name}{of}. "
        "Look at the rows before you add more.",
        "LITTLE CHANGE": f"{what} cannot help: the score is already the best possible."
        if fit.room == 0
        else f"{what} would likely change little: {between}.",
        "CANNOT TELL": f"This sweep cannot show whether more data would help: {what} may bring {between}. "
        "Use more test questions, or amounts further apart.",
    }
    low, high = fit.last_interval
    last = (
        f"The last step, from {fit.last_from:,} to {fit.rows:,} rows, brought {unit.signed(fit.last_gain)}{unit.name} "
        f"[95 % CI {unit.signed(low)}, {unit.signed(high)}]."
    )
    claim = claims[fit.word].replace(": Doubling", ": doubling")
    return f"{label}{claim} {last}"


def _range(low: float, high: float, unit: Unit) -> str:
    """2.1 to 4.0; 4.0 where both are the same to a reader; up to 4.0 where it begins at nothing."""
    first, last = unit.score(low), unit.score(high)
    if first == last:
        return last
    return f"up to {last}" if first == unit.score(0) else f"{first} to {last}"


def _compared(
    series: Mapping[str, Sequence[Point]],
    found: Mapping[str, Mapping[str, Any]],
    lines: Mapping[str, Lines],
    unit: Unit,
    *,
    seed: int,
) -> list[str]:
    """The largest points of several series against the first one's; and which settings dev would choose."""
    largest = {label: max(members, key=lambda point: point.amount) for label, members in series.items()}
    (first, base), *others = largest.items()
    words = []
    if others and len({(point.model, point.amount) for point in largest.values()}) == 1:
        losses = {label: found[point.name]["dev_loss"] for label, point in largest.items()}
        finite = {label: loss for label, loss in losses.items() if loss is not None}
        if finite:
            label = min(finite, key=lambda label: finite[label])
            words.append(
                f"The best of these settings on dev is {label} (dev loss {finite[label]:.3f}). "
                "Choose by dev: the best of several test scores is too good."
            )
    groups = [line["group"] for line in lines[base.name]]
    for label, point in others:
        ours, theirs = ([float(line["score"]) for line in lines[each.name]] for each in (point, base))
        low, high = statistics.paired_interval(ours, theirs, groups, confidence=CONFIDENCE, seed=seed)
        difference = (sum(ours) - sum(theirs)) / len(groups)
        words.append(
            f"{label} against {first}, on the same questions: {unit.signed(difference)}{unit.name} "
            f"[95 % CI {unit.signed(low)}, {unit.signed(high)}]."
        )
    return words
