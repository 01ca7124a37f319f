"""Labels: whether each answer is right, and precision, recall, F1 and confusion over all answers."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from luthier.data.words import normalised
from luthier.errors import UserError

OTHER = "other answers"
_NO_LABEL = "\0"
_CHOICE = re.compile(r"([A-Z])\. \S")
_NAMED = re.compile(r"\(?([A-Za-z])(?:[.):](?=\s|$)|\)?$)")
_ENDINGS = string.whitespace + ".,;:!?…。"  # not every mark: "C#" and "C++" are labels of their own


def accuracy(answer: str, reference: str) -> float:
    """1 if the answer is the label, whatever its case and closing punctuation.

    An answer that only contains the label ("It is refund, I think") is wrong: a program that reads the answer could not use
    it either.
    """
    return float(label_of(answer) == label_of(reference))


def letter_of(reference: str) -> str | None:
    """The letter of a right choice that is written with its text, `B. At noon.`; None for any other answer."""
    found = _CHOICE.match(reference.strip())
    return found[1] if found else None


def are_choices(references: Sequence[str]) -> bool:
    """Whether all references are choices with their letters, of which at least two occur."""
    letters = set()
    for reference in references:
        letter = letter_of(reference)
        if letter is None:
            return False
        letters.add(letter)
    return len(letters) > 1


def _chosen(answer: str, reference: str) -> str:
    """The letter that an answer chooses: the right one for its letter, its text or both, another for what begins with it."""
    right, label = str(letter_of(reference)), label_of(answer)
    if label in (label_of(reference), label_of(right), label_of(reference.strip()[2:])):
        return right
    found = _NAMED.match(answer.strip())
    return found[1].upper() if found and found[1].upper() != right else _NO_LABEL


def label_of(text: str) -> str:
    """A label without case and closing punctuation: equal labels give equal texts."""
    line = normalised(text).strip()
    return line.rstrip(_ENDINGS) or line


def report(answers: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1, precision and recall by class, and the confusion matrix: references in rows, answers in columns.

    The classes are the labels that occur among the references. An answer that is none of them is counted in the last
    column and is wrong. Macro-F1 is the plain mean of the classes' F1; a class that is never right has F1 0. With a
    single class, naming it is always right; no number shows that, so a note says it. Of choices, the letters are the classes.
    """
    if not references:
        raise UserError("no answers to count labels in; the arm has answered nothing.")
    if are_choices(references):
        answers = [_chosen(answer, reference) for answer, reference in zip(answers, references, strict=True)]
        references = [str(letter_of(reference)) for reference in references]
    spelled: dict[str, str] = {}
    for reference in references:
        spelled.setdefault(label_of(reference), reference.strip())
    names = sorted(spelled)
    wanted = [label_of(reference) for reference in references]
    predicted = [name if (name := label_of(answer)) in spelled else _NO_LABEL for answer in answers]
    pairs, wanted_counts, predicted_counts = (
        Counter(zip(wanted, predicted, strict=True)),
        Counter(wanted),
        Counter(predicted),
    )
    f1 = [2 * pairs[name, name] / (predicted_counts[name] + wanted_counts[name]) for name in names]
    classes = [
        {
            "label": spelled[name],
            "precision": pairs[name, name] / predicted_counts[name] if predicted_counts[name] else 0.0,
            "recall": pairs[name, name] / wanted_counts[name],
            "f1": each,
            "n": wanted_counts[name],
        }
        for name, each in zip(names, f1, strict=True)
    ]
    right = sum(pairs[name, name] for name in names)
    found: dict[str, Any] = {
        "accuracy": right / len(references),
        "macro_f1": sum(f1) / len(f1),
        "other": predicted_counts[_NO_LABEL],
        "classes": classes,
        "confusion": {
            "labels": [spelled[name] for name in names],
            "columns": [*(spelled[name] for name in names), OTHER],
            "counts": [[pairs[row, column] for column in (*names, _NO_LABEL)] for row in names],
        },
    }
    if len(names) == 1:
        found["note"] = one_class(spelled[names[0]], len(references))
    return found


def one_class(label: str, count: int) -> str:
    """The message about references that are all the same."""
    return (
        f'all {count:,} reference answers are "{label}", so a program that always says it would score 100 %: '
        "nothing can be trained or shown with one class"
    )
