"""Metrics: how close an answer is to its reference, as a number from 0 to 1, higher is better.

To add one, write a function (answer, reference) -> 0..1 in the file of its kind (texts, labels, numeric, objects,
tool_calls), give it a line in `METRICS` and a name for readers in `_LABELS` (and in report/score_units.py, which imports
nothing from here); add it to `_BINARY` if it is always 0 or 1. Where it needs a setting (a schema, a tolerance, an embedding
model), it gets a line in `CONFIGURABLE`: instead of `METRICS` if it cannot work without the setting, beside it if it can
(`number`). To show it beside another metric, name it in `choice.SECONDARY`; describe it in docs/evaluation.md. Numbers that
are not a mean over answers, such as macro-F1, belong into `AGGREGATES`. A user's own metric needs none of this:
"package.module:function".

Documents have no answer to compare. They are scored with `BITS_PER_BYTE`, stored as *negative* bits per byte, so that
higher is better for every score that the statistics see.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from luthier.errors import UserError, unknown
from luthier.evaluate.metrics import custom, labels, objects, tool_calls
from luthier.evaluate.metrics.choice import SECONDARY, MetricChoice, choose_metric
from luthier.evaluate.metrics.embedding_similarity import similarity
from luthier.evaluate.metrics.labels import accuracy
from luthier.evaluate.metrics.numeric import number
from luthier.evaluate.metrics.objects import field_accuracy, first_object, json_valid, schema_valid
from luthier.evaluate.metrics.texts import chrf, chrf_signature, exact_match, normalised_match, rouge_l, token_f1
from luthier.evaluate.metrics.tool_calls import calls_in, tool_call, tool_name

__all__ = [
    "AGGREGATES", "BITS_PER_BYTE", "CONFIGURABLE", "DEFAULT_SETTINGS", "METRICS", "SECONDARY", "Metric", "MetricChoice",
    "MetricSettings", "accuracy", "aggregates", "binary", "calls_in", "choose_metric", "chrf", "exact_match", "field_accuracy",
    "first_object", "has_aggregate", "json_valid", "label", "normalised_match", "number", "resolve", "rouge_l", "score",
    "scorers", "signatures", "token_f1", "tool_call", "tool_name",
]  # fmt: skip

Metric = Callable[[str, str], float]
"""(answer, reference) -> 0..1, higher is better."""

BITS_PER_BYTE = "bits_per_byte"


@dataclass(frozen=True)
class MetricSettings:
    """Settings that some metrics need."""

    json_schema: Path | None = None
    """A file with the JSON Schema that answers should follow."""
    tolerance: float = 0.0
    """How far a number may be from the reference's, as a share of the reference: 0.01 is 1 %."""
    embedder: Path | None = None
    """The folder of a sentence-embedding model."""


DEFAULT_SETTINGS = MetricSettings()

METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "exact_match": exact_match,
    "normalised_match": normalised_match,
    "number": number,
    "field_accuracy": field_accuracy,
    "tool_call": tool_call,
    "tool_name": tool_name,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "chrf": chrf,
    "json_valid": json_valid,
}


def _with_schema(settings: MetricSettings) -> Metric:
    if settings.json_schema is None:
        raise UserError('"schema_valid" needs a schema: name its file.', where="evaluate.json_schema")
    return schema_valid(settings.json_schema)


def _with_embedder(settings: MetricSettings) -> Metric:
    if settings.embedder is None:
        message = '"similarity" needs a sentence-embedding model: name its folder.'
        raise UserError(message, where="evaluate.embedder")
    return similarity(settings.embedder)


CONFIGURABLE: dict[str, Callable[[MetricSettings], Metric]] = {
    "number": lambda settings: partial(number, tolerance=settings.tolerance),
    "field_accuracy": lambda settings: partial(field_accuracy, tolerance=settings.tolerance),
    "tool_call": lambda settings: partial(tool_call, tolerance=settings.tolerance),
    "schema_valid": _with_schema,
    "similarity": _with_embedder,
}
"""Metrics that need settings, by their names in the recipe."""

Aggregate = Callable[[Sequence[str], Sequence[str], MetricSettings], dict[str, Any]]

AGGREGATES: dict[str, tuple[str, Aggregate]] = {
    "accuracy": ("labels", lambda answers, references, settings: labels.report(answers, references)),
    "field_accuracy": (
        "fields",
        lambda answers, references, settings: objects.report(answers, references, tolerance=settings.tolerance),
    ),
    "tool_call": (
        "calls",
        lambda answers, references, settings: tool_calls.report(answers, references, tolerance=settings.tolerance),
    ),
}
"""Deciding metric → a name, and a function of all answers and references at once, whose result stands under it."""

_BINARY = {"accuracy", "exact_match", "json_valid", "normalised_match", "number", "schema_valid", "tool_name"}
_LABELS = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "normalised_match": "normalised match",
    "number": "right number",
    "field_accuracy": "field accuracy",
    "tool_call": "right calls",
    "tool_name": "right functions",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "json_valid": "valid JSON",
    "schema_valid": "keeps to the schema",
    "similarity": "similarity of meaning",
    BITS_PER_BYTE: "bits per byte",
}


def label(name: str) -> str:
    """The metric's name for readers; a user's own metric has its function's name."""
    return _LABELS.get(name, name.rpartition(":")[2])


def binary(name_or_scores: str | Sequence[float]) -> bool:
    """Whether a metric of this name, or these scores, can only be 0 or 1."""
    if isinstance(name_or_scores, str):
        return name_or_scores in _BINARY
    return all(score in (0, 1) for score in name_or_scores)


def resolve(name: str, *, settings: MetricSettings = DEFAULT_SETTINGS, where: str | None = "evaluate.metric") -> Metric:
    """The metric of that name, or a user's "package.module:function", whose every result is checked."""
    if ":" in name:
        return custom.load(name, where=where)
    if name in CONFIGURABLE and (name not in METRICS or settings != DEFAULT_SETTINGS):
        return CONFIGURABLE[name](settings)
    if name not in METRICS:
        raise unknown("metric", name, [*METRICS, *CONFIGURABLE], where=where)
    return METRICS[name]


def scorers(name: str, settings: MetricSettings = DEFAULT_SETTINGS) -> dict[str, Metric]:
    """The deciding metric, which comes first, and the secondary ones."""
    secondary = SECONDARY.get(name, ())
    if settings.json_schema and name != "schema_valid":
        secondary = ("schema_valid", *secondary)
    if settings.embedder and name != "similarity":
        secondary = (*secondary, "similarity")
    return {each: resolve(each, settings=settings) for each in (name, *secondary) if each != BITS_PER_BYTE}


def score(metrics: Mapping[str, Metric], answer: str, reference: str, *, location: str) -> dict[str, float]:
    """The answer's score by each metric; a metric that fails raises a UserError that names the item's `location`."""
    try:
        return {name: metric(answer, reference) for name, metric in metrics.items()}
    except UserError as error:
        raise UserError(error.message, where=location) from error


def has_aggregate(name: str) -> bool:
    """Whether there are numbers beyond the mean of this metric."""
    return name in AGGREGATES


def aggregates(
    name: str, texts: Sequence[tuple[str, str]], settings: MetricSettings = DEFAULT_SETTINGS
) -> dict[str, Any]:
    """The aggregate of these (answer, reference) pairs under its name; empty for a metric without one."""
    if name not in AGGREGATES or not texts:
        return {}
    title, report = AGGREGATES[name]
    answers, references = zip(*texts, strict=True)
    return {title: report(answers, references, settings)}


def signatures(names: Iterable[str]) -> dict[str, str]:
    """The exact version and settings of metrics from other libraries, as these libraries write them."""
    return {"chrf": chrf_signature()} if "chrf" in names else {}
