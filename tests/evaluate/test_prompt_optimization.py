"""The search for a better instruction: what it learns from, what it keeps, and that it can be interrupted."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from luthier.chat import Conversation
from luthier.data.dataset import Item
from luthier.errors import Interrupted, MachineError
from luthier.evaluate.prompts import optimization
from luthier.runs.durable import read_json_lines

TRAIN = [Item(str(n), f"d.jsonl:{n}", str(n), Conversation.pair(f"Question {n}?", f"Answer {n}.")) for n in range(20)]


class Task:
    """A task that is solved by saying please: an instruction with that word is right, any other is wrong."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.asked: list[tuple[str, str]] = []
        self.prompts: list[str] = []
        self.stop_after = stop_after

    def answers(self, instruction: str, items: Sequence[Item]) -> list[dict[str, Any]]:
        if len(self.asked) >= self.stop_after:
            raise Interrupted("stopped")
        self.asked += [(instruction, item.id) for item in items]
        right = "please" in instruction
        return [
            {
                "question": item.conversation.question,
                "answer": item.conversation.answer if right else "No.",
                "reference": item.conversation.answer,
                "score": float(right),
            }
            for item in items
        ]

    def reflect(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return "```\nAnswer, please.\n```"


def search(task: Task, folder: Path, budget: int = 60) -> optimization.OptimizedPrompt:
    return optimization.optimize_prompt(
        TRAIN, start="Answer.", ask=task.answers, reflect=task.reflect, budget=budget, seed=0, folder=folder
    )


def test_a_better_instruction_is_kept_with_what_it_cost(tmp_path: Path) -> None:
    task = Task()
    found = search(task, tmp_path)
    assert (found.instruction, found.start, found.mean, found.start_mean) == ("Answer, please.", "Answer.", 1.0, 0.0)
    assert found.answers == len(task.asked) and found.reflections == len(task.prompts)
    assert read_json_lines(tmp_path / "reflections.jsonl")[0]["text"] == "```\nAnswer, please.\n```"


def test_the_reflecting_model_sees_what_was_wrong_and_what_would_have_been_right(tmp_path: Path) -> None:
    task = Task()
    search(task, tmp_path)
    for part in ("Answer.", "No.", "Score 0.00 of 1. The answer in the data is: Answer"):
        assert part in task.prompts[0]


def test_rows_to_reflect_on_and_rows_to_judge_by_are_different(tmp_path: Path) -> None:
    task = Task()
    search(task, tmp_path)
    checked = {name for instruction, name in task.asked[:10]}  # the first instruction, on all rows to judge by
    reflected = {
        item.id for item in TRAIN if any(f"{item.conversation.question}\n" in prompt for prompt in task.prompts)
    }
    assert len(checked) == 10 and reflected and not checked & reflected


def test_nothing_better_leaves_the_instruction_as_it_was(tmp_path: Path) -> None:
    task = Task()
    task.reflect = lambda prompt: "```\nAnswer at once.\n```"  # type: ignore[method-assign]
    found = search(task, tmp_path)
    assert (found.instruction, found.mean) == ("Answer.", 0.0)


def test_an_interrupted_search_ends_like_one_that_was_not_and_reflects_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = search(Task(), tmp_path / "a")
    before, after = Task(stop_after=13), Task()
    with pytest.raises(Interrupted):
        search(before, tmp_path / "b")
    assert search(after, tmp_path / "b") == whole
    assert len(before.prompts) == 1 and after.prompts == []


def test_a_finished_search_is_not_made_again(tmp_path: Path) -> None:
    found = search(Task(), tmp_path)
    idle = Task()
    assert search(idle, tmp_path) == found and not idle.asked


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gepa", None)
    with pytest.raises(MachineError, match=r'needs the package gepa: pip install "luthier\[optimise\]"'):
        optimization.require_gepa()
