"""A request's body: of the right kind, no larger than it may be, and there in time; nothing is kept that is not wanted.

JSON is read whole before a route sees it, so that a slow sender holds no more than its own connection. A file that is uploaded
passes through, counted.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luthier.serve.errors import APIError
from luthier.serve.guards import strict_json
from luthier.serve.guards.messages import header, headers, refuse, replay

WITH_BODY = ("POST", "PUT", "PATCH")
LONG = 1 << 16
"""Bytes of JSON from which on another thread checks them."""
MiB = 1 << 20


@dataclass(frozen=True)
class BodyLimits:
    """How large bodies may be and how long they may take; `uploads` are the paths that take a file."""

    uploads: Collection[str] = ()
    json_bytes: int = 16 * MiB
    upload_bytes: int = 513 * MiB  # a file of 512 MiB, as OpenAI takes it, and its form
    json_seconds: float = 30.0
    idle_seconds: float = 30.0
    """Of an upload: between two pieces."""
    bytes_per_second: float = 16 * 1024
    """Of an upload: the least, on average, once it has taken longer than `idle_seconds`."""
    header_bytes: int = 32 * 1024


class RefusedBody(HTTPException):
    """What ends the reading of an upload inside a route."""

    def __init__(self, error: APIError) -> None:
        super().__init__(error.status, error.message)
        self.error = error


@dataclass(frozen=True)
class BodyGuard:
    app: ASGIApp
    limits: BodyLimits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            receive = await self._checked(scope, receive)
        except APIError as error:
            return await refuse(error, scope, receive, send)
        await self.app(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """A `receive` whose body may be read."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self.limits.header_bytes:
            raise APIError(431, f"The headers are larger than {self.limits.header_bytes:,} bytes.")
        length = _declared(scope)
        if scope["method"] not in WITH_BODY:
            if length != 0:
                raise APIError(400, f"A {scope['method']} request takes no body.", code="unexpected_body")
            return receive
        if header(scope, "content-encoding") not in ("", "identity"):
            raise APIError(415, "A body may not be compressed.", code="unsupported_encoding")
        upload = scope["path"].rstrip("/") in self.limits.uploads
        kind = header(scope, "content-type").partition(";")[0].strip().lower()
        wanted = "multipart/form-data" if upload else "application/json"
        if kind != wanted and (kind or length != 0):
            raise APIError(415, f"The body must have the content type {wanted}.", code="unsupported_content_type")
        most = self.limits.upload_bytes if upload else self.limits.json_bytes
        if length is not None and length > most:
            raise _too_large(most)
        if upload:
            return self._counted(receive)
        body = await self._whole(receive)
        if body:
            await run_in_threadpool(strict_json.check, body) if len(body) > LONG else strict_json.check(body)
        return replay(body, receive)

    async def _whole(self, receive: Receive) -> bytes:
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self.limits.json_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise APIError(400, "The client left before its body was there.")
                    size += len(message.get("body", b""))
                    if size > self.limits.json_bytes:
                        raise _too_large(self.limits.json_bytes)
                    pieces.append(message.get("body", b""))
                    if not message.get("more_body"):
                        return b"".join(pieces)
        except TimeoutError:
            raise _too_slow() from None

    def _counted(self, receive: Receive) -> Receive:
        """The same messages, until there are too many bytes or they come too slowly."""
        start, size = time.monotonic(), 0

        async def counted() -> Message:
            nonlocal size
            try:
                async with asyncio.timeout(self.limits.idle_seconds):
                    message = await receive()
            except TimeoutError:
                raise RefusedBody(_too_slow()) from None
            size += len(message.get("body", b""))
            if size > self.limits.upload_bytes:
                raise RefusedBody(_too_large(self.limits.upload_bytes))
            late = time.monotonic() - start - self.limits.idle_seconds
            if message.get("more_body") and late > 0 and size < late * self.limits.bytes_per_second:
                raise RefusedBody(_too_slow())
            return message

        return counted


def _declared(scope: Scope) -> int | None:
    """Bytes of a body as its headers have it; None where it comes in chunks."""
    if headers(scope, "transfer-encoding"):
        return None
    length = header(scope, "content-length")
    if length and not (length.isascii() and length.isdigit()):
        raise APIError(400, "The header content-length is no number.", code="invalid_header")
    return int(length or 0)


_too_slow = partial(APIError, 408, "The body came too slowly.", code="request_timeout")


def _too_large(most: int) -> APIError:
    return APIError(413, f"The body is larger than {most:,} bytes.", code="request_too_large")
