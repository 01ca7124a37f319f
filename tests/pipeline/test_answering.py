"""Several processes answer questions together: what one alone would answer, in the same order, and no less resumable."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from luthier import pipeline
from luthier import recipe as recipes
from luthier.errors import Interrupted
from luthier.evaluate.context import load_tuned
from luthier.model import generate, replies
from luthier.model.replies import TokenBudget
from luthier.pipeline import answering
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.train.world import ProcessLost

FILES = ("answers", "dev-answers", "guard-answers")
FEW_AT_ONCE = 1 << 15
"""Bytes of keys and values with which a batch of the tiny model has one prompt, or a few short ones."""


@pytest.fixture
def asked(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A run whose base model is asked on dev, on test, and by a guard that draws answers."""
    monkeypatch.setattr(generate, "CACHE_BYTES", FEW_AT_ONCE)
    rows = [{"question": "Why? " * (1 + n % 5) + f"{n}", "answer": f"It is {3 * n}."} for n in range(40)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        f"model={tiny_model}", "train.precision=fp32", "evaluate.arms=zero-shot,few-shot,fine-tuned", "evaluate.shots=2",
        "evaluate.guards=consistency", "evaluate.max_new_tokens=6", "data.test_items=7", "data.dev_items=5",
    ]  # fmt: skip
    return recipes.load(None, words, data=tmp_path / "data.jsonl")


def written(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The answer files, line by line, without the time that an answer took."""
    lines = {name: (folder / "evaluation" / f"{name}.jsonl").read_text().splitlines() for name in FILES}
    return {name: [json.loads(line) | {"seconds": 0} for line in of_file] for name, of_file in lines.items()}


def others() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if answering.MODULE in child.cmdline()]


def once_some_test_answers_are_there(blow: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "arm" and event["split"] == "test" and 0 < event["done"] < event["of"]:
            blow()

    return listen


def test_two_processes_answer_as_one_does_also_where_one_of_them_was_killed(asked: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="stopped before training"):
        pipeline.run(asked, tmp_path / "alone", until_training=True)
    kill = once_some_test_answers_are_there(lambda: others()[0].kill())
    with pytest.raises(ProcessLost, match=r"rank 1 \(process \d+\) was ended by signal 9, SIGKILL"):
        pipeline.run(asked, tmp_path / "two", until_training=True, processes=2, listen=kill)
    assert not others()
    before, whole = written(tmp_path / "two")["answers"], written(tmp_path / "alone")
    assert 0 < len(before) < len(whole["answers"]) and before == whole["answers"][: len(before)]

    with pytest.raises(Interrupted, match="stopped before training"):
        pipeline.run(asked, tmp_path / "two", until_training=True, processes=2)
    assert written(tmp_path / "two") == whole
    assert not others()


def test_the_tuned_model_is_asked_by_all_processes_with_any_number_of_questions(
    asked: Recipe, tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(Interrupted):
        pipeline.run(recipes.replace(asked, {"evaluate.guards": []}), tmp_path / "run", until_training=True)
    shutil.copytree(tiny_model, tmp_path / "run" / "model")
    lm = load_tuned(Run(tmp_path / "run"))
    prompts = [lm.template.tokenizer.encode(text)[0] for text in ("Who?", "Why? " * 20, "Where?", "x", "y? " * 200)]
    room, batches = TokenBudget(5), list[list[int]]()
    alone = replies.ask(lm, prompts, room, on_batch=lambda batch: batches.append(list(batch)))
    with answering.together(tmp_path / "run", 2, "tuned", lambda: False) as ask:
        assert ask(lm, prompts[:1], room)[0].text == alone[0].text
        assert not others(), "one question is not worth another process"
        seen: list[list[int]] = []
        found = ask(lm, prompts, room, on_batch=lambda batch: seen.append(list(batch)))
        assert len(others()) == 1
    assert [replace(one, seconds=0) for one in found] == [replace(one, seconds=0) for one in alone]
    assert seen == batches and len(seen) > 1
