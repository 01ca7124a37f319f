"""What a benchmark run found: each model's scores by task, metric and item, and the two models compared item by item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.evaluate import statistics

Json = dict[str, Any]

SEED = 0  # of the resampling


@dataclass(frozen=True)
class MetricResult:
    """A number that a task reports: its `name`, with the filter that answers went through where there are several."""

    name: str
    value: float
    """Over all items, as lm-eval aggregates it."""
    higher_is_better: bool
    items: Mapping[int, float] | None
    """By the item's number; None where an item has no score of its own, as for the perplexity of a corpus."""


@dataclass(frozen=True)
class TaskResult:
    """One model on one task. `locations` says for each item where its row stands in a user's file."""

    name: str
    version: str
    items: int
    metrics: Sequence[MetricResult]
    locations: Mapping[int, str]


def from_harness(output: Mapping[str, Any]) -> list[TaskResult]:
    """lm-eval's results and samples, a TaskResult for each task."""
    return [_task(name, output) for name in output["samples"]]


def _task(name: str, output: Mapping[str, Any]) -> TaskResult:
    samples = output["samples"][name]
    metrics = []
    for key, value in output["results"][name].items():
        metric, _, chosen = key.partition(",")
        if metric.endswith("_stderr") or not chosen or not isinstance(value, int | float):
            continue
        scores = {
            int(sample["doc_id"]): sample[metric]
            for sample in samples
            if sample["filter"] == chosen and metric in sample
        }
        plain = scores and all(isinstance(score, int | float | bool) for score in scores.values())
        higher = output["higher_is_better"].get(name, {}).get(metric)
        metrics.append(
            MetricResult(
                name=metric if chosen == "none" else f"{metric} ({chosen})",
                value=float(value),
                higher_is_better=higher is not False,
                items={number: float(score) for number, score in scores.items()} if plain else None,
            )
        )
    locations = {
        int(sample["doc_id"]): str(sample["doc"].get("place", "")) for sample in samples if _has_fields(sample["doc"])
    }
    items = len({sample["doc_id"] for sample in samples})
    return TaskResult(name, str(output["versions"].get(name, "")), items, metrics, locations)


def _has_fields(doc: object) -> bool:
    return isinstance(doc, Mapping)


def compare(tuned: Sequence[TaskResult], base: Sequence[TaskResult] | None, *, alpha: float) -> list[Json]:
    """A record for each task; with a base model, each metric's paired difference with its interval and p-value."""
    bases = {task.name: task for task in base or ()}
    return [
        {
            "task": task.name,
            "version": task.version,
            "items": task.items,
            "metrics": [_metric(metric, bases.get(task.name), alpha) for metric in task.metrics],
        }
        for task in tuned
    ]


def _metric(metric: MetricResult, base: TaskResult | None, alpha: float) -> Json:
    found: Json = {"metric": metric.name, "higher_is_better": metric.higher_is_better, "value": metric.value}
    other = next((of_base for of_base in base.metrics if of_base.name == metric.name), None) if base else None
    if other is None:
        return found
    found |= {"base": other.value, "difference": metric.value - other.value}
    if metric.items is None or other.items is None or metric.items.keys() != other.items.keys():
        return found
    numbers = sorted(metric.items)
    ours, theirs = ([scores[number] for number in numbers] for scores in (metric.items, other.items))
    groups = [str(number) for number in numbers]
    test = statistics.paired_test(ours, theirs, groups, seed=SEED)
    interval = statistics.paired_interval(ours, theirs, groups, confidence=1 - alpha, seed=SEED)
    sign = 1 if metric.higher_is_better else -1
    gains = [sign * (our - their) for our, their in zip(ours, theirs, strict=True)]
    return found | {
        "interval": [interval.low, interval.high],
        "confidence": 1 - alpha,
        "test": test.name,
        "p_value": test.p_value,
        "fixed": sum(gain > statistics.SAME for gain in gains),
        "broken": sum(gain < -statistics.SAME for gain in gains),
        "word": _word(interval, sign),
    }


def _word(interval: statistics.Interval, sign: int) -> str:
    """BETTER or WORSE where the interval lies on one side of 0."""
    low, high = sorted((sign * interval.low, sign * interval.high))
    return "BETTER" if low > 0 else "WORSE" if high < 0 else "NOT SHOWN"
