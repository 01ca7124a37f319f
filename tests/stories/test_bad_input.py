"""What bad input gets: one message on the screen, the documented exit code, no traceback, nothing half written."""

import json
import shutil
from pathlib import Path

import pytest

from luthier.runs import Run

from .conftest import Command, Screen


def refused(screen: Screen, code: int, *parts: str) -> None:
    """The command failed with this code and these words, and said nothing on stdout."""
    assert screen.code == code, screen.err
    assert screen.out == ""
    assert screen.err.startswith("luthier: ") or screen.err.startswith("Run ")
    assert "Traceback" not in screen.err
    for part in parts:
        assert part in screen.err


@pytest.fixture
def run(luthier: Command, tmp_path: Path, quick: list[str]):  # type: ignore[no-untyped-def]
    """Starts a run on a file with this content, and checks that a refused one leaves no folder."""

    def start(content: bytes | str | None, *words: object, name: str = "d.jsonl") -> Screen:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        screen = luthier("run", path, *quick, *words, "--run", tmp_path / "r")
        if screen.code:
            assert not (tmp_path / "r").exists()
        return screen

    return start


PAIR = '{"question": "Why?", "answer": "So."}\n'


def test_a_missing_file(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(None), 2, "d.jsonl", "no such file")


def test_an_empty_file(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(""), 2, "d.jsonl", "empty")


def test_a_file_that_is_not_utf8(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(PAIR.encode() + b'{"question": "caf\xe9", "answer": "x"}\n'), 2, "d.jsonl:2", "UTF-8")


def test_broken_json(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(PAIR + '{"question": "Why?", \n'), 2, "d.jsonl:2", "JSON")


def test_unknown_columns(run) -> None:  # type: ignore[no-untyped-def]
    refused(run('{"links": "Haus", "rechts": "huis"}\n' * 5), 2, "links", "rechts", "data.columns.")


def test_a_column_named_in_the_recipe_that_is_not_there(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(PAIR * 5, "data.columns.question=questoin"), 2, "data.columns.question", 'did you mean "question"?')


def test_no_usable_rows(run) -> None:  # type: ignore[no-untyped-def]
    refused(run('{"question": "", "answer": "x"}\n' * 3), 2, "no usable row", "3 empty question")


def test_one_row(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(PAIR), 2, "found 1 usable row in 1 group, expected at least 3 groups")


def test_answers_longer_than_the_context(run) -> None:  # type: ignore[no-untyped-def]
    rows = "".join(json.dumps({"question": f"{number}?", "answer": "long " * 500}) + "\n" for number in range(5))
    refused(run(rows), 2, "no row fits: with 512 tokens", "Use a model with a longer context, or shorter rows")


def test_an_unknown_recipe_key(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(PAIR, "train.epoch=3"), 2, 'unknown recipe key "train.epoch", did you mean "train.epochs"?')


def test_an_unknown_model(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(PAIR * 5, "model=smollm2"), 2, 'unknown model "smollm2", did you mean "smollm2-135m"?')


def test_an_unknown_arm_and_an_unknown_metric(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(PAIR, "evaluate.arms=zero-shoot,fine-tuned"), 2, 'unknown arm "zero-shoot", did you mean "zero-shot"?')
    refused(run(PAIR, "evaluate.arms=fine-tuned"), 2, 'a verdict needs "fine-tuned" and at least one other arm')
    refused(run(PAIR, "evaluate.metric=acuracy"), 2, 'unknown metric "acuracy", did you mean "accuracy"?')


def test_pickled_weights(run, tiny_model: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(tiny_model, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    refused(run(PAIR * 5, f"model={tmp_path / 'pickled'}"), 2, "the weights are pickled (pytorch_model.bin)")


def test_a_run_folder_in_use(luthier: Command, done: Path) -> None:
    current = Run(done)
    current.update(state="interrupted")
    with current.working():
        refused(luthier("run", "--run", done), 4, "the run is in use by process")


def test_a_full_disk(luthier: Command, data: Path, quick: list[str], small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 1_650_000)
    refused(luthier("run", data, *quick, "--run", small_disk / "r"), 4, "the disk is full")
    assert not [path for path in small_disk.rglob("*") if "tmp" in path.name]
    (small_disk / "ballast").unlink()


def test_a_full_disk_can_be_mended_and_the_run_goes_on(
    luthier: Command, data: Path, quick: list[str], small_disk: Path
) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 1_650_000)
    assert luthier("run", data, *quick, "--run", small_disk / "r").code == 4
    (small_disk / "ballast").unlink()
    screen = luthier("run", "--run", small_disk / "r")
    assert screen.code == 0, screen.err


def test_nothing_to_run(luthier: Command) -> None:
    refused(luthier("run"), 2, "no data: name a file or folder")


def test_a_folder_that_is_no_run(luthier: Command, tmp_path: Path) -> None:
    refused(luthier("chat", tmp_path / "none"), 2, "none")
    refused(luthier("report", tmp_path), 2, "not a run folder")
    refused(luthier("run", "--run", tmp_path), 2, "no data")


def test_two_data_files_at_once(luthier: Command) -> None:
    refused(luthier("run", "a.jsonl", "b.jsonl"), 2, "one data file or folder at a time")


def test_questions_without_a_question_column(luthier: Command, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"subject": "x"}\n')
    screen = luthier("ask", finished, tmp_path / "q.jsonl", "-o", tmp_path / "a.jsonl")
    refused(screen, 2, "q.jsonl: no column of questions among subject")
    assert not (tmp_path / "a.jsonl").exists()


def test_answers_that_are_all_the_same_label(run) -> None:  # type: ignore[no-untyped-def]
    rows = "".join(json.dumps({"question": f"Is {number} a number?", "answer": "yes"}) + "\n" for number in range(40))
    refused(run(rows), 2, "d.jsonl", 'reference answers are "yes"', "with one class. Add rows with other answers.")


def test_a_schema_that_is_not_there(run) -> None:  # type: ignore[no-untyped-def]
    refused(run(PAIR * 5, "evaluate.json_schema=none.json"), 2, "evaluate.json_schema: none.json: no such file")


def test_a_judge_that_is_not_there(run) -> None:  # type: ignore[no-untyped-def]
    refused(
        run(PAIR * 5, "evaluate.judge=no_such_module:judge"),
        2,
        'evaluate.judge: "no_such_module:judge" cannot be imported',
    )
