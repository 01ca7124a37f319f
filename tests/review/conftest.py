"""A finished run as the review sees it: a verdict's best prompt, and two arms' answers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.runs import Run
from luthier.runs.durable import append_json_lines

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A run folder with so many test questions; the answers to those named in `same` are one text."""

    def make(name: str = "r", *, items: int = 30, same: tuple[int, ...] = ()) -> Run:
        run = Run.create(tmp_path / name, asked={"model": "tiny"})
        (run.folder / "evaluation" / "verdict.json").write_text(json.dumps({"best_prompt_arm": "few-shot"}))
        lines = []
        for number in range(items):
            for arm in ("zero-shot", "few-shot", "fine-tuned"):
                text = "alike" if number in same else f"{arm} answers {number}".replace("-", "")
                lines.append({
                    "item": f"i{number:02}", "group": f"g{number}", "arm": arm, "answer": text,
                    "question": f"Question {number}?", "reference": f"reference {number}",
                })  # fmt: skip
        append_json_lines(run.folder / "evaluation" / "answers.jsonl", lines)
        return run

    return make
