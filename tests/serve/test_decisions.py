"""Decisions over HTTP: probabilities are the model's own likelihoods, at the temperature of its run."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from luthier.chat import Message
from luthier.evaluate import decisions
from luthier.model import likelihood, loading
from luthier.serve.service import Service

from .conftest import ask_app

BODY = {"model": "tiny", "input": "Refund or invoice?", "answers": ["refund", "invoice", "other"]}


def decide(app: Any, **changed: Any) -> dict[str, Any]:
    answer = ask_app(app, "POST", "/v1/decisions", json={**BODY, **changed})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_probabilities_are_the_model_s_likelihoods(app: Any, tiny_model: Path) -> None:
    found = decide(app)
    lm = loading.load(str(tiny_model))
    pairs = decisions.pairs(lm.template, [(Message("user", BODY["input"]),)], BODY["answers"])
    logs = {a: one.logprob for a, one in zip(BODY["answers"], likelihood.continuations(lm, pairs), strict=True)}
    total = sum(map(math.exp, logs.values()))
    assert [each["answer"] for each in found["answers"]] == sorted(logs, key=lambda answer: -logs[answer])
    for each in found["answers"]:
        assert each["probability"] == pytest.approx(math.exp(logs[each["answer"]]) / total, rel=1e-3)
    assert found["allowed_mass"] == pytest.approx(total, rel=1e-3) and found["calibrated"] is False
    asked = [{"role": "user", "content": BODY["input"]}]
    assert decide(app, input=None, messages=asked)["answers"] == found["answers"]


def test_a_run_knows_its_labels_and_its_temperature(app: Any, service: Service, tiny_model: Path) -> None:
    run = service.jobs.store.home / "models" / "labels"
    shutil.copytree(tiny_model, run)
    (run.parent / "evaluation").mkdir()
    (run.parent / "recipe.toml").write_text('model = "tiny"\n[data]\npath = "rows.jsonl"\n')
    noted = {"answers": ["invoice", "refund"], "temperature": 4.0, "dev": 50}
    (run.parent / "evaluation" / "decisions.json").write_text(json.dumps(noted))
    try:
        found = decide(app, model="labels", answers=None)
        plain = decide(app, model="labels", answers=["invoice", "refund", "neither"])
    finally:
        (run.parent / "recipe.toml").unlink()
    first, second = found["answers"]
    assert (found["temperature"], found["calibrated"]) == (4.0, True)
    odds = math.exp((first["logprob"] - second["logprob"]) / 4.0)
    assert first["probability"] / second["probability"] == pytest.approx(odds, rel=1e-4)
    assert (plain["temperature"], plain["calibrated"]) == (1.0, False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answers": None}, "Missing required parameter: 'answers'"),
        ({"answers": ["a", "a"]}, "an answer is allowed twice"),
        ({"input": None}, "expected either input or messages"),
        ({"answers": ["a"]}, "at least 2"),
        ({"input": "word " * 3000}, "maximum context length"),
        ({"input": None, "messages": [{"role": "assistant", "content": "Hello."}]}, "a question at their end"),
    ],
    ids=lambda value: "" if isinstance(value, str) else json.dumps(value)[:40],
)
def test_a_question_that_cannot_be_decided_is_refused(app: Any, changed: dict[str, Any], message: str) -> None:
    answer = ask_app(app, "POST", "/v1/decisions", json={**BODY, **changed})
    assert answer.status_code == 400 and message.lower() in answer.json()["error"]["message"].lower(), answer.text
