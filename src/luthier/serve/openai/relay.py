"""A request whose model answers at another server: checked as any other, passed on, and its answer called by our name."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from luthier.engine.requests import Busy
from luthier.serve.backends.backend import Backend
from luthier.serve.openai import answering
from luthier.serve.openai.answering import EventStream
from luthier.serve.openai.requests import Generation
from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

KEPT_HERE = {"model", "stream", "stream_options", "user", "store", "metadata", "best_of"}
"""Fields that concern this server, or change nothing."""


async def relay(request: Request, asked: Generation, path: str, backend: Backend) -> Response:
    """The backend's answer, whole or as server-sent events."""
    body = asked.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=KEPT_HERE)
    key, count = key_of(request), service_of(request).metrics.generated
    try:
        if not asked.stream:
            found = await answering.until_disconnect(request.receive, backend.ask(path, body, client=key))
            _expect_choices(found, backend)
            _count(found, count)
            return JSONResponse({**found, "model": asked.model})
        async with contextlib.AsyncExitStack() as held:
            streaming = {**body, "stream": True, "stream_options": {"include_usage": True}}
            begun = held.enter_async_context(backend.stream(path, streaming, client=key))
            events = await answering.until_disconnect(request.receive, begun)
            return EventStream(request, _chunks(events, asked, backend, count), held.pop_all())
    except Busy as busy:
        raise answering.as_api_error(busy) from None


async def _chunks(
    events: AsyncGenerator[dict[str, Any]], asked: Generation, backend: Backend, count: answering.Count
) -> AsyncGenerator[dict[str, Any]]:
    async with contextlib.aclosing(events):
        async for event in events:
            _expect_choices(event, backend)
            _count(event, count)
            if not asked.with_usage:
                event.pop("usage", None)
            if event["choices"] or asked.with_usage:
                yield {**event, "model": asked.model}


def _expect_choices(found: Mapping[str, Any], backend: Backend) -> None:
    if not isinstance(found.get("choices"), list):
        backend.fail("its answer has no choices")


def _count(found: Mapping[str, Any], count: answering.Count) -> None:
    """Count the tokens of an answer, where it says how many they are."""
    usage = found.get("usage")
    if isinstance(usage, dict):
        numbers = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        count(*(number if isinstance(number, int) and number >= 0 else 0 for number in numbers))
