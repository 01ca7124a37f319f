"""A file of questions is answered once, however often it is begun."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from luthier import inference
from luthier.errors import Interrupted, UserError
from luthier.inference import question_file
from luthier.model import generate
from luthier.runs import durable
from luthier.runs.durable import read_json_lines


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six questions, each in a batch of its own."""
    monkeypatch.setattr(generate, "CACHE_BYTES", 1)
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": f"What is {number}?"}) + "\n" for number in range(6)))
    return path


@pytest.fixture
def prompts_answered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts the model got, call by call."""
    real, found = generate.answer, []

    def counted(lm: Any, prompts: Any, **more: Any) -> Any:
        found.append(len(prompts))
        return real(lm, prompts, **more)

    monkeypatch.setattr(generate, "answer", counted)
    return found


def stop_at(line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when so many answers are being written."""
    real = durable.append_json_lines

    def write(path: Path, lines: list[dict[str, Any]]) -> None:
        if len(read_json_lines(path)) == line:
            signal.raise_signal(signal.SIGINT)
        real(path, lines)

    monkeypatch.setattr(question_file.durable, "append_json_lines", write)


def ask(model: Path, questions: Path, **more: Any) -> tuple[int, int]:
    return inference.ask_file(str(model), questions, questions.with_name("a.jsonl"), **{"max_new_tokens": 4, **more})


def test_a_stopped_file_of_questions_goes_on_with_what_is_missing(
    tiny_model: Path, questions: Path, prompts_answered: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(tiny_model, questions)
    output, part = questions.with_name("a.jsonl"), questions.with_name("a.jsonl.part")
    wanted = output.read_bytes()
    output.unlink()
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        with pytest.raises(Interrupted, match=r"a.jsonl.part: stopped with 2 of 6 answers, which are kept; the same"):
            ask(tiny_model, questions)
    assert not output.exists() and [line.get("row") for line in read_json_lines(part)] == [None, 0, 1]
    with part.open("a") as file:
        file.write('{"row": 2, "ans')  # as a crash may leave it
    assert ask(tiny_model, questions) == (6, 0)
    assert prompts_answered == [6, 6, 4]
    assert output.read_bytes() == wanted and not part.exists()


def test_answers_to_other_questions_or_of_other_lengths_are_not_taken(
    tiny_model: Path, questions: Path, prompts_answered: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        with pytest.raises(Interrupted):
            ask(tiny_model, questions)
    ask(tiny_model, questions, max_new_tokens=5)
    assert prompts_answered == [6, 6]


def test_a_file_that_is_not_ours_is_not_written_over(tiny_model: Path, questions: Path) -> None:
    part = questions.with_name("a.jsonl.part")
    part.write_text('{"mine": 1}\n')
    with pytest.raises(UserError, match="already there, and no file of `luthier ask`; move it away"):
        ask(tiny_model, questions)
    assert part.read_text() == '{"mine": 1}\n'
