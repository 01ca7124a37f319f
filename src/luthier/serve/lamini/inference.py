"""Answers as Lamini's clients ask for them: a text, or fields of given types; at once, in a stream that is polled, in batches.

A tuned model is asked as it was trained, with the prompt as the user's message. So is a base model with a chat template of
its own; one without is a base model that continues text, and continues the prompt.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request

from luthier.chat import Message
from luthier.engine.requests import Finished, GenerationRequest, Grammar, Piece
from luthier.engine.streams import Stream
from luthier.errors import UserError
from luthier.serve.engines import Voice
from luthier.serve.errors import APIError, bad_request, not_found
from luthier.serve.lamini.shapes import CompletionRequest, ReservationRequest
from luthier.serve.openai import answering
from luthier.serve.openai.replies import Reply
from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

router = APIRouter(tags=["lamini"])

USUAL_TOKENS = 256
"""Of an answer where nobody says how many, as far as the context goes."""
MOST_PENDING = 256
"""Streams and batches that wait to be fetched; the oldest are forgotten, and what they still do is given up."""
RESERVED = timedelta(minutes=15)


@router.post("/v1/lamini/completions", include_in_schema=False)
@router.post("/v2/completions")
async def completions(request: Request, asked: CompletionRequest) -> Any:
    """Answers to one prompt or several. A single prompt gets an object, several a list of them."""
    async with contextlib.AsyncExitStack() as held:
        answers = await _answers(request, asked, held)
        found = await answering.until_disconnect(request.receive, answers.whole())
    if request.url.path == "/v2/completions":
        return {"outputs": found, "finish_reason": answers.finish_reasons}
    shaped = found if asked.types else [{"output": text} for text in found]
    return shaped[0] if isinstance(asked.prompt, str) else shaped


@router.post("/v1/reservation")
async def reserve(request: Request, asked: ReservationRequest) -> dict[str, Any]:
    """Capacity is not reserved: requests of all keys are answered in fair turns."""
    service_of(request).catalogue.find(asked.model_name, key_of(request))
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
        answers = await _answers(request, asked, held)
        return {"id": PENDING.add(key_of(request), answers, held.pop_all())}


@router.get("/v3/streaming_completions/{answer_id}/result")
async def so_far(request: Request, answer_id: str) -> dict[str, Any]:
    """What has been written so far; a reason for each answer that has ended."""
    answers = PENDING.get(key_of(request), answer_id)
    if not any(answers.texts):
        return {}
    return {"outputs": list(answers.texts), "finish_reason": answers.finish_reasons}


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


@dataclass
class _Answers:
    """Answers to the prompts of a request, as they grow."""

    asked: CompletionRequest
    streams: Sequence[Stream]
    replies: Sequence[Reply]
    begun: float = field(default_factory=time.monotonic)
    task: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        self.texts = [""] * len(self.streams)
        self.ended: list[Finished | None] = [None] * len(self.streams)

    async def collect(self) -> None:
        """Read the streams to their ends."""
        async for number, event in answering.merged(self.streams):
            if isinstance(event, Piece):
                self.texts[number] += self.replies[number].add(event).text
            elif isinstance(event, Finished):
                self.texts[number] += self.replies[number].end(event).text
                self.ended[number] = event

    async def whole(self) -> list[Any]:
        """All answers, once they are there."""
        await self.collect()
        return self.outputs()

    @property
    def finish_reasons(self) -> list[str | None]:
        return [None if each is None else "stop" if each.finish == "stop" else "length" for each in self.ended]

    def outputs(self) -> list[Any]:
        """Texts, or objects where types were asked for."""
        if not self.asked.types:
            return list(self.texts)
        return [_typed(text) if ended else None for text, ended in zip(self.texts, self.ended, strict=True)]


def _typed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        message = "The typed answer did not end within max_tokens; allow more of them, or ask for fewer fields."
        raise bad_request(message, "max_tokens", "incomplete_answer") from None


async def _answers(request: Request, asked: CompletionRequest, held: contextlib.AsyncExitStack) -> _Answers:
    """The request's prompts, handed to the engine of its model, which `held` keeps."""
    voice = await held.enter_async_context(answering.speaking(request, asked.model_name))
    prompts = await asyncio.to_thread(lambda: [_ids(voice, text) for text in asked.prompts])
    limit = asked.token_limit
    rooms = [answering.expect_room(voice, prompt, limit, param="max_tokens") for prompt in prompts]
    grammar = asked.types and Grammar(json.dumps(_schema(asked.types)))
    wanted = [
        GenerationRequest(
            tuple(prompt), room if limit else min(room, USUAL_TOKENS), stop_strings=tuple(asked.stop_tokens or ()),
            grammar=grammar or None, adapter=voice.adapter, client=key_of(request),
        )
        for prompt, room in zip(prompts, rooms, strict=True)
    ]  # fmt: skip
    streams = await answering.submit(voice.engine, wanted)
    return _Answers(
        asked, streams, [Reply(voice.template, tools=False, stop_strings=asked.stop_tokens or ()) for _ in streams]
    )


def _ids(voice: Voice, text: str) -> list[int]:
    """A prompt as tokens: a message of the user, or for a base model the text itself."""
    if not text:
        raise bad_request("Invalid 'prompt': it is empty.", "prompt", "invalid_value")
    if voice.adapter is None and not voice.engine.lm.tokenizer.chat_template:
        return voice.template.prompt((Message("text", text),))
    try:
        return voice.template.prompt(voice.with_system((Message("user", text),)))
    except UserError as refusal:
        raise bad_request(f"Invalid 'prompt': {refusal.message}", "prompt", "invalid_value") from None


def _schema(types: dict[str, str]) -> dict[str, Any]:
    """JSON Schema of an object with these fields and no others."""
    fields = {name: {"type": kind} for name, kind in types.items()}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


class Pending:
    """Answers that are fetched later, by who asked for them only."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str], _Answers] = OrderedDict()

    def add(self, key: str, answers: _Answers, held: contextlib.AsyncExitStack) -> str:
        """Go on reading the answers, whose model `held` keeps until then; gives the id by which they are fetched."""

        async def collect() -> None:
            async with held:
                await answers.collect()

        number = secrets.token_hex(16)
        answers.task = asyncio.create_task(collect())
        self._answers[key, number] = answers
        while len(self._answers) > MOST_PENDING:
            _, oldest = self._answers.popitem(last=False)
            assert oldest.task
            oldest.task.cancel()
        return number

    def get(self, key: str, number: str) -> _Answers:
        """The answers with this id; raises what went wrong while they were written."""
        found = self._answers.get((key, number))
        if found is None:
            raise not_found("answer", number[:80] if number.isprintable() else "…", param="id")
        if found.task and found.task.done() and not found.task.cancelled() and (error := found.task.exception()):
            raise error if isinstance(error, APIError) else APIError(500, "The answer could not be computed.")
        return found


PENDING = Pending()
