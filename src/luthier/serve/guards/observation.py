"""Around everything: an id for each request, strict headers, one line in the log, and an answer where something breaks.

The log has the route and no more of what was asked: paths, names, keys, rows and prompts of users are not in it.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luthier.serve.errors import log, unexpected

CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
"""Of answers that are no pages; a page brings one of its own."""
STRICT = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
UNKNOWN = "(unknown)"

OnAnswer = Callable[[str, str, int, float], object]
"""Hears of each answer: method, route, status, seconds until it was sent."""


@dataclass(frozen=True)
class Observation:
    app: ASGIApp
    on_answer: OnAnswer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id, start, status = f"req_{uuid.uuid4().hex}", time.perf_counter(), 0
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = MutableHeaders(scope=message)
                for name, value in {**STRICT, "content-security-policy": CSP}.items():
                    named.setdefault(name, value)
                named["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            log.exception("request %s", request_id)
            if not status:
                await unexpected(error, request_id).response(scope, receive, sending)
        finally:
            method = scope["method"] if scope["method"] in METHODS else UNKNOWN
            seconds = time.perf_counter() - start
            log.info("%s %s %s %.3f s %s", method, route_of(scope), status or "cut off", seconds, request_id)
            self.on_answer(method, route_of(scope), status, seconds)


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def route_of(scope: Scope) -> str:
    """The route as it is written in the program, such as `/v1/files/{file_id}`."""
    return str(getattr(scope.get("route"), "path", UNKNOWN))
