"""A server elsewhere, behind the same door: its events become pieces, its refusals ours, and who leaves is gone there too."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from luthier.engine.remote import RemoteEngine
from luthier.engine.requests import AnswerFailed, Busy, GenerationRequest, Grammar, Piece
from luthier.errors import UserError
from luthier.model.loading import LanguageModel

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, str], Iterator[str]]]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]], threading.Event]]:
    """An address that streams such events; what it was asked; and an event that is set when a client left early."""
    asked: list[dict[str, Any]] = []
    left = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"path": self.path, "key": self.headers["Authorization"]})
            status, headers, events = answer(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for event in events:
                    self.wfile.write(event.encode())
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


def events(*chunks: dict[str, Any]) -> Iterator[str]:
    yield ": ping\n\n"
    for chunk in chunks:
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"text": words, **more}]}


@contextmanager
def remote(url: str, lm: LanguageModel, **how: Any) -> Iterator[RemoteEngine]:
    engine = RemoteEngine(url, "m", tokenizer=lm.template.tokenizer, **how)  # type: ignore[arg-type]
    yield engine
    engine.close(drain=True)


def test_events_become_pieces(lm: LanguageModel) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    chunks = (text("Pa"), text("ris", finish_reason="stop"), usage)
    with serving(lambda body: (200, {}, events(*chunks))) as (url, asked, _), remote(url, lm, key="k") as engine:
        request = GenerationRequest((5, 6, 7), 9, temperature=0.5, seed=3, stop_strings=("\n",), adapter="acme")
        found = engine.submit(request).result()
    assert (found.text, found.finished.finish) == ("Paris", "stop")
    assert (found.finished.prompt_tokens, found.finished.completion_tokens) == (3, 2)
    (body,) = asked
    assert (body["path"], body["key"], body["model"]) == ("/v1/completions", "Bearer k", "acme")
    assert (body["prompt"], body["max_tokens"], body["seed"], body["stop"]) == ([5, 6, 7], 9, 3, ["\n"])


def test_a_server_that_takes_no_ids_gets_text(lm: LanguageModel) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, dict[str, str], Iterator[str]]:
        if isinstance(body["prompt"], list):
            return 400, {}, iter(['{"error": {"message": "prompt must be a string"}}'])
        return 200, {}, events(text("ok", finish_reason="length"))

    ids = tuple(lm.template.tokenizer.encode("Hi there")[0])
    with serving(answer) as (url, asked, _), remote(url, lm) as engine:
        for _ in range(2):
            assert engine.submit(GenerationRequest(ids, 1)).result().text == "ok"
    assert [body["prompt"] for body in asked] == [list(ids), "Hi there", "Hi there"]


def test_schemas_and_log_p_are_passed_on(lm: LanguageModel) -> None:
    (token,) = lm.template.tokenizer.encode("a")[0]
    found = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "no such token": -2.0}]}
    chunks = (text("a", logprobs=found, finish_reason="stop"),)
    with serving(lambda body: (200, {}, events(*chunks))) as (url, asked, _), remote(url, lm) as engine:
        request = GenerationRequest((5,), 1, logprobs=2, grammar=Grammar('{"type": "object"}'))
        (logprob,) = engine.submit(request).result().logprobs
    assert (logprob.token, logprob.logprob, logprob.top) == (token, -0.5, ((token, -0.5), (-1, -2.0)))
    assert asked[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("status", "headers", "sent", "error", "message"),
    [
        (429, {"Retry-After": "7"}, ["{}"], Busy, "try again in 7 s"),
        (500, {}, ['{"error": {"message": "out of luck"}}'], AnswerFailed, "answered 500 .out of luck"),
        (200, {}, ["<html>"], AnswerFailed, "ended in the middle"),
        (200, {}, ["data: {oops}\n\n"], AnswerFailed, "is no completion"),
        (200, {}, ['data: {"error": {"message": "it broke."}}\n\n'], AnswerFailed, "said: it broke"),
        (200, {}, ['data: {"choices": [{"text": "Pa"}]}\n\n'], AnswerFailed, "ended in the middle"),
    ],
)
def test_refusals_are_said(
    lm: LanguageModel, status: int, headers: dict[str, str], sent: list[str], error: type[Exception], message: str
) -> None:
    with (
        serving(lambda body: (status, headers, iter(sent))) as (url, _, _),
        remote(url, lm) as engine,
        pytest.raises(error, match=message),
    ):
        engine.submit(GenerationRequest((5,), 1)).result()


def test_nobody_at_the_address(lm: LanguageModel) -> None:
    with remote("http://127.0.0.1:9/v1", lm) as engine, pytest.raises(AnswerFailed, match="no answer from http"):
        engine.submit(GenerationRequest((5,), 1)).result()
    with pytest.raises(UserError, match="expected an address such as"):
        RemoteEngine("localhost:8000", "m", tokenizer=lm.template.tokenizer)  # type: ignore[arg-type]


def test_a_request_that_is_cancelled_is_cancelled_there(lm: LanguageModel) -> None:
    def endless(body: dict[str, Any]) -> tuple[int, dict[str, str], Iterator[str]]:
        def many() -> Iterator[str]:
            for _ in range(200_000):
                yield f"data: {json.dumps(text('word ' * 50))}\n\n"

        return 200, {}, many()

    with serving(endless) as (url, _, left), remote(url, lm) as engine:
        stream = engine.submit(GenerationRequest((5,), 1))
        found = stream.events()
        assert isinstance(next(found), Piece)
        stream.cancel()
        *_, last = found
        assert last.finish == "cancelled"  # type: ignore[union-attr]
        assert left.wait(10)
