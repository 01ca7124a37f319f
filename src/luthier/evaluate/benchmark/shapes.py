"""A file of multiple-choice questions as lm-eval tasks: which shape its rows have, and what lm-eval makes of that shape.

Prompts and metrics are those of lm-eval's own tasks: arc_easy, hellaswag, mmlu, truthfulqa_mc1 and _mc2.
"""

import ast
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from luthier.data.readers.files import find
from luthier.data.readers.kinds import ROWS
from luthier.data.readers.packing import PACKED
from luthier.data.readers.values import Record, shown
from luthier.errors import UserError

Doc = dict[str, Any]
Config = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One task that a shape allows: its settings for lm-eval; `columns` of the document that it needs."""

    suffix: str
    columns: tuple[str, ...]
    config: Config
    prompt_page: str | None = None
    """The page among lm-eval's own tasks whose prompt is used."""


@dataclass(frozen=True)
class Shape:
    """How a file's rows are laid out. `read` makes a row's document; raises Unreadable for what is wrong with it."""

    name: str
    columns: tuple[tuple[str, ...], ...]
    """Sets of columns, any one of which tells the shape."""
    read: Callable[[Doc], Doc]
    variants: tuple[Variant, ...]


class Unreadable(ValueError):
    """What is wrong with a row, and what is expected."""


@dataclass(frozen=True)
class LocalTask:
    """A task made of a user's file: the settings for lm-eval, and the documents, each with the `place` of its row."""

    name: str
    shape: str
    config: Config
    docs: Sequence[Doc]
    prompt_page: str | None = field(default=None, repr=False)


def is_data_file(word: str) -> bool:
    """Whether a word on the command line names a file of rows rather than a task."""
    endings = [ending.lower() for ending in Path(word).suffixes[-2:]]
    if endings and endings[-1] in PACKED:
        endings.pop()
    return bool(endings) and endings[-1] in ROWS


def read(path: Path) -> list[LocalTask]:
    """The tasks of a file: one, or two for TruthfulQA's; raises UserError with the place of the first row that does not fit."""
    rows = list(find(path).rows())
    if not rows:
        raise UserError("the file has no rows; expected at least one question.", where=str(path))
    shape = _recognise(rows[0], path)
    docs = []
    for row in rows:
        values = {name: _parsed(value) for name, value in row.values.items()}
        try:
            docs.append(shape.read(values) | {"place": row.location})
        except Unreadable as problem:
            raise UserError(f"{problem} Put this row right or remove it.", where=row.location) from None
        except KeyError as missing:
            raise UserError(
                f"the row has no {missing} as {shape.name}-shaped rows need; the first row has it.", where=row.location
            ) from None
    name = re.sub(r"\W+", "_", path.name.split(".")[0]) or "task"
    tasks = [
        LocalTask(name + variant.suffix, shape.name, variant.config, docs, variant.prompt_page)
        for variant in shape.variants
        if all(column in doc for doc in docs for column in variant.columns)
    ]
    if not tasks:
        raise UserError(f"no column of answers that all rows have; expected {_expected(shape)}.", where=str(path))
    return tasks


def _recognise(row: Record, path: Path) -> Shape:
    names = set(row.values)
    for shape in SHAPES:
        if any(names.issuperset(columns) for columns in shape.columns):
            return shape
    known = "; ".join(f"{shape.name}: {_expected(shape)}" for shape in SHAPES)
    raise UserError(
        f"not the shape of a benchmark that Luthier knows: found the columns {shown(sorted(names))}. Expected one of {known}. "
        "Rename the columns, or describe the file in a task file of lm-eval's (YAML).",
        where=str(path),
    )


def _expected(shape: Shape) -> str:
    return " or ".join(", ".join(columns) for columns in shape.columns)


def _parsed(value: Any) -> Any:
    """A cell of a CSV file that holds a list or an object, in JSON or as Python prints it; anything else as it is."""
    if isinstance(value, str) and value[:1] in "[{" and value[-1:] in "]}":
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(value)
            except (ValueError, SyntaxError):
                continue
    return value


def _text(values: Doc, name: str) -> str:
    value = values[name]
    if not isinstance(value, str) or not value.strip():
        raise Unreadable(f'"{name}" is {_shown_value(value)}, expected text.')
    return str(value)


def _texts(value: Any, name: str, *, at_least: int = 2) -> list[str]:
    if not isinstance(value, list) or len(value) < at_least or not all(isinstance(one, str) for one in value):
        raise Unreadable(f'"{name}" is {_shown_value(value)}, expected a list of at least {at_least} texts.')
    return [str(one) for one in value]


def _shown_value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return "empty" if value in ("", None, [], {}) else text if len(text) <= 60 else text[:57] + "…"


def _number(value: Any, name: str, count: int) -> int:
    """The index of the right answer: 0, 1, 2 … as number or text, or A, B, C …"""
    text = str(value).strip()
    if len(text) == 1 and text.upper() in ascii_uppercase[:count]:
        return ascii_uppercase.index(text.upper())
    if re.fullmatch(r"\d+", text) and int(text) < count:
        return int(text)
    raise Unreadable(
        f'"{name}" is {_shown_value(value)}, expected which of the {count} answers is right: 0 to {count - 1}, '
        f"or A to {ascii_uppercase[count - 1]}."
    )


def _arc(values: Doc) -> Doc:
    choices = values["choices"]
    if not isinstance(choices, dict) or "text" not in choices or "label" not in choices:
        raise Unreadable(f'"choices" is {_shown_value(choices)}, expected {{"text": ["…", "…"], "label": ["A", "B"]}}.')
    texts, labels = _texts(choices["text"], "choices.text"), _texts(choices["label"], "choices.label")
    if len(texts) != len(labels):
        raise Unreadable(f'"choices" has {len(texts)} texts and {len(labels)} labels, expected as many of both.')
    key = str(values["answerKey"])
    if key not in labels:
        raise Unreadable(f'"answerKey" is {_shown_value(key)}, expected one of the labels {", ".join(labels)}.')
    return {"question": _text(values, "question"), "choices": {"text": texts, "label": labels}, "answerKey": key}


def _hellaswag(values: Doc) -> Doc:
    endings = _texts(values["endings"], "endings")
    if all(isinstance(values.get(name), str) for name in ("activity_label", "ctx_a", "ctx_b")):
        query = f"{values['activity_label']}: {values['ctx_a']} {values['ctx_b'].capitalize()}"
    else:
        query = _text(values, "ctx")
    return {
        "query": _without_marks(query),
        "choices": [_without_marks(ending) for ending in endings],
        "gold": _number(values["label"], "label", len(endings)),
    }


def _without_marks(text: str) -> str:
    """Text without the marks that WikiHow pages left in HellaSwag: "[title]" between sentences, others anywhere."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _mmlu(values: Doc) -> Doc:
    if "choices" in values:
        choices = _texts(values["choices"], "choices")
    else:
        letters = [letter for letter in ascii_uppercase[:10] if isinstance(values.get(letter), str)]
        choices = _texts([values[letter] for letter in letters], "A, B, C …")
    if len(choices) > len(ascii_uppercase):
        raise Unreadable(f'"choices" has {len(choices)} texts, expected at most {len(ascii_uppercase)}.')
    return {
        "question": _text(values, "question"),
        "choices": choices,
        "letters": list(ascii_uppercase[: len(choices)]),
        "answer": _number(values["answer"], "answer", len(choices)),
    }


def _truthfulqa(values: Doc) -> Doc:
    doc: Doc = {"question": _text(values, "question")}
    for name in ("mc1_targets", "mc2_targets"):
        if values.get(name) is None:
            continue
        targets = values[name]
        if not isinstance(targets, dict) or not {"choices", "labels"} <= targets.keys():
            raise Unreadable(
                f'"{name}" is {_shown_value(targets)}, expected {{"choices": ["…", "…"], "labels": [1, 0]}}.'
            )
        choices = _texts(targets["choices"], f"{name}.choices")
        labels = [str(label) for label in targets["labels"]]
        if len(labels) != len(choices) or not set(labels) <= {"0", "1"} or "1" not in labels:
            raise Unreadable(
                f'"{name}.labels" is {_shown_value(targets["labels"])}, expected a 1 or 0 for each choice, and a 1.'
            )
        if name == "mc1_targets" and labels.count("1") > 1:
            raise Unreadable(f'"{name}.labels" has {labels.count("1")} right answers, expected one.')
        doc[name] = {"choices": choices, "labels": [int(label) for label in labels]}
    if len(doc) == 1:
        raise Unreadable('the row has neither "mc1_targets" nor "mc2_targets".')
    return doc


def _mean(*metrics: str) -> list[Config]:
    return [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics]


def true_share(doc: Doc, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """TruthfulQA's second score: of the probability that a model gives to all answers, the share of the true ones."""
    logprobs = np.array([logprob for logprob, _ in results])
    weights = np.exp(logprobs - logprobs.max())
    true = np.array(doc["mc2_targets"]["labels"]) == 1
    return {"acc": float(weights[true].sum() / weights.sum())}


_CHOICES: Config = {"output_type": "multiple_choice", "test_split": "test", "num_fewshot": 0}
_TRUTHFULQA = "truthfulqa/truthfulqa_mc1.yaml"

SHAPES = (
    Shape(
        "TruthfulQA",
        (("question", "mc1_targets"), ("question", "mc2_targets")),
        _truthfulqa,
        (
            Variant(
                "_mc1",
                ("mc1_targets",),
                _CHOICES
                | {
                    "doc_to_target": "{{mc1_targets.labels.index(1)}}",
                    "doc_to_choice": "{{mc1_targets.choices}}",
                    "metric_list": _mean("acc"),
                },
                _TRUTHFULQA,
            ),
            Variant(
                "_mc2",
                ("mc2_targets",),
                _CHOICES
                | {
                    "doc_to_target": 0,
                    "doc_to_choice": "{{mc2_targets.choices}}",
                    "process_results": true_share,
                    "metric_list": _mean("acc"),
                },
                _TRUTHFULQA,
            ),
        ),
    ),
    Shape(
        "ARC",
        (("question", "choices", "answerKey"),),
        _arc,
        (
            Variant(
                "",
                (),
                _CHOICES
                | {
                    "doc_to_text": "Question: {{question}}\nAnswer:",
                    "doc_to_target": "{{choices.label.index(answerKey)}}",
                    "doc_to_choice": "{{choices.text}}",
                    "metric_list": _mean("acc", "acc_norm"),
                },
            ),
        ),
    ),
    Shape(
        "HellaSwag",
        (("ctx", "endings", "label"), ("activity_label", "ctx_a", "ctx_b", "endings", "label")),
        _hellaswag,
        (
            Variant(
                "",
                (),
                _CHOICES
                | {
                    "doc_to_text": "{{query}}",
                    "doc_to_target": "{{gold}}",
                    "doc_to_choice": "choices",
                    "metric_list": _mean("acc", "acc_norm"),
                },
            ),
        ),
    ),
    Shape(
        "MMLU",
        (("question", "choices", "answer"), ("question", "A", "B", "answer")),
        _mmlu,
        (
            Variant(
                "",
                (),
                _CHOICES
                | {
                    "doc_to_text": "{{question.strip()}}\n"
                    "{% for choice in choices %}{{letters[loop.index0]}}. {{choice}}\n{% endfor %}Answer:",
                    "doc_to_target": "{{answer}}",
                    "doc_to_choice": "letters",
                    "metric_list": _mean("acc"),
                },
            ),
        ),
    ),
)
"""Shapes by the columns of a file's first row; the first that fits is taken."""
