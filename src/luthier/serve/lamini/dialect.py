"""Which requests are Lamini's, and errors as its clients read them: `{"detail": "…"}`.

Both APIs have a path /v1/completions. OpenAI's clients name a `model` there, Lamini's a `model_name`.
"""

import json
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luthier.serve.guards.messages import replay

SHARED = "/v1/completions"
OWN_COMPLETIONS = "/v1/lamini/completions"
OWN = (
    "/v1/train", "/v1/reservation", "/v1/data", "/v1/get-upload-base-path", "/v1/local-data", "/v1/existing-data",
    "/v1/streaming_completions", "/v1/batch_completions", "/v1/embedding", "/v1/inference", "/v1/batch_embeddings",
    "/v1/version", "/v1/classifier", "/v2/classifier", "/v1/eval",
    "/v1/lamini", "/v2/completions", "/v3/streaming_completions", "/v1alpha/downloaded_models",
)  # fmt: skip
"""Beginnings of paths that only Lamini's clients ask."""
MARK = "lamini"
"""In a request's state: it came as Lamini's."""
NO_MODEL = 594
"""The status by which clients since 3.0 know that a model is unknown; older ones know it by 404."""


def is_own(path: str) -> bool:
    """Whether only Lamini's clients ask this path."""
    return any(path == own or path.startswith(f"{own}/") for own in OWN)


@dataclass(frozen=True)
class Errors:
    """Around everything: errors of Lamini's requests in its form, whoever refused them."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})[MARK] = is_own(scope["path"])
        newer = any(name.lower() == b"lamini-version" for name, _ in scope["headers"])
        await self.app(scope, receive, _Translation(scope, send, newer=newer))


@dataclass
class _Translation:
    """A `send` that holds an error back until its body is there, and sends it on in Lamini's form."""

    scope: Scope
    send: Send
    newer: bool
    start: Message | None = None
    body: list[bytes] = field(default_factory=list)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400 and self.scope["state"][MARK]:
            self.start = message
        elif self.start is None:
            await self.send(message)
        else:
            self.body.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._answer(self.start, b"".join(self.body))

    async def _answer(self, start: Message, body: bytes) -> None:
        try:
            error = json.loads(body)["error"]
            body = json.dumps({"detail": error["message"]}, ensure_ascii=False).encode()
            if self.newer and error["code"] == "model_not_found":
                start = {**start, "status": NO_MODEL}
        except (ValueError, KeyError, TypeError):
            pass  # what is no error of ours goes on as it is
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        await self.send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await self.send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Dispatch:
    """Behind the guards, which have read the body: sends Lamini's completions to Lamini's route."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == SHARED:
            body = await _read(receive)
            if _names_a_model_as_lamini_does(body):
                scope["state"][MARK] = True
                scope["path"], scope["raw_path"] = OWN_COMPLETIONS, OWN_COMPLETIONS.encode()
            receive = replay(body, receive)
        await self.app(scope, receive, send)


async def _read(receive: Receive) -> bytes:
    """The whole body; the guards have measured it."""
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


def _names_a_model_as_lamini_does(body: bytes) -> bool:
    try:
        asked = json.loads(body)
    except ValueError:
        return False
    return isinstance(asked, dict) and "model_name" in asked and "model" not in asked
