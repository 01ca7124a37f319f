"""Models at other servers: asked through this one, called by our names, and their troubles told in OpenAI's words."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from luthier.engine.requests import Busy
from luthier.errors import UserError
from luthier.serve.app import Door, make_app
from luthier.serve.backends import addresses
from luthier.serve.backends.addresses import Address
from luthier.serve.backends.backend import Backend
from luthier.serve.backends.turns import Turns
from luthier.serve.catalogue import Catalogue, parse_named
from luthier.serve.errors import APIError
from luthier.serve.service import Service

from .conftest import ask_app

Answer = Callable[[str, dict[str, Any]], tuple[int, dict[str, str], Iterator[str]]]
SAID = {
    "object": "chat.completion",
    "model": "/secret/path.gguf",
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}
WHOLE = {
    **SAID,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}],
}


@contextmanager
def answering(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]], threading.Event]]:
    """A server with one model; what it was asked; and an event that is set when a client left early."""
    asked: list[dict[str, Any]] = []
    left = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, {}, iter([json.dumps({"data": [{"id": "theirs"}]})]))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"path": self.path, "key": self.headers["Authorization"]})
            self.reply(*answer(self.path, body))

        def reply(self, status: int, headers: dict[str, str], words: Iterator[str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for each in words:
                    self.wfile.write(each.encode())
            except OSError:
                left.set()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1", asked, left
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def served(service: Service, url: str, key: str | None = None) -> Any:
    """The app with a model `far` at this address."""
    backends = {"far": Backend(Address("far", url, key=key))}
    catalogue = Catalogue(service.jobs.store.home, {}, service.jobs.store, elsewhere=backends)
    return make_app(Service(service.jobs, catalogue, service.engines, service.metrics, backends), Door())


def chat(app: Any, **more: Any) -> Any:
    body = {"model": "far", "messages": [{"role": "user", "content": "Where?"}], **more}
    return ask_app(app, "POST", "/v1/chat/completions", json=body)


def events(*chunks: dict[str, Any], end: str = "data: [DONE]\n\n") -> Iterator[str]:
    yield ": ping\n\n"
    for chunk in chunks:
        yield f"data: {json.dumps(chunk)}\n\n"
    yield end


def test_a_request_is_passed_on_under_the_name_and_the_key_of_that_server(service: Service) -> None:
    with answering(lambda path, body: (200, {}, iter([json.dumps(WHOLE)]))) as (url, asked, _):
        app = served(service, url, "their-key")
        schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
        found = chat(app, temperature=0.5, stop="\n", user="me", response_format=schema).json()
        ask_app(app, "POST", "/v1/completions", json={"model": "far", "prompt": [5, 6], "max_tokens": 3})
    assert found == {**WHOLE, "model": "far"}
    assert asked[0] == {
        "model": "theirs", "messages": [{"role": "user", "content": "Where?"}], "temperature": 0.5, "stop": ["\n"],
        "response_format": schema, "path": "/v1/chat/completions", "key": "Bearer their-key",
    }  # fmt: skip
    assert (asked[1]["path"], asked[1]["prompt"], asked[1]["max_tokens"]) == ("/v1/completions", [5, 6], 3)


@pytest.mark.parametrize("with_usage", [False, True])
def test_a_stream_has_the_counts_only_where_they_were_asked_for(service: Service, with_usage: bool) -> None:
    word = {"model": "theirs", "choices": [{"index": 0, "delta": {"content": "Paris"}, "finish_reason": "stop"}]}
    chunks = [{**word, "usage": None}, {**SAID, "choices": []}]
    with answering(lambda path, body: (200, {}, events(*chunks))) as (url, asked, _):
        more = {"stream_options": {"include_usage": True}} if with_usage else {}
        answer = chat(served(service, url), stream=True, **more)
    *found, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert last == "[DONE]" and asked[0]["stream_options"] == {"include_usage": True}
    shown = [json.loads(each) for each in found]
    assert shown[0]["choices"] == word["choices"] and all(each["model"] == "far" for each in shown)
    assert [each.get("usage") for each in shown] == ([None, SAID["usage"]] if with_usage else [None])


def _error(message: str, **more: Any) -> list[str]:
    return [json.dumps({"error": {"message": message, **more}})]


@pytest.mark.parametrize(
    ("status", "headers", "words", "ours", "code", "told"),
    [
        (400, {}, _error("too long", type="exceed_context"), 400, "exceed_context", "refuses the request: too long."),
        (401, {}, _error("your key sk-x"), 502, "backend_unavailable", "gives no answer"),
        (404, {}, ["{}"], 502, "backend_unavailable", "gives no answer"),
        (429, {"Retry-After": "7"}, ["{}"], 429, "rate_limit_exceeded", "too much to do"),
        (503, {}, _error("Loading /secret/model"), 503, "backend_unavailable", "is not ready"),
        (500, {}, _error("at /secret/path"), 502, "backend_unavailable", "gives no answer"),
        (200, {}, ["<html>"], 502, "backend_unavailable", "gives no answer"),
        (200, {}, ['{"choices": NaN}'], 502, "backend_unavailable", "gives no answer"),
        (200, {}, ["[1]"], 502, "backend_unavailable", "gives no answer"),
        (200, {}, ["{}"], 502, "backend_unavailable", "gives no answer"),
    ],
)
def test_refusals_and_nonsense_are_told_in_our_words(
    service: Service, status: int, headers: dict[str, str], words: list[str], ours: int, code: str, told: str
) -> None:
    with answering(lambda path, body: (status, headers, iter(words))) as (url, _, _):
        answer = chat(served(service, url))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (ours, code) and told in error["message"]
    assert "secret" not in answer.text and "sk-x" not in answer.text and url not in answer.text
    assert answer.headers.get("retry-after") == {429: "7", 503: "1"}.get(ours)


def test_a_server_that_is_not_there_is_a_bad_gateway(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    app = served(service, "http://127.0.0.1:9/v1", "their-key")
    for more in ({}, {"stream": True}):
        answer = chat(app, **more)
        assert answer.status_code == 502 and answer.json()["error"]["type"] == "server_error"
    assert "http://127.0.0.1:9/v1" in caplog.text and "their-key" not in caplog.text


def test_a_redirect_is_not_followed(service: Service) -> None:
    with answering(lambda path, body: (200, {}, iter([json.dumps(WHOLE)]))) as (elsewhere, reached, _):
        moved = {"Location": f"{elsewhere}/chat/completions"}
        with answering(lambda path, body: (307, moved, iter(()))) as (url, _, _):
            assert chat(served(service, url, "their-key")).status_code == 502
    assert reached == []


@pytest.mark.parametrize("end", ["", 'data: {"error": {"message": "at /secret"}}\n\n', "data: {oops}\n\n"])
def test_a_stream_that_breaks_off_ends_with_an_error(service: Service, end: str) -> None:
    word = {"choices": [{"index": 0, "delta": {"content": "Pa"}}]}
    with answering(lambda path, body: (200, {}, events(word, end=end))) as (url, _, _):
        answer = chat(served(service, url), stream=True)
    *_, error, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]" and json.loads(error)["error"]["code"] == "backend_unavailable" and "secret" not in error


def test_who_leaves_has_left_there_too() -> None:
    def endless(path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Iterator[str]]:
        return 200, {}, (f"data: {json.dumps({'choices': [], 'pad': 'word ' * 2000})}\n\n" for _ in range(200_000))

    async def first(backend: Backend) -> None:
        async with backend.stream("completions", {}, client="a") as found:
            assert (await anext(found))["choices"] == []
            assert backend.turns.in_use == 1
        assert backend.turns.in_use == 0

    with answering(endless) as (url, _, left):
        asyncio.run(first(Backend(Address("far", url))))
        assert left.wait(10)


def test_who_closes_cuts_what_is_on_its_way() -> None:
    silent = threading.Event()

    def saying_nothing(path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Iterator[str]]:
        def words() -> Iterator[str]:
            yield f"data: {json.dumps({'choices': []})}\n\n"
            silent.wait(30)

        return 200, {}, words()

    async def cut(backend: Backend) -> None:
        async with backend.stream("completions", {}, client="a") as found:
            await anext(found)
            waiting = asyncio.create_task(anext(found))
            await asyncio.sleep(0)
            await asyncio.to_thread(backend.close)
            with pytest.raises(APIError, match="is stopping"):
                await asyncio.wait_for(waiting, 10)
        with pytest.raises(APIError, match="is stopping"):
            await backend.ask("completions", {}, client="a")

    with answering(saying_nothing) as (url, _, _):
        asyncio.run(cut(Backend(Address("far", url))))
        silent.set()


def test_lamini_s_clients_are_answered_by_chat(service: Service) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Iterator[str]]:
        said = '{"sea": true}' if "response_format" in body else body["messages"][0]["content"].upper()
        words = [{"choices": [{"delta": {"content": part}}]} for part in (said[:1], said[1:])]
        return 200, {}, events(*words, {"choices": [{"delta": {}, "finish_reason": "stop"}]}, {**SAID, "choices": []})

    with answering(answer) as (url, asked, _):
        app = served(service, url)
        both = {"model_name": "far", "prompt": ["where", "when"], "max_tokens": 7, "stop_tokens": ["x"]}
        texts = ask_app(app, "POST", "/v1/completions", json=both).json()
        typed = {"model_name": "far", "prompt": "sea?", "out_type": {"sea": "bool"}}
        found = ask_app(app, "POST", "/v1/completions", json=typed).json()
    assert texts == [{"output": "WHERE"}, {"output": "WHEN"}] and found == {"sea": True}
    assert {(body["max_tokens"], body["temperature"]) for body in asked} == {(7, 0), (256, 0)}
    assert [body["stop"] for body in asked if "stop" in body] == [["x"], ["x"]]
    gone = ask_app(served(service, "http://127.0.0.1:9/v1"), "POST", "/v1/completions", json=both)
    assert gone.status_code == 502 and "gives no answer" in gone.json()["detail"]


def test_the_model_is_listed_and_what_needs_its_files_is_refused(service: Service) -> None:
    app = served(service, "http://127.0.0.1:9/v1")
    assert "far" in [each["id"] for each in ask_app(app, "GET", "/v1/models").json()["data"]]
    assert ask_app(app, "GET", "/v1/models/far").json()["owned_by"] == "backend"
    assert ask_app(app, "DELETE", "/v1/models/far").status_code == 403
    for path, body in (
        ("/v1/decisions", {"input": "a", "answers": ["a", "b"]}),
        ("/tokenize", {"prompt": "a"}),
        ("/v1/fine_tuning/jobs", {"training_file": "file-" + "a" * 24}),
    ):
        answer = ask_app(app, "POST", path, json={"model": "far", **body})
        assert answer.status_code == 400 and "answers at another server" in answer.json()["error"]["message"]
    assert ask_app(app, "POST", "/tokenize", json={"prompt": "a"}).status_code == 400  # no model has its files here


def test_addresses_have_names_and_their_keys_come_from_the_environment() -> None:
    named = parse_named(["far-1=http://127.0.0.1:8080/v1/#org/model", "tiny=smollm2-135m"])
    (address,) = addresses.parse(named, {"LUTHIER_BACKEND_KEY_FAR_1": "secret"})
    assert (address.name, address.url, address.model) == ("far-1", "http://127.0.0.1:8080/v1", "org/model")
    assert address.key == "secret" and "secret" not in repr(address)
    with pytest.raises(UserError, match="needs a name"):
        parse_named(["http://127.0.0.1:8080/v1"])
    for reference, environment, words in (
        ("http://user:pass@h/v1", {}, "put the key into LUTHIER_BACKEND_KEY_A"),
        ("http://h/v1?key=1", {}, "put the key into LUTHIER_BACKEND_KEY_A"),
        ("http://:80/v1", {}, "expected an address"),
        ("ftp://h/v1", {}, "expected an address"),
        ("http://h:99999/v1", {}, "expected an address"),
        ("http://h/v1", {"LUTHIER_BACKEND_KEY_A": "new\nline"}, "visible ASCII"),
    ):
        with pytest.raises(UserError, match=words):
            addresses.parse({"a": reference}, environment)
    both = {"a.b": "http://h/v1", "a-b": "http://evil/v1"}
    assert len(addresses.parse(both, {})) == 2
    with pytest.raises(UserError, match="with the same key"):
        addresses.parse(both, {"LUTHIER_BACKEND_KEY_A_B": "secret"})


def test_turns_are_fair_over_keys_and_those_who_leave_lose_theirs() -> None:
    order: list[str] = []

    async def one(turns: Turns, client: str, name: str) -> None:
        async with turns.turn(client):
            order.append(name)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        turns = Turns(slots=2, longest_queue=4)
        async with turns.turn("a"), turns.turn("a"):
            asked = (("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3"))
            waiting = [asyncio.create_task(one(turns, *each)) for each in asked]
            await asyncio.sleep(0)
            with pytest.raises(Busy):
                await one(turns, "c", "c1")
            waiting[1].cancel()
            await asyncio.sleep(0)
            assert (turns.in_use, turns.queued) == (2, 3)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (turns.in_use, turns.queued) == (0, 0)

    asyncio.run(all_of_them())
    assert order == ["b1", "a1", "a3"]
