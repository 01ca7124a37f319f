"""Routes that answer: at once, in a stream that is polled, in batches."""

import contextlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request

from luthier.serve.lamini.answers import answers_to
from luthier.serve.lamini.pending import PENDING
from luthier.serve.lamini.shapes import CompletionRequest, ReservationRequest
from luthier.serve.openai import answering
from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

router = APIRouter(tags=["lamini"])

RESERVED = timedelta(minutes=15)


@router.post("/v1/lamini/completions", include_in_schema=False)
@router.post("/v2/completions")
async def completions(request: Request, asked: CompletionRequest) -> Any:
    """Answers to one prompt or several. A single prompt gets an object, several a list of them."""
    async with contextlib.AsyncExitStack() as held:
        answers = await answers_to(request, asked, held)
        found = await answering.until_disconnect(request.receive, answers.whole())
    if request.url.path == "/v2/completions":
        return {"outputs": found, "finish_reason": answers.finish_reasons}
    shaped = found if asked.types else [{"output": text} for text in found]
    return shaped[0] if isinstance(asked.prompt, str) else shaped


@router.post("/v1/reservation")
async def reserve(request: Request, asked: ReservationRequest) -> dict[str, Any]:
    """Capacity is not reserved: requests of all keys are answered in fair turns."""
    service_of(request).catalogue.listed(asked.model_name, key_of(request))
    start = datetime.now(UTC).replace(tzinfo=None)
    return {
        "reservation_id": secrets.token_hex(8),
        "start_time": start.isoformat(),
        "end_time": (start + RESERVED).isoformat(),
        "capacity_remaining": asked.capacity,
        "dynamic_max_batch_size": asked.batch_size or 16,
    }


@router.post("/v3/streaming_completions")
@router.post("/v1/batch_completions")
async def begin(request: Request, asked: CompletionRequest) -> dict[str, str]:
    """Start to answer; `GET …/{id}/result` tells what is there."""
    async with contextlib.AsyncExitStack() as held:
        answers = await answers_to(request, asked, held)
        return {"id": PENDING.add(key_of(request), answers, held.pop_all())}


@router.post("/v1/streaming_completions")
async def begin_or_go_on(request: Request, asked: CompletionRequest) -> dict[str, Any]:
    """A stream as clients from 2.1 to 2.5 poll it: the same request again, with the `server` that was told.

    Some of them never send it on; theirs is the stream of the same request whose end was not told yet.
    """
    key = key_of(request)
    same = asked.model_copy(update={"server": None})
    number = str(asked.server) if PENDING.knows(key, asked.server) else PENDING.same(key, same)
    if number is None:
        async with contextlib.AsyncExitStack() as held:
            answers = await answers_to(request, same, held)
            number = PENDING.add(key, answers, held.pop_all())
    answers = PENDING.get(key, number)
    ended = [reason is not None for reason in answers.finish_reasons]
    outputs = [
        whole if done else text for text, whole, done in zip(answers.texts, answers.outputs(), ended, strict=True)
    ]
    return {"server": number, "status": ended, "data": outputs}


@router.get("/v3/streaming_completions/{answer_id}/result")
async def so_far(request: Request, answer_id: str) -> dict[str, Any]:
    """What has been written so far; a reason for each answer that has ended."""
    answers = PENDING.get(key_of(request), answer_id)
    reasons = answers.finish_reasons
    if not any(answers.texts) and None in reasons:  # clients look on until every answer has a reason, an empty one too
        return {}
    return {"outputs": list(answers.texts), "finish_reason": reasons}


@router.get("/v1/batch_completions/{answer_id}/result")
async def of_batch(request: Request, answer_id: str) -> dict[str, Any]:
    """Whole answers; null where one is still being written."""
    answers = PENDING.get(key_of(request), answer_id)
    reasons = answers.finish_reasons
    outputs = [text if reason else None for text, reason in zip(answers.outputs(), reasons, strict=True)]
    return {"outputs": outputs, "finish_reason": reasons}


@router.get("/v1/version")
async def version(request: Request) -> dict[str, Any]:
    """Versions of the API and of this server."""
    return {"api": [{"name": "v1", "path": "/v1"}], "server": request.app.version, "client": ""}
