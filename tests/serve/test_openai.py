"""OpenAI's own client, unmodified and strict about types, against a server in a process of its own."""

import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from luthier.chat import Message
from luthier.model import loading, replies
from luthier.model.replies import TokenBudget
from serving import Running

HELLO = [{"role": "user", "content": "How do I reset my password?"}]
ROWS = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n' * 10


def refused(call: Callable[[], object]) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    return caught.value


def test_files_come_back_as_they_went(strict: OpenAI) -> None:
    uploads = [strict.files.create(file=(f"{name}.jsonl", ROWS), purpose="fine-tune") for name in "abc"]
    ids = [file.id for file in uploads]
    assert [file.id for file in strict.files.list(limit=2)][:3] == ids[::-1]  # the client turns the pages
    assert [file.id for file in strict.files.list(order="asc", after=ids[0], limit=1)][:2] == ids[1:]
    found = strict.files.wait_for_processing(ids[0])
    assert (found.bytes, found.filename, found.status) == (len(ROWS), "a.jsonl", "processed")
    assert strict.files.content(ids[0]).read() == ROWS
    assert strict.files.delete(ids[0]).deleted
    assert refused(lambda: strict.files.retrieve(ids[0])).status_code == 404
    assert refused(lambda: strict.files.create(file=("x", b""), purpose="fine-tune")).param == "file"


def test_a_chat_says_what_luthier_ask_says(strict: OpenAI, tiny_model: Path) -> None:
    lm = loading.load(str(tiny_model))
    [alone] = replies.ask(lm, [lm.template.prompt([Message("user", str(HELLO[0]["content"]))])], TokenBudget(24))
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 24, "temperature": 0}
    whole = strict.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert whole.choices[0].message.content == alone.text
    assert whole.choices[0].finish_reason == alone.finish
    assert whole.usage.completion_tokens == alone.tokens
    chunks = list(strict.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == alone.text
    assert chunks[-2].choices[0].finish_reason == alone.finish
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage


def test_answers_are_drawn_by_their_seed(strict: OpenAI) -> None:
    def drawn(seed: int) -> list[str | None]:
        found = strict.chat.completions.create(model="tiny", messages=HELLO, max_tokens=8, n=3, seed=seed)  # type: ignore[arg-type]
        return [choice.message.content for choice in found.choices]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 3


def test_likelihoods_come_with_a_chat(strict: OpenAI) -> None:
    found = strict.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3,  # type: ignore[arg-type]
    )  # fmt: skip
    assert found.choices[0].logprobs
    for entry in found.choices[0].logprobs.content or []:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs)  # greedy


def test_an_answer_keeps_to_a_schema(strict: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    found = strict.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=200, seed=7, temperature=0.1,  # type: ignore[arg-type]
        response_format={"type": "json_schema", "json_schema": {"name": "letter", "schema": schema}},
    )  # fmt: skip
    assert found.choices[0].finish_reason == "stop"
    assert json.loads(found.choices[0].message.content or "")["a"] in ("x", "y")


def test_a_stop_string_ends_an_answer_and_is_no_part_of_it(strict: OpenAI) -> None:
    asked = {"model": "tiny", "prompt": "How do", "max_tokens": 20, "temperature": 0}
    whole = strict.completions.create(**asked).choices[0].text  # type: ignore[call-overload]
    found = strict.completions.create(**asked, stop=[whole[3:6]]).choices[0]  # type: ignore[call-overload]
    assert (found.text, found.finish_reason) == (whole[: whole.index(whole[3:6])], "stop")


def test_prompts_are_scored_for_lm_eval(server: Running) -> None:
    """One entry for each token of the prompt and of the answer; the first has none before it."""
    prompts = [[5, 6, 7, 8], [9, 10]]
    body = {"model": "tiny", "prompt": prompts, "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
    answer = server.ask("POST", "/v1/completions", json=body).json()
    for prompt, choice in zip(prompts, answer["choices"], strict=True):
        scores = choice["logprobs"]
        assert {len(values) for values in scores.values()} == {len(prompt) + 1}
        assert scores["token_logprobs"][0] is None and scores["top_logprobs"][0] is None
        for own, top in zip(scores["token_logprobs"][1:], scores["top_logprobs"][1:], strict=True):
            assert own in top.values() and own <= max(top.values()) < 0
    assert answer["usage"] == {"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}
    streamed = list(server.client(strict=False).completions.create(**{**body, "prompt": [5, 6]}, stream=True))  # type: ignore[call-overload]
    assert streamed[-1].choices[0].finish_reason == "length"


def test_a_prompt_at_the_context_s_end_is_told_the_numbers(strict: OpenAI) -> None:
    def ask(tokens: int, more: int) -> object:
        return strict.completions.create(model="tiny", prompt=[5] * tokens, max_tokens=more)

    ask(500, 12)
    error = refused(lambda: ask(500, 13))
    assert error.code == "context_length_exceeded"
    assert "512 tokens" in error.message and "513 tokens (500 in the prompt, 13 in the completion)" in error.message


def test_what_is_not_there_is_refused_in_openai_s_words(strict: OpenAI) -> None:
    chat = strict.chat.completions.create
    unknown = refused(lambda: chat(model="gpt-4.1", messages=HELLO))  # type: ignore[call-overload]
    assert (unknown.status_code, unknown.code, unknown.param) == (404, "model_not_found", "model")
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    assert refused(lambda: chat(model="tiny", messages=HELLO, tools=[tool])).param == "tools"  # type: ignore[call-overload]
    assert refused(lambda: strict.embeddings.create(model="tiny", input="a")).code == "model_not_supported"
    assert refused(lambda: strict.models.delete("tiny")).status_code == 403
    job = {"model": "tiny", "training_file": "file-" + "a" * 24}
    assert refused(lambda: strict.fine_tuning.jobs.create(**job)).param == "training_file"  # type: ignore[arg-type]
    wrong = OpenAI(base_url=strict.base_url, api_key="sk-wrong", max_retries=0)
    assert refused(wrong.models.list).status_code == 401


def test_a_schema_that_cannot_be_followed_is_refused_at_once(strict: OpenAI) -> None:
    deep: dict[str, object] = {"type": "integer"}
    for _ in range(60):
        deep = {"type": "array", "items": deep}
    bombs = [{"type": "what"}, {"$ref": "#"}, {"type": "string", "pattern": "(a+)+" * 400}, deep]
    for schema in bombs:
        start = time.monotonic()
        try:
            strict.chat.completions.create(
                model="tiny", messages=HELLO, max_tokens=2,  # type: ignore[arg-type]
                response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            )  # fmt: skip
        except openai.APIStatusError as error:
            assert error.status_code == 400, schema
        assert time.monotonic() - start < 5


def test_the_slot_of_a_client_that_leaves_is_free_again(server: Running) -> None:
    def used() -> float:
        found = re.search(r"^luthier_slots_in_use ([\d.]+)$", server.ask("GET", "/metrics").text, re.MULTILINE)
        assert found
        return float(found[1])

    body = json.dumps({"model": "tiny", "messages": HELLO, "stream": True, "seed": 1, "logit_bias": {}}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer sk-test-of-the-service\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            assert b"data:" in connection.recv(4096) + connection.recv(4096)
    deadline = time.monotonic() + 10
    while used() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert used() == 0


def test_a_request_that_two_programs_read_differently_is_refused(server: Running) -> None:
    head = "GET /v1/models HTTP/1.1\r\nAuthorization: Bearer sk-test-of-the-service\r\n"
    attacks = {
        f"{head}Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n": b"400",
        f"{head}Host: evil.test\r\n\r\n": b"421",
        f"{head}\r\n\r\n": b"421",
        f"{head}Host: 127.0.0.1\r\nX: {'a' * 60_000}\r\n\r\n": b"431",
        f"{head}Host: 127.0.0.1\r\nX: {'a' * 1_000_000}\r\n\r\n": b"431",
        "nonsense\r\n\r\n": b"400",
    }
    for text, status in attacks.items():
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(text.encode())
            assert status in connection.recv(100), text[:90]
