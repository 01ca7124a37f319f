"""The course's data lab: its own numbers, its split, and each step on a few numbers worked out by hand."""

import contextlib
import doctest
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from luthier.data import prompt_templates, read_rows, step_by_step
from luthier.errors import UserError
from luthier.recipe import Data

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lesson.md"


@pytest.mark.parametrize("module", [step_by_step, prompt_templates], ids=lambda module: module.__name__)
def test_the_examples_of_the_functions_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_the_page_prints_the_courses_numbers(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lamini_docs.jsonl.gz", "20B_tokenizer.json"):
        shutil.copy(shared_data / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    for code, expected in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == expected


def test_the_courses_golden_ids(shared_data: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(shared_data / "20B_tokenizer.json"))
    three = step_by_step.tokenize(["Hi, how are you?", "I'm good", "Yes"], lambda text: tokenizer.encode(text).ids)
    assert three == [[12764, 13, 849, 403, 368, 32], [42, 1353, 1175], [4374]]
    assert step_by_step.pad(three, 0)[0].tolist() == [
        [12764, 13, 849, 403, 368, 32], [42, 1353, 1175, 0, 0, 0], [4374, 0, 0, 0, 0, 0],
    ]  # fmt: skip
    assert step_by_step.truncate(three, 3)[0] == [12764, 13, 849]
    left = step_by_step.truncate(three, 3, side="left")
    assert step_by_step.pad(left, 0)[0].tolist() == [[403, 368, 32], [42, 1353, 1175], [4374, 0, 0]]


def test_the_courses_split_has_its_rows(shared_data: Path) -> None:
    rows = [row.values for row in read_rows(shared_data / "lamini_docs.jsonl.gz")]
    train, test = step_by_step.train_test_split(len(rows))
    refusals = [at for at, row in enumerate(train) if "keep the discussion relevant" in str(rows[row]["answer"])]
    assert "technical documentation" in str(rows[test[0]]["question"])
    assert refusals[:12] == [65, 69, 134, 139, 204, 221, 246, 260, 295, 304, 317, 388] and len(refusals) == 37
    assert sorted([*train, *test]) == list(range(1400)) and len(test) == 140


def test_the_split_is_that_of_datasets_for_other_sizes_and_seeds() -> None:
    # What datasets 4's Dataset.train_test_split gave for rows 0 … n-1.
    train, test = step_by_step.train_test_split(11, test_size=0.3, seed=5)
    assert (train.tolist(), test.tolist()) == ([2, 4, 6, 0, 9, 5, 8], [10, 7, 1, 3])
    assert step_by_step.train_test_split(7, test_size=0.1, seed=5)[1].tolist() == [1]


def test_what_is_cut_and_filled_up_on_either_side() -> None:
    tokens = [[1, 2, 3, 4], [5], []]
    assert step_by_step.truncate(tokens, 2) == [[1, 2], [5], []]
    assert step_by_step.truncate(tokens, 2, side="left") == [[3, 4], [5], []]
    ids, mask = step_by_step.pad(tokens, 9, side="left", length=5)
    assert ids.tolist() == [[9, 1, 2, 3, 4], [9, 9, 9, 9, 5], [9] * 5]
    assert mask.tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 0, 1], [0] * 5]


def test_labels_leave_out_what_was_filled_in_and_the_prompt() -> None:
    ids, mask = step_by_step.pad([[0, 7, 8], [0, 6]], 0, side="left")
    assert step_by_step.labels(ids, mask).tolist() == [[0, 7, 8], [-100, 0, 6]]
    assert step_by_step.labels(ids, mask, [1, 1]).tolist() == [[-100, 7, 8], [-100, -100, 6]]


def test_what_is_saved_is_there_again_and_is_data_for_a_run(tmp_path: Path) -> None:
    from luthier.data import load

    rows = {"question": ["Where?", "When?", "Who?"], "answer": ["Here.", "Now.\n", "1.50"]}
    step_by_step.save(tmp_path / "rows.parquet", rows)
    assert step_by_step.reload(tmp_path / "rows.parquet") == rows
    assert [item.conversation.answer for item in load(Data(path=tmp_path / "rows.parquet")).items] == rows["answer"]
    step_by_step.save(tmp_path / "tokens.parquet", {"ids": np.array([[1, 2], [3, 0]]), "mask": [[1, 1], [1, 0]]})
    assert step_by_step.reload(tmp_path / "tokens.parquet") == {"ids": [[1, 2], [3, 0]], "mask": [[1, 1], [1, 0]]}


def test_a_row_without_a_column_of_the_template_is_told() -> None:
    with pytest.raises(UserError, match=r"^the row has no question and no answer; it has Frage\.$"):
        step_by_step.fill("question-answer", {"Frage": "Wo?"})


def test_what_cannot_be_cut_filled_up_or_split_is_told() -> None:
    with pytest.raises(UserError, match=r"^a length of 0 leaves no token; expected 1 or more\.$"):
        step_by_step.truncate([[1]], 0)
    with pytest.raises(UserError, match=r"^a row of 3 tokens does not fit into 2; truncate first\.$"):
        step_by_step.pad([[1, 2, 3]], 0, length=2)
    with pytest.raises(UserError, match=r"^test_size is a share between 0 and 1, found 10\.$"):
        step_by_step.train_test_split(100, test_size=10)
    with pytest.raises(UserError, match=r"^1 rows cannot be split into two parts; expected at least 2\.$"):
        step_by_step.train_test_split(1)
