"""Which metric fits a task, from the reference answers alone: no arm can influence its own scoring."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.errors import UserError
from luthier.evaluate.metrics import labels, normalization
from luthier.evaluate.metrics.numeric import are_numbers, mostly
from luthier.evaluate.metrics.objects import is_object
from luthier.evaluate.metrics.tool_calls import are_calls

CLASSES_AT_MOST = 10
"""With at most so many different whole numbers they are classes (stars from 1 to 5, 0 and 1); with more, amounts."""

LABELS_AT_MOST = 20
"""Short answers of which there are not more, each five times on average, are labels."""

SECONDARY = {
    "exact_match": ("accuracy", "normalised_match"),
    "accuracy": ("exact_match", "normalised_match"),
    "field_accuracy": ("json_valid", "exact_match"),
    "number": ("exact_match", "normalised_match"),
    "tool_call": ("tool_name", "exact_match"),
    "token_f1": ("rouge_l", "chrf", "exact_match", "normalised_match"),
}
"""Deciding metric → those shown beside it."""


@dataclass(frozen=True)
class MetricChoice:
    """The deciding metric, and in a few words why."""

    name: str
    reason: str

    @property
    def secondary(self) -> tuple[str, ...]:
        """The metrics shown beside it."""
        return SECONDARY.get(self.name, ())


def choose_metric(references: Sequence[str], *, are_labels: bool = False, where: str | None = None) -> MetricChoice:
    """The metric that fits these reference answers, with the reason.

    Calls where some of them call functions, fields for JSON objects, accuracy for labels and for single letters or signs,
    numbers for numbers, token F1 for other text. Letters that are labels in both cases (m and M) are compared exactly.
    Where the data says that they `are_labels`, there may be many.
    """
    if not references:
        raise UserError(
            "no reference answers to choose a metric from; the test split needs at least 2 questions.", where=where
        )
    if calls := are_calls(references):
        which = (
            "every reference answer calls a function"
            if calls == len(references)
            else (f"{calls:,} of {len(references):,} reference answers call functions; the others are compared as text")
        )
        return MetricChoice("tool_call", which)
    if mostly(is_object, references):
        objects = sum(map(is_object, references)) / len(references)
        share = "every reference answer is" if objects == 1 else f"{objects:.0%} of the reference answers are"
        return MetricChoice("field_accuracy", f"{share} a JSON object")
    short = all(len(reference.split()) <= 4 and len(reference.strip()) <= 40 for reference in references)
    alike = _alike(references) if short or are_labels else []
    kinds = {
        normalization.text(reference) if alike else labels.label_of(reference)
        for reference in references
        if short or are_labels
    }
    closed = short and len(kinds) <= LABELS_AT_MOST and len(references) >= 5 * len(kinds)
    closed = closed or (are_labels and len(kinds) < len(references))
    if closed and len(kinds) == 1:
        message = labels.one_class(references[0].strip(), len(references))
        raise UserError(f"{message}. Add rows with other answers.", where=where)
    classes = closed and len(kinds) <= CLASSES_AT_MOST and all(kind.isdecimal() for kind in kinds)
    if are_numbers(references) and not classes:
        return MetricChoice("number", "the reference answers are numbers")
    if closed:
        reason = f"the {len(references)} reference answers use {len(kinds)} short labels"
    elif labels.are_choices(references):
        reason = "every reference answer is a choice with its letter"
    elif short and all(len(normalization.text(reference)) == 1 for reference in references):
        reason = "every reference answer is a single character"
    else:
        return MetricChoice("token_f1", "the reference answers are free text")
    if alike:
        return MetricChoice("exact_match", f"{reason}, of which {' and '.join(alike)} differ in case only")
    return MetricChoice("accuracy", reason)


def _alike(references: Sequence[str]) -> list[str]:
    """Two letters that differ in case only (m and M) and are used often, so that neither is a slip. Longer labels may vary."""
    counts = Counter(normalization.text(reference) for reference in references)
    for letter, count in counts.items():
        other = letter.swapcase()
        if len(letter) == len(other) == 1 and letter < other and min(count, counts[other]) >= 3:
            return [f'"{letter}"', f'"{other}"']
    return []
