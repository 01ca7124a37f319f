"""What the training answers' form asks for, in words that a prompt can carry.

Without it, fine-tuning would win by knowing the format alone.
"""

import json
from collections import Counter
from collections.abc import Sequence

from luthier.evaluate.metrics.labels import are_choices
from luthier.evaluate.metrics.numeric import mostly

LABELS_AT_MOST = 20
LETTERS_AT_MOST = 1500
"""Characters of all labels together that a prompt lists, where the data says that they are labels."""
VALUES_AT_MOST = 12
_KINDS = {bool: "true or false", int: "number", float: "number", type(None): "null", list: "list", dict: "object"}


def from_answers(references: Sequence[str], *, are_labels: bool = False) -> str | None:
    """The instruction that states the form of these answers: labels, choices or JSON fields; None where they are free text."""
    if mostly(lambda text: isinstance(_parse_json(text), dict), references):
        objects = [value for text in references if isinstance(value := _parse_json(text), dict)]
        return f"Answer with one JSON object and nothing else. Its fields: {_fields(objects)}."
    if are_choices(references):
        return "Answer with the letter and the text of the right choice, as in the question, and nothing else."
    labels: Counter[str] = Counter()
    for reference in references:
        labels[reference.strip()] += 1
        if len(labels) > LABELS_AT_MOST and not are_labels:
            return None
    listed = are_labels and len(labels) < len(references) and sum(map(len, labels)) <= LETTERS_AT_MOST
    if listed or (len(references) >= 3 * len(labels) and len(labels) <= LABELS_AT_MOST and max(map(len, labels)) <= 40):
        return f"Answer with exactly one of these and nothing else: {', '.join(sorted(labels))}."
    return None


def _fields(objects: Sequence[dict[str, object]]) -> str:
    """Each field with the values it takes, or their kind where they are many."""
    described = []
    for name in dict.fromkeys(name for value in objects for name in value):
        values = Counter(json.dumps(value.get(name), ensure_ascii=False) for value in objects)
        if len(values) <= VALUES_AT_MOST and len(objects) >= 3 * len(values):
            described.append(f"{name} (one of {', '.join(sorted(values))})")
        else:
            kinds = {_KINDS.get(type(value.get(name)), "text") for value in objects}
            described.append(f"{name} ({' or '.join(sorted(kinds))})")
    return "; ".join(described)


def _parse_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
