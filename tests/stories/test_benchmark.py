"""`luthier benchmark` as a person uses it."""

import importlib.util
import json
from pathlib import Path

import pytest

from .conftest import Command
from .test_bad_input import refused

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs the extra: pip install 'luthier[benchmark]'"
)
QUESTIONS = [
    ("What colour is grass?", ["green", "red", "blue"], 0),
    ("How many wheels has a bicycle?", ["two", "five", "none"], 0),
    ("Where do fish live?", ["in trees", "in water", "in clouds"], 1),
]


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    path = tmp_path / "quiz.jsonl"
    rows = [{"question": text, "choices": choices, "answer": right} for text, choices, right in QUESTIONS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@needs_lm_eval
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_measured_beside_its_base_model(luthier: Command, done: Path, quiz: Path) -> None:
    screen = luthier("benchmark", done, "--tasks", quiz)
    assert screen.code == 0, screen.err
    head, line = screen.out.splitlines()[:2]
    assert head.split()[:5] == ["task", "items", "metric", "fine-tuned", "base"]
    assert line.split()[:3] == ["quiz", "3", "acc"]
    found = json.loads((done / "evaluation" / "benchmarks.json").read_text())
    assert found["arms"] == ["fine-tuned", "base"]
    assert found["tasks"][0]["metrics"][0]["test"] == "McNemar mid-p"
    answers = (done / "evaluation" / "benchmark-answers.jsonl").read_text().splitlines()
    assert len(answers) == 6
    alone = luthier("benchmark", done, "--tasks", quiz, "--no-base", "--limit", 2, "--quiet")
    assert alone.err == "" and alone.out.splitlines()[1].split()[:2] == ["quiz", "2"]


@needs_lm_eval
@pytest.mark.filterwarnings("ignore")
def test_any_model_can_be_measured_alone(luthier: Command, tiny_model: Path, quiz: Path) -> None:
    screen = luthier("benchmark", tiny_model, "--tasks", quiz)
    assert screen.code == 0, screen.err
    assert screen.out.splitlines()[1].split()[:3] == ["quiz", "3", "acc"]
    assert not (tiny_model / "evaluation").exists()


@needs_lm_eval
def test_what_cannot_be_measured_is_said(luthier: Command, tiny_model: Path, quiz: Path, tmp_path: Path) -> None:
    refused(luthier("benchmark", tiny_model, "--tasks", quiz, "--base"), 2, "only a run has a base model")
    refused(luthier("benchmark", tmp_path / "no", "--tasks", quiz), 2, "has no folder no")
    refused(luthier("benchmark", tiny_model, "--tasks", "quizz.jsonl"), 2, "no such file")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    refused(
        luthier("benchmark", tiny_model, "--tasks", tmp_path / "other.jsonl"), 2, "found the columns a. Expected one of"
    )


def test_a_missing_lm_eval_is_reported_with_the_line_that_installs_it(
    luthier: Command, tiny_model: Path, quiz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "lm_eval" else found(name, *rest)
    )
    screen = luthier("benchmark", tiny_model, "--tasks", quiz)
    refused(screen, 4, "pip install 'luthier[benchmark]'")
