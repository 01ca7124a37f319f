"""From a request to streams of an engine, and from these to one answer or to events, for as long as somebody listens."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from luthier.engine.engine import Engine
from luthier.engine.requests import AnswerFailed, Busy, Closed, Event, GenerationRequest
from luthier.engine.streams import Stream
from luthier.errors import MachineError, UserError
from luthier.serve.engines import Voice
from luthier.serve.errors import APIError, bad_request, log, unexpected
from luthier.serve.openai.requests import Generation
from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

Result = TypeVar("Result")
Count = Callable[[int, int], object]
"""Hears how many tokens a prompt and its answers had."""

WRITE_SECONDS = 60.0
"""That a client may take to read the next event."""
FIELDS = {"max_new_tokens": "max_tokens", "stop_strings": "stop"}
"""The engine's words for fields, and the API's."""


@contextlib.asynccontextmanager
async def speaking(request: Request, model: str) -> AsyncIterator[Voice]:
    """The model that a request names, which stays ready to answer as long as this context."""
    service = service_of(request)
    known = await asyncio.to_thread(service.catalogue.find, model, key_of(request))
    held = service.engines.speaking(known)
    voice = await asyncio.to_thread(held.__enter__)
    try:
        yield voice
    finally:
        held.__exit__(None, None, None)


def expect_room(voice: Voice, prompt: Sequence[int], limit: int | None, *, param: str) -> int:
    """How many tokens an answer may have; refuses a prompt, or a prompt and an answer, that the context cannot hold."""
    context, tokens = voice.context, len(prompt)
    if limit is not None and limit > context:
        message = f"Invalid '{param}': found {limit:,}, at most {context:,} are possible: the model's context length."
        raise bad_request(message, param, "invalid_value")
    if tokens >= context or tokens + (limit or 0) > context:
        asked = f"{tokens + (limit or 0)} tokens ({tokens} in the prompt, {limit or 0} in the completion)"
        message = f"This model's maximum context length is {context} tokens. However, you requested {asked}."
        raise bad_request(f"{message} Please reduce the length of either one.", None, "context_length_exceeded")
    return context - tokens if limit is None else limit


def sampling(asked: Generation, number: int) -> dict[str, Any]:
    """How the answer with this number is drawn; OpenAI's defaults where nothing is said."""
    seed = secrets.randbits(63) if asked.seed is None else (asked.seed + number) % 2**64
    return {
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "seed": seed,
        "stop_strings": tuple(asked.stop or ()),
        "presence_penalty": asked.presence_penalty or 0.0,
        "frequency_penalty": asked.frequency_penalty or 0.0,
    }


async def submit(engine: Engine, requests: Sequence[GenerationRequest]) -> list[Stream]:
    """A stream for each request, or for none where the engine does not take them all."""
    streams: list[Stream] = []
    try:
        for request in requests:
            streams.append(await asyncio.to_thread(engine.submit, request))
    except BaseException as error:
        for stream in streams:
            stream.cancel()
        raise as_api_error(error) from None
    return streams


def as_api_error(error: BaseException, *, constrained: bool = False) -> BaseException:
    """What an engine says, in HTTP's words; what is unexpected stays what it is. `constrained`: an answer has a schema."""
    if isinstance(error, Busy):
        wait = {"retry-after": str(max(1, round(error.retry_after)))}
        return APIError(
            429, f"{error.message[:1].upper()}{error.message[1:]}", code="rate_limit_exceeded", headers=wait
        )
    if isinstance(error, Closed):
        return APIError(
            503, "The model is being unloaded; ask again.", code="unavailable", headers={"retry-after": "1"}
        )
    if isinstance(error, AnswerFailed) and constrained and error.__cause__ is None:
        # a schema that became too much while it was followed
        return bad_request(f"{error.message[:1].upper()}{error.message[1:]}", "response_format", "invalid_value")
    if isinstance(error, UserError) and not isinstance(error, MachineError):
        param = FIELDS.get(error.where or "", error.where)
        return bad_request(f"{error.message[:1].upper()}{error.message[1:]}", param, "invalid_value")
    return error


class Source(Protocol):
    """What answers come from: a stream of an engine, or a backend."""

    def aevents(self) -> AsyncIterator[Event]: ...

    def cancel(self) -> None: ...


async def merged(streams: Sequence[Source], *, constrained: bool = False) -> AsyncIterator[tuple[int, Event]]:
    """The events of all streams as they come, each with its stream's number; who stops listening cancels them all."""
    arrived: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue()

    async def pass_on(number: int, stream: Source) -> None:
        try:
            async for event in stream.aevents():
                arrived.put_nowait((number, event))
            arrived.put_nowait((number, None))
        except Exception as error:
            arrived.put_nowait((number, error))

    tasks = [asyncio.create_task(pass_on(number, stream)) for number, stream in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            number, event = await arrived.get()
            if event is None:
                left -= 1
            elif isinstance(event, BaseException):
                raise as_api_error(event, constrained=constrained)
            else:
                yield number, event
    finally:
        for stream in streams:
            stream.cancel()
        for task in tasks:
            task.cancel()


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of work that is given up when the client leaves."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise APIError(499, "The client left.", code="client_left")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait({working, leaving})


async def _left(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events: a line `data:` for each, in JSON, and `[DONE]`. The events are closed, and what is `held` for them
    let go, when the last one is sent or the client leaves."""

    media_type = "text/event-stream"

    def __init__(
        self, request: Request, events: AsyncGenerator[dict[str, Any]], held: contextlib.AsyncExitStack
    ) -> None:
        self.status_code, self.background = 200, None
        self._request, self._events, self._held = request, events, held
        self.init_headers()
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            with contextlib.suppress(APIError, TimeoutError):  # whoever hears this has left
                await until_disconnect(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await _in_time(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for event in self._events:
                await _in_time(send, _line(json.dumps(event, ensure_ascii=False)))
        except TimeoutError:
            raise
        except APIError as error:
            await _in_time(send, _line(error.event))
        except Exception as error:
            request_id = self._request.state.request_id
            log.exception("request %s", request_id)
            await _in_time(send, _line(unexpected(error, request_id).event))
        finally:
            await self._events.aclose()
        await _in_time(send, _line("[DONE]"))
        await _in_time(send, {"type": "http.response.body", "body": b""})


def _line(data: str) -> Message:
    return {"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True}


async def _in_time(send: Send, message: Message) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await send(message)


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(16)}"


def now() -> int:
    return int(time.time())
