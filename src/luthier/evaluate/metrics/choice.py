"""Which metric fits a task, from the reference answers alone: no arm can influence how it is judged."""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.errors import Mistake
from luthier.evaluate.metrics import labels
from luthier.evaluate.metrics.objects import is_object

ALSO = {
    "accuracy": ("exact_match", "normalised_match"),
    "field_accuracy": ("json_valid", "exact_match"),
    "number": ("exact_match", "normalised_match"),
    "token_f1": ("rouge_l", "chrf", "exact_match", "normalised_match"),
}
"""What is shown beside a deciding metric."""


@dataclass(frozen=True)
class MetricChoice:
    """What decides, and why, in a few words."""

    name: str
    reason: str

    @property
    def also(self) -> tuple[str, ...]:
        """What is shown beside it."""
        return ALSO.get(self.name, ())


def choose_metric(references: Sequence[str], *, where: str | None = None) -> MetricChoice:
    """The metric that fits these reference answers: fields for JSON, accuracy for labels, token F1 for other text."""
    if not references:
        raise Mistake(
            "no reference answers to choose a metric from; the test split needs at least 2 questions.", where=where
        )
    objects = sum(is_object(reference) for reference in references) / len(references)
    if objects >= 0.95:
        share = "every reference answer is" if objects == 1 else f"{objects:.0%} of the reference answers are"
        return MetricChoice("field_accuracy", f"{share} a JSON object")
    kinds = {labels.label_of(reference) for reference in references}
    short = all(len(reference.split()) <= 4 and len(reference.strip()) <= 40 for reference in references)
    if short and len(kinds) <= 20 and len(references) >= 5 * len(kinds):
        if len(kinds) == 1:
            told = labels.one_class(references[0].strip(), len(references))
            raise Mistake(f"{told}. Add rows with other answers.", where=where)
        count = f"{len(references)} reference answers use {len(kinds)} short labels"
        return MetricChoice("accuracy", f"the {count}")
    return MetricChoice("token_f1", "the reference answers are free text")
