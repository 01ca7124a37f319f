"""No route is open: every one of them, by every method, behind every guard; and bodies that nobody wants."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from starlette.types import Message

from luthier.serve import app as apps
from luthier.serve.app import Door, make_api, make_app
from luthier.serve.guards.bodies import BodyGuard, BodyLimits
from luthier.serve.guards.observation import Observation
from luthier.serve.service import Service
from serving import KEY

from .conftest import ask_app

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ATTACKS = {
    "no key": ({"authorization": ""}, 401),
    "a wrong key": ({"authorization": "Bearer sk-wrong"}, 401),
    "a key of another kind": ({"authorization": KEY}, 401),
    "a foreign host": ({"host": "evil.test"}, 421),
    "a foreign port's name": ({"host": "localhost.evil.test:8000"}, 421),
    "a foreign origin": ({"origin": "http://evil.test"}, 403),
    "no origin at all": ({"origin": "null"}, 403),
    "a foreign page": ({"sec-fetch-site": "cross-site"}, 403),
}


def paths() -> list[str]:
    """Every path of the app, with something in place of its parameters; and one that does not exist."""
    found = {path.replace("{", "").replace("}", "") for path in make_api(None).openapi()["paths"]}
    return sorted({*found, "/openapi.json", "/v1/tokenize", "/", "/tune/1", "/jobs/job_id/report", "/docs", "/nothing"})


def error(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()["error"]
    assert body.keys() == {"message", "type", "param", "code"}
    return dict(body)


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_route_and_method_is_guarded(app: Any, attack: str) -> None:
    headers, status = ATTACKS[attack]
    for path in paths():
        for method in METHODS:
            answer = ask_app(app, method, path, headers=headers)
            is_open = path == "/health" and method in ("GET", "HEAD") and status == 401
            assert is_open or answer.status_code == status, (method, path, answer.status_code)


def test_every_method_with_a_body_wants_its_content_type(app: Any) -> None:
    for path in paths():
        for method in ("POST", "PUT", "PATCH"):
            for kind in ("text/plain", "application/x-www-form-urlencoded", "text/json", ""):
                answer = ask_app(app, method, path, content=b"a=1", headers={"content-type": kind})
                assert answer.status_code == 415, (method, path, kind, answer.status_code)


def test_methods_without_a_body_take_none(app: Any) -> None:
    for path in paths():
        for method in ("GET", "DELETE"):
            answer = ask_app(app, method, path, content=b"{}", headers={"content-type": "application/json"})
            assert answer.status_code == 400, (method, path)


def test_every_answer_keeps_browsers_strict(app: Any) -> None:
    for path in paths():
        answer = ask_app(app, "GET", path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-request-id"].startswith("req_")
        assert "access-control-allow-origin" not in answer.headers


def test_a_page_of_our_own_origin_may_ask(app: Any) -> None:
    headers = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    assert ask_app(app, "GET", "/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "tiny", "prompt": "a", "prompt": "b"}',
        '{"model": "tiny", "prompt": "a", "temperature": NaN}',
        '{"model": "tiny", "prompt": "a", "temperature": Infinity}',
        '{"model": "tiny", "prompt": "a", "temperature": 1e999}',
        '{"model": "tiny", "prompt": "a", "seed": ' + "1" * 5000 + "}",
        '{"model": "tiny", "prompt": "\\ud800"}',
        '{"model": "tiny", "\\udfff": "a"}',
        '{"model": "tiny", "prompt": ' + "[" * 100 + "]" * 100 + "}",
        "[" * 100_000,
        '{"model": "tiny", "prompt": "a"} {}',
        '{"model": "tiny",',
        b'{"model": "tiny", "prompt": "\xff"}',
    ],
)
def test_json_that_could_be_read_in_two_ways_is_refused(app: Any, body: str | bytes) -> None:
    answer = ask_app(app, "POST", "/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert error(answer)["code"] == "invalid_json"


LIMITS = {
    "n": 10**6,
    "max_tokens": 10**9,
    "temperature": -1,
    "top_p": 1.5,
    "seed": 2**80,
    "presence_penalty": 3,
    "frequency_penalty": -3,
    "logprobs": 10**6,
    "stop": ["a"] * 100_000,
    "best_of": 5,
    "logit_bias": {"50256": -100},
    "stream": "yes",
    "prompt": [],
    "model": 5,
}


@pytest.mark.parametrize("field", LIMITS)
def test_every_number_and_list_has_limits_that_the_answer_names(app: Any, field: str) -> None:
    body = {"model": "tiny", "prompt": "a", field: LIMITS[field]}
    answer = ask_app(app, "POST", "/v1/completions", json=body)
    assert answer.status_code == 400
    assert error(answer)["param"] == field and field in error(answer)["message"]


def test_a_parameter_that_means_nothing_here_is_named(app: Any) -> None:
    answer = ask_app(app, "POST", "/v1/completions", json={"model": "tiny", "prompt": "a", "tempreature": 1})
    assert error(answer) == {
        "message": "Unknown parameter: 'tempreature'.",
        "type": "invalid_request_error",
        "param": "tempreature",
        "code": "unknown_parameter",
    }


def test_an_image_by_url_is_never_fetched(app: Any) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    body = {"model": "tiny", "messages": [{"role": "user", "content": [part]}]}
    answer = ask_app(app, "POST", "/v1/chat/completions", json=body)
    assert answer.status_code == 400 and error(answer)["param"] == "messages[0].content"


@pytest.mark.parametrize("id", ["..%2f..%2fetc", "file-x", "file-" + "a" * 23 + "%00", "FILE-" + "a" * 24, "a" * 5000])
def test_an_id_that_cannot_be_one_is_looked_up_nowhere(app: Any, id: str) -> None:
    for path in (f"/v1/files/{id}", f"/v1/files/{id}/content", f"/v1/fine_tuning/jobs/{id}", f"/v1/models/{id}"):
        assert ask_app(app, "GET", path).status_code in (400, 404), path


@pytest.mark.parametrize("name", ["../../x", "..\\..\\x", "C:x", "CON", ".", "a\0b", "n" * 1000, "/etc/passwd"])
def test_the_name_of_an_upload_never_becomes_a_path(app: Any, service: Service, name: str) -> None:
    before = set(service.jobs.store.home.parent.rglob("*"))
    answer = ask_app(app, "POST", "/v1/files", files={"file": (name, b"{}\n")}, data={"purpose": "fine-tune"})
    assert answer.status_code == 200
    new = set(service.jobs.store.home.parent.rglob("*")) - before
    assert [path.name for path in new if path.parent.name == "files"] == [f"{answer.json()['id']}.jsonl"]
    assert {path.parent.name for path in new if path.is_file()} <= {"files", service.jobs.store.home.name}


# Bodies: sizes and time.


async def _reached(scope: Any, receive: Any, send: Any) -> None:
    while (message := await receive()).get("more_body"):
        pass
    assert message["type"] == "http.request"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def guarded(limits: BodyLimits, *messages: Message | float, path: str = "/x", kind: str = "application/json") -> int:
    """The status of a body that comes in these messages, or seconds apart."""
    left = list(messages)
    statuses: list[int] = []

    async def receive() -> Message:
        while left and isinstance(left[0], float):
            await asyncio.sleep(left.pop(0))  # type: ignore[arg-type]
        return left.pop(0) if left else {"type": "http.disconnect"}  # type: ignore[return-value]

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"content-type", kind.encode()), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}

    async def catching(scope: Any, receive: Any, send: Any) -> None:
        try:
            await _reached(scope, receive, send)
        except Exception as refused:
            await refused.error.response(scope, receive, send)  # type: ignore[attr-defined]

    asyncio.run(BodyGuard(catching, limits)(scope, receive, send))
    return statuses[0]


def part(size: int, more: bool = True) -> Message:
    return {"type": "http.request", "body": b" " * size, "more_body": more}


def test_a_body_in_chunks_is_counted_while_it_comes() -> None:
    small = BodyLimits(json_bytes=100, uploads={"/up"}, upload_bytes=100)
    endless = [part(40)] * 1000
    assert guarded(small, *endless) == 413
    assert guarded(small, *endless, path="/up", kind="multipart/form-data") == 413
    assert guarded(small, part(99), part(1, more=False), path="/up", kind="multipart/form-data") == 200


def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    impatient = BodyLimits(json_seconds=0.05, idle_seconds=0.05, uploads={"/up"})
    assert guarded(impatient, part(1), 5.0, part(1, more=False)) == 408
    assert guarded(impatient, part(1), 5.0, part(1, more=False), path="/up", kind="multipart/form-data") == 408
    drops = [message for _ in range(50) for message in (0.02, part(1))]
    assert guarded(impatient, *drops) == 408
    assert guarded(impatient, *drops, path="/up", kind="multipart/form-data") == 408


def test_a_declared_size_is_refused_before_anything_is_read(service: Service) -> None:
    door = Door(limits=BodyLimits(uploads=apps.UPLOADS, json_bytes=1000, upload_bytes=2000))
    app = make_app(service, door)
    body = json.dumps({"model": "tiny", "prompt": "a" * 1000})
    headers = {"content-type": "application/json"}
    assert ask_app(app, "POST", "/v1/completions", content=body, headers=headers).status_code == 413
    upload = {"file": ("a.jsonl", b"x" * 3000)}
    assert ask_app(app, "POST", "/v1/files", files=upload, data={"purpose": "fine-tune"}).status_code == 413


def test_a_compressed_body_is_refused(app: Any) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert ask_app(app, "POST", "/v1/completions", content=b"x", headers=headers).status_code == 415


# What breaks.


def test_what_breaks_says_where_to_look_and_nothing_else(
    service: Service, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    router = APIRouter()
    faults = {"/bug": RuntimeError(f"{tmp_path}/secret"), "/full": OSError(28, "No space left", f"{tmp_path}/secret")}

    @router.get("/{name}")
    def fail(name: str) -> None:
        raise faults[f"/{name}"]

    app = Observation(make_api(service, [router]), lambda *_: None)
    with caplog.at_level(logging.INFO, "luthier.serve"):
        for path, status in (("/bug", 500), ("/full", 507)):
            answer = ask_app(app, "GET", path)
            assert answer.status_code == status
            assert str(tmp_path) not in answer.text and "Traceback" not in answer.text
            assert answer.headers["x-request-id"] in error(answer)["message"]
            assert answer.headers["x-request-id"] in caplog.text
    assert f"{tmp_path}/secret" in caplog.text


def test_nothing_of_what_is_asked_is_in_the_log(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    canary = "canary-7f3a"
    with caplog.at_level(logging.DEBUG, "luthier"):
        for path, body in (
            ("/v1/completions", {"model": "tiny", "prompt": canary, "max_tokens": 2}),
            ("/v1/completions", {"model": "tiny", "prompt": canary, "n": 10**6}),
            ("/v1/chat/completions", {"model": canary, "messages": [{"role": "user", "content": canary}]}),
        ):
            ask_app(app, "POST", path, json=body)
        ask_app(app, "POST", "/v1/files", files={"file": (canary, canary.encode())}, data={"purpose": "fine-tune"})
        ask_app(app, "GET", f"/{canary}?key={canary}", headers={"authorization": f"Bearer {canary}"})
    assert caplog.text.count("POST") == 4
    assert canary not in caplog.text and KEY not in caplog.text
