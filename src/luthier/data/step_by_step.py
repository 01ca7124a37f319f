"""From texts to what a training sees, one step at a time, as "Finetuning Large Language Models" teaches it.

A run does more, and does it for you: `luthier run`. These functions are for looking: each does one thing, on plain lists and
arrays, and is what the word means elsewhere too.

    rows        what a data file holds         luthier.data.read_rows
    texts       rows in a template             fill
    tokens      texts as lists of ids          tokenize
    matrices    lists cut and filled up        truncate, pad, labels
    splits      who trains, who judges         train_test_split
    files       kept for the next time         save, reload

The tokenizer is a function from a text to its ids, such as `lambda text: tokenizer.encode(text).ids`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luthier.data.prompt_templates import PROMPT_TEMPLATES, PromptTemplate
from luthier.data.readers.values import Value
from luthier.errors import UserError
from luthier.runs.durable import whole_file

Side = Literal["left", "right"]

IGNORED = -100
"""The label of a token that no loss is taken on: PyTorch's cross-entropy passes over it."""


def fill(template: str, row: Mapping[str, Value]) -> str:
    """A row in a template: one of `PROMPT_TEMPLATES` by its name, or a text of yours.

    >>> fill("question-answer", {"question": "Where?", "answer": "Here."})
    '### Question:\\nWhere?\\n\\n### Answer:\\nHere.'
    >>> fill("Q: {question}", {"question": "Where?"})
    'Q: Where?'
    """
    found = PromptTemplate(PROMPT_TEMPLATES.get(template, template))
    if missing := [gap for gap in found.gaps if gap not in row]:
        raise UserError(f"the row has no {' and no '.join(missing)}; it has {', '.join(row) or 'no column'}.")
    return found.fill(row)


def fill_alpaca(row: Mapping[str, Value]) -> str:
    """An instruction in Alpaca's template, in the one with an input where the row has one.

    >>> fill_alpaca({"instruction": "Add.", "input": "1 2"}).endswith("### Input:\\n1 2\\n\\n### Response:")
    True
    """
    return fill("alpaca-with-input" if row.get("input") else "alpaca", row)


def tokenize(texts: Iterable[str], encode: Callable[[str], Sequence[int]]) -> list[list[int]]:
    """Each text's ids; the lists are as long as their texts, so they are no matrix yet."""
    return [list(encode(text)) for text in texts]


def truncate(tokens: Sequence[Sequence[int]], length: int, *, side: Side = "right") -> list[list[int]]:
    """Lists of at most `length` ids: cut on the right they lose their ends, on the left their beginnings.

    >>> truncate([[1, 2, 3, 4], [5]], 3)
    [[1, 2, 3], [5]]
    >>> truncate([[1, 2, 3, 4], [5]], 3, side="left")
    [[2, 3, 4], [5]]

    Cutting a question with its answer on the left drops the question, on the right the answer; a run cuts neither, and
    drops the row with a line in its ledger.
    """
    if length < 1:
        raise UserError(f"a length of {length} leaves no token; expected 1 or more.")
    return [list(ids[:length] if side == "right" else ids[-length:]) for ids in tokens]


def pad(
    tokens: Sequence[Sequence[int]], filler: int, *, side: Side = "right", length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`input_ids` and `attention_mask`, int64 of the shape rows × `length`: lists filled up to the longest, or to `length`.

    The mask is 1 where a token is real. `filler` is the id of the pad token; a model without one takes its end token.

    >>> ids, mask = pad([[7, 8, 9], [5]], 0)
    >>> ids.tolist(), mask.tolist()
    ([[7, 8, 9], [5, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    >>> pad([[7, 8, 9], [5]], 0, side="left")[0].tolist()
    [[7, 8, 9], [0, 0, 5]]

    Fill up on the left to ask a batch, since a model goes on from the last place; to train, either side will do. A run packs
    rows end to end and fills up nothing.
    """
    longest = max(map(len, tokens), default=0)
    width = longest if length is None else length
    if longest > width:
        raise UserError(f"a row of {longest} tokens does not fit into {width}; truncate first.")
    input_ids = np.full((len(tokens), width), filler, dtype=np.int64)
    attention_mask = np.zeros((len(tokens), width), dtype=np.int64)
    for row, ids in enumerate(tokens):
        filled = slice(0, len(ids)) if side == "right" else slice(width - len(ids), width)
        input_ids[row, filled] = ids
        attention_mask[row, filled] = 1
    return input_ids, attention_mask


def labels(input_ids: np.ndarray, attention_mask: np.ndarray, prompt_tokens: Sequence[int] | None = None) -> np.ndarray:
    """What is to be predicted, int64 in the shape of `input_ids`: the ids themselves, and −100 where no loss is taken.

    That is on what `pad` filled in, and with `prompt_tokens`, on so many first tokens of each row: then only answers are
    learnt, as in a run. The course's own labels are a plain copy, which also learns the questions.

    >>> ids, mask = pad([[7, 8, 9], [5, 6]], 0)
    >>> labels(ids, mask).tolist()
    [[7, 8, 9], [5, 6, -100]]
    >>> labels(ids, mask, prompt_tokens=[2, 1]).tolist()
    [[-100, -100, 9], [-100, 6, -100]]
    """
    in_loss = attention_mask.astype(bool)
    if prompt_tokens is not None:
        behind = np.cumsum(attention_mask, axis=1) > np.asarray(prompt_tokens)[:, None]  # rows time
        in_loss = in_loss & behind
    return np.where(in_loss, input_ids, IGNORED)


def train_test_split(rows: int, *, test_size: float = 0.1, seed: int = 123) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows to train on and of those to test on: a shuffled order, of which the first are tested on.

    It is the split of `datasets`' `train_test_split(test_size=…, shuffle=True, seed=…)`, number by number: NumPy's default
    generator permutes the rows, and test has the first ⌈rows · test_size⌉.

    >>> train, test = train_test_split(1400)
    >>> len(train), len(test)
    (1260, 140)

    A run splits by a hash of each question instead: then rows that are added later do not move the others, and equal questions
    never stand on both sides.
    """
    if not 0 < test_size < 1:
        raise UserError(f"test_size is a share between 0 and 1, found {test_size}.")
    tested = math.ceil(test_size * rows)
    if not 0 < tested < rows:
        raise UserError(f"{rows} rows cannot be split into two parts; expected at least 2.")
    order = np.random.default_rng(seed).permutation(rows)
    return order[tested:], order[:tested]


def save(path: Path | str, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write columns of equal length, texts or lists of ids, to a Parquet file, whole or not at all.

    `luthier run` reads such a file of texts, and `datasets` and pandas read any.
    """
    table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    with whole_file(Path(path)) as file:
        pq.write_table(table, file)


def reload(path: Path | str) -> dict[str, list[Any]]:
    """The columns of a file that `save` wrote.

    >>> import tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "tokens.parquet")
    >>> save(file, {"text": ["Hi", "Yes"], "input_ids": [[12764], [4374]]})
    >>> reload(file)
    {'text': ['Hi', 'Yes'], 'input_ids': [[12764], [4374]]}
    """
    columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return columns
