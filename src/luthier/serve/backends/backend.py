"""One server elsewhere: asked over HTTP by the name that it gives a model, read within bounds, its refusals in our words.

Redirects are not followed, since a key would go along. What it says of a request (400) is passed on; what is its own
trouble is told without its address or words, which stand in the log.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any, NoReturn

import httpx2

from luthier.serve.backends.addresses import Address
from luthier.serve.backends.turns import Turns
from luthier.serve.errors import APIError, bad_request, log

SLOTS, LONGEST_QUEUE = 64, 256
TIMEOUT = httpx2.Timeout(120.0, connect=10.0)
"""Seconds without a byte."""
CLOSE_SECONDS = 5.0
LONGEST_ANSWER = 32 << 20  # bytes, of an answer in one piece
LONGEST_EVENT = 4 << 20
SHOWN = 300  # characters of a message from there
REDIRECTS = {301, 302, 303, 307, 308}


class Backend:
    """A model at an address. Each request has a connection of its own."""

    def __init__(self, address: Address, *, slots: int = SLOTS, longest_queue: int = LONGEST_QUEUE) -> None:
        self.address = address
        self.turns = Turns(slots=slots, longest_queue=longest_queue)
        self._named = address.model
        self._client: tuple[asyncio.AbstractEventLoop, httpx2.AsyncClient] | None = None
        self._closed = False

    def close(self) -> None:
        """Cut what is on its way and ask no more; from another thread than that of the event loop, which goes on."""
        self._closed = True
        if self._client is not None:
            loop, client = self._client
            with contextlib.suppress(RuntimeError, TimeoutError):
                asyncio.run_coroutine_threadsafe(client.aclose(), loop).result(CLOSE_SECONDS)

    async def ask(self, path: str, body: Mapping[str, Any], *, client: str) -> dict[str, Any]:
        """The whole answer to a request."""
        async with self.turns.turn(client), self._asked(path, body) as reply:
            content = await self._read(reply)
        return self._object(content)

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, body: Mapping[str, Any], *, client: str
    ) -> AsyncIterator[AsyncGenerator[dict[str, Any]]]:
        """The events of an answer, once it has begun; whoever leaves this context ends the answer there as well."""
        async with self.turns.turn(client), self._asked(path, body) as reply:
            yield self._events(reply)

    @contextlib.asynccontextmanager
    async def _asked(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[httpx2.Response]:
        """The reply to a request, once its head is there and no refusal."""
        named = {**body, "model": await self._model()}
        async with self._request("POST", path, named) as reply:
            if reply.status_code != 200:
                await self._refuse(reply)
            yield reply

    async def _model(self) -> str:
        """What the model is called there: as it was said, the only one that is there, or as clients call it."""
        if self._named is None:
            async with self._request("GET", "models") as reply:
                listed = self._object(await self._read(reply)).get("data") if reply.status_code == 200 else None
                if reply.status_code not in (200, 404, 405, 501):
                    await self._refuse(reply)
            names = [one["id"] for one in listed or () if isinstance(one, dict) and isinstance(one.get("id"), str)]
            if len(names) > 1 and self.address.name not in names:
                self.fail(f"it has {len(names)} models; name one: --model NAME=URL#MODEL")
            self._named = names[0] if len(names) == 1 else self.address.name
        return self._named

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        url = f"{self.address.url}/{path}"
        if self._closed:
            self.fail("it is asked no more")
        with self._troubles():
            async with self._http().stream(method, url, json=body) as reply:
                yield reply

    def _http(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            headers = {"user-agent": "luthier", "accept-encoding": "identity"}
            if self.address.key:
                headers["authorization"] = f"Bearer {self.address.key}"
            made = httpx2.AsyncClient(
                headers=headers, timeout=TIMEOUT, follow_redirects=False,
                trust_env=not self.address.is_loopback,  # a proxy does not know this machine's own addresses
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),  # turns are the limit; none is stale
            )  # fmt: skip
            self._client = (loop, made)
        return self._client[1]

    async def _read(self, reply: httpx2.Response) -> bytes:
        pieces, size = [], 0
        async for piece in reply.aiter_raw():
            pieces.append(piece)
            size += len(piece)
            if size > LONGEST_ANSWER:
                self.fail(f"its answer has more than {LONGEST_ANSWER} bytes")
        return b"".join(pieces)

    async def _events(self, reply: httpx2.Response) -> AsyncGenerator[dict[str, Any]]:
        """The events, as objects, up to the one that says it is the last."""
        held = b""
        with self._troubles():
            async for piece in reply.aiter_raw():
                *lines, held = (held + piece).split(b"\n")
                if len(held) > LONGEST_EVENT:
                    self.fail(f"an event of its answer has more than {LONGEST_EVENT} bytes")
                for line in lines:
                    if not line.startswith(b"data:"):
                        continue
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    event = self._object(data)
                    if event.get("error"):
                        self.fail(f"it gave up in the middle of its answer ({_kind(_error(data))})")
                    yield event
        self.fail("its answer ended in the middle")

    @contextlib.contextmanager
    def _troubles(self) -> Iterator[None]:
        """What can happen on the way there and back."""
        try:
            yield
        except httpx2.ConnectTimeout:
            self.fail("it cannot be reached in time")
        except httpx2.TimeoutException:
            self.fail("it said nothing in time", status=504)
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            self.fail(f"{type(error).__name__}: {error}")

    def _object(self, content: bytes) -> dict[str, Any]:
        """A JSON object; what an answer holds besides is not looked at."""
        try:
            found = json.loads(content, parse_constant=_no_number)
        except (ValueError, RecursionError):
            self.fail("its answer is no JSON")
        if not isinstance(found, dict):
            self.fail("its answer is no JSON object")
        return found

    async def _refuse(self, reply: httpx2.Response) -> NoReturn:
        """What a status that is no success means for the client."""
        status, content = reply.status_code, b""
        async for piece in reply.aiter_raw():
            content += piece
            if len(content) > 1 << 16:
                break
        error = _error(content)
        if status in (400, 413, 422):
            param = error.get("param")
            raise bad_request(
                f"The server of this model refuses the request: {_words(error, content)}.",
                param if isinstance(param, str) else None,
                _kind(error) or "invalid_value",
            )
        if status in (429, 503):
            wait = {"retry-after": str(_seconds(reply.headers.get("retry-after")))}
            if status == 429:
                message = "The server of this model has too much to do; ask again."
                raise APIError(429, message, code="rate_limit_exceeded", headers=wait)
            self.fail(f"it is not ready ({_kind(error)})", status=503, headers=wait)
        if status == 404:
            self._named = self.address.model  # it may have another model by now
        reason = "a redirect, which is not followed" if status in REDIRECTS else _kind(error)
        self.fail(f"it answered {status} ({reason})", status=504 if status in (408, 504) else 502)

    def fail(self, reason: str, *, status: int = 502, headers: Mapping[str, str] | None = None) -> NoReturn:
        """The server there is in trouble: the reason stands in the log. Or this one has cut it off."""
        if self._closed:
            raise APIError(503, "The server is stopping; ask again.", code="unavailable", headers={"retry-after": "1"})
        name = self.address.name
        log.warning("the server of %s (%s): %s", name, self.address.url, reason)
        problem = {503: "is not ready", 504: "does not answer in time"}.get(status, "gives no answer")
        message = f"The server of the model '{name}' {problem}; the log of this one says why."
        raise APIError(status, message, "model", "backend_unavailable", headers or {}) from None


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)


def _error(content: bytes) -> dict[str, Any]:
    """What an error's body says, as OpenAI and most others write it."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    inner = found.get("error", found) if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else {"message": inner} if isinstance(inner, str) else {}


def _kind(error: Mapping[str, Any]) -> str | None:
    """The word for programs; unlike the message, it holds nothing of a request."""
    words = (error.get(name) for name in ("code", "type"))
    return next((word[:80] for word in words if isinstance(word, str) and word.isprintable()), None)


def _words(error: Mapping[str, Any], content: bytes) -> str:
    """The message for people, in short."""
    said = error.get("message") or error.get("detail") or content.decode("utf-8", "replace")
    return " ".join(str(said).split())[:SHOWN].rstrip(".") or "it does not say why"


def _seconds(text: str | None) -> int:
    """Seconds of a Retry-After header, from 1 to 60."""
    try:
        return round(min(60.0, max(1.0, float(text or 1))))
    except ValueError:
        return 1
