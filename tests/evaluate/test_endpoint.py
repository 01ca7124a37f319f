"""Models elsewhere: what they are sent, what their answers become, and what happens when they give none."""

import json
import socket
from typing import Any

import pytest

from luthier.chat import Message, ToolCall
from luthier.errors import UserError
from luthier.evaluate.answers.endpoint import Endpoint, Unavailable
from luthier.recipe import Endpoint as Settings
from openai_server import Reply, completion, serving

HELLO = [Message("system", "Be brief."), Message("user", "Hello?")]


def endpoint(url: str, **settings: Any) -> Endpoint:
    made = Endpoint.of("big", Settings(url=url, model="m", **settings))
    made.pause_seconds = 0.001
    return made


def test_an_answer_comes_with_its_cost() -> None:
    with serving(lambda body, number: completion(" Hi. ", "length")) as server:
        response = endpoint(server.url).ask(HELLO, max_new_tokens=7)
    assert (response.answer.text, response.answer.finish, response.prompt_tokens, response.answer.tokens) == (
        "Hi.", "length", 11, 3,
    )  # fmt: skip
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("m", 0, 7)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIG_KEY", "open sesame")
    with serving(lambda body, number: completion("Hi.")) as server:
        endpoint(server.url, key_env="BIG_KEY").ask(HELLO, max_new_tokens=7)
        endpoint(server.url).ask(HELLO, max_new_tokens=7)
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer open sesame", None]


def test_a_missing_key_and_a_wrong_address_are_reported_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIG_KEY", raising=False)
    with pytest.raises(UserError, match=r'endpoints.big.key_env: the environment variable "BIG_KEY" is not set'):
        endpoint("http://localhost:1/v1", key_env="BIG_KEY")
    with pytest.raises(UserError, match=r'endpoints.big.url: found "localhost:8000", expected an address such as'):
        endpoint("localhost:8000")


def test_a_busy_endpoint_is_asked_again() -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        return completion("At last.") if number == 2 else ((429, 503)[number], {"error": {"message": "busy"}})

    with serving(reply) as server:
        assert endpoint(server.url).ask(HELLO, max_new_tokens=7).answer.text == "At last."


def test_an_endpoint_that_stays_busy_is_given_up() -> None:
    with serving(lambda body, number: (500, b"no luck")) as server:
        with pytest.raises(Unavailable, match=r"it answered 500 \(no luck\) after 4 tries"):
            endpoint(server.url).ask(HELLO, max_new_tokens=7)
        assert len(server.asked) == 4


def test_a_refusal_is_not_tried_again() -> None:
    with serving(lambda body, number: (401, {"error": {"message": "wrong key"}})) as server:
        with pytest.raises(Unavailable, match=r"it answered 401 \(wrong key\)"):
            endpoint(server.url).ask(HELLO, max_new_tokens=7)
        assert len(server.asked) == 1


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(lambda body, number: completion("Hi.")) as elsewhere:
        for status in (301, 302, 307):
            reply = (status, f"{elsewhere.url}/chat/completions")
            with (
                serving(lambda body, number, reply=reply: reply) as server,  # type: ignore[misc]
                pytest.raises(Unavailable, match=f"it answered {status}"),
            ):
                endpoint(server.url, key_env="MY_KEY").ask(HELLO, max_new_tokens=7)
        assert elsewhere.asked == []


def test_nobody_at_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(Unavailable, match=r"no answer from http://127.0.0.1:\d+/v1 .*refused.* after 4 tries"):
        endpoint(url).ask(HELLO, max_new_tokens=7)


@pytest.mark.parametrize("content", [b"<html>", {"choices": []}, {"error": "x"}, [1]])
def test_what_is_no_answer_is_not_taken_for_one(content: Any) -> None:
    with serving(lambda body, number: (200, content)) as server, pytest.raises(Unavailable, match=r"no JSON|no chat"):
        endpoint(server.url).ask(HELLO, max_new_tokens=7)


def test_the_newer_name_of_the_token_limit_is_found() -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        refusal = {"error": {"message": "Unsupported: max_tokens. Use max_completion_tokens instead."}}
        return completion("Hi.") if "max_completion_tokens" in body else (400, refusal)

    with serving(reply) as server:
        big = endpoint(server.url)
        assert [big.ask(HELLO, max_new_tokens=7).answer.text for _ in range(2)] == ["Hi.", "Hi."]
        assert len(server.asked) == 3


def test_many_questions_keep_their_numbers() -> None:
    prompts = [([Message("user", str(number))], ()) for number in range(20)]
    with serving(lambda body, number: completion(f"<{body['messages'][0]['content']}>")) as server:
        found = dict(endpoint(server.url).answers(prompts, max_new_tokens=7))
    assert {number: response.answer.text for number, response in found.items()} == {n: f"<{n}>" for n in range(20)}


def test_functions_are_offered_and_calls_are_part_of_the_answer() -> None:
    offered = '{"type": "function", "function": {"name": "lamp"}}'
    called = {"content": None, "tool_calls": [{"function": {"name": "lamp", "arguments": '{"on": true}'}}]}
    before = (
        Message("user", "Light?"),
        Message("assistant", "", tool_calls=(ToolCall("lamp", '{"on": false}', "c1"),)),
        Message("tool", "dark", tool_call_id="c1"),
    )
    reply = {"choices": [{"message": called, "finish_reason": "tool_calls"}]}
    with serving(lambda body, number: (200, reply)) as server:
        answer = endpoint(server.url).ask(before, max_new_tokens=7, tools=[offered]).answer
    assert answer.text == '<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call>'
    (asked,) = server.asked
    assert asked["tools"] == [json.loads(offered)]
    assert asked["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "id": "c1", "function": {"name": "lamp", "arguments": '{"on": false}'}}
            ],
        },
        {"role": "tool", "content": "dark", "tool_call_id": "c1"},
    ]


def test_an_endpoint_that_gives_out_keeps_what_came_before() -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        return completion("Hi.") if number < 6 else (404, {"error": {"message": "model unloaded"}})

    kept = []
    with serving(reply) as server, pytest.raises(Unavailable, match="model unloaded"):
        for number, _ in endpoint(server.url).answers([(HELLO, ())] * 50, max_new_tokens=7):
            kept.append(number)
    assert 1 <= len(kept) <= 6 and len(server.asked) < 50


@pytest.mark.parametrize(
    ("message", "finish", "wanted"),
    [
        ({"content": "4", "reasoning_content": "2 and 2."}, "stop", ("4", "2 and 2.", "stop")),
        ({"content": " 4", "reasoning": "2 and 2."}, "length", ("4", "2 and 2.", "length")),
        ({"content": "<think>\n2 and 2.\n</think>\n\n4"}, "stop", ("4", "2 and 2.", "stop")),
        ({"content": "2 and 2.</think>4"}, "stop", ("4", "2 and 2.", "stop")),
        ({"content": "<think>\n2 and"}, "length", ("", "2 and", "thinking")),
        ({"content": None, "reasoning_content": "2 and"}, "length", ("", "2 and", "thinking")),
        ({"content": "4"}, "stop", ("4", None, "stop")),
    ],
)
def test_thoughts_are_no_part_of_an_answer(message: dict[str, Any], finish: str, wanted: tuple[Any, ...]) -> None:
    usage = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 6}}
    reply = {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}
    with serving(lambda body, number: (200, reply)) as server:
        said = endpoint(server.url).ask(HELLO, max_new_tokens=9).answer
    assert (said.text, said.thoughts, said.finish) == wanted
    assert (said.tokens, said.thought_tokens) == (9, 6)
