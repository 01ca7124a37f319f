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


CHAT = {"model": "tiny", "messages": [{"role": "user", "content": BODY["input"]}], "guided_choice": BODY["answers"]}


def chosen(app: Any, **changed: Any) -> dict[str, Any]:
    answer = ask_app(app, "POST", "/v1/chat/completions", json={**CHAT, **changed})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_chat_with_allowed_answers_gives_their_probabilities_as_logprobs(app: Any) -> None:
    wanted = {each["answer"]: each["probability"] for each in decide(app)["answers"]}
    (choice,) = chosen(app, temperature=0, logprobs=True, top_logprobs=20)["choices"]
    (entry,) = choice["logprobs"]["content"]
    assert choice["message"]["content"] == entry["token"] == max(wanted, key=lambda answer: wanted[answer])
    found = {each["token"]: math.exp(each["logprob"]) for each in entry["top_logprobs"]}
    assert found == pytest.approx(wanted, rel=1e-6) and bytes(entry["bytes"]).decode() == entry["token"]
    later = chosen(app, guided_choice=None, structured_outputs={"choice": BODY["answers"]}, temperature=0)
    assert later["choices"][0]["message"] == choice["message"] and later["choices"][0]["logprobs"] is None


def test_allowed_answers_are_drawn_by_their_probabilities(app: Any) -> None:
    wanted = {each["answer"]: each["probability"] for each in decide(app)["answers"]}
    found = [one["message"]["content"] for one in chosen(app, n=128, seed=5)["choices"]]
    for answer, probability in wanted.items():
        assert abs(found.count(answer) / 128 - probability) < 4 * math.sqrt(0.25 / 128)
    assert found == [one["message"]["content"] for one in chosen(app, n=128, seed=5)["choices"]]
    likeliest = max(wanted, key=lambda answer: wanted[answer])
    for sharp in ({"top_p": 0.01}, {"temperature": 1e-9}):
        assert {one["message"]["content"] for one in chosen(app, n=16, **sharp)["choices"]} == {likeliest}


def test_an_allowed_answer_is_streamed_in_one_piece(app: Any) -> None:
    more = {"stream": True, "stream_options": {"include_usage": True}, "logprobs": True, "temperature": 0}
    answer = ask_app(app, "POST", "/v1/chat/completions", json={**CHAT, **more})
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    said, end, usage = map(json.loads, lines[:-1])
    assert said["choices"][0]["delta"]["content"] == said["choices"][0]["logprobs"]["content"][0]["token"]
    assert end["choices"][0]["finish_reason"] == "stop" and usage["usage"]["completion_tokens"] > 0
    assert lines[-1] == "[DONE]"


@pytest.mark.parametrize(
    "changed",
    [{"guided_choice": ["a", "a"]}, {"guided_choice": ["a"]}, {"response_format": {"type": "json_object"}}],
    ids=["twice", "one", "two forms"],
)
def test_allowed_answers_that_cannot_be_are_refused(app: Any, changed: dict[str, Any]) -> None:
    assert ask_app(app, "POST", "/v1/chat/completions", json={**CHAT, **changed}).status_code == 400
