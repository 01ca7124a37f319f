"""Answers as Lamini's clients ask for them: texts, or fields of given types.

A tuned model is asked as it was trained, with the prompt as the user's message. So is a base model with a chat template of
its own; one without is a base model that continues text, and continues the prompt.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from luthier.chat import Message
from luthier.engine.requests import Finished, GenerationRequest, Grammar, Piece
from luthier.errors import UserError
from luthier.serve.backends.answer import Answer
from luthier.serve.backends.backend import Backend
from luthier.serve.engines import Voice
from luthier.serve.errors import bad_request
from luthier.serve.lamini.shapes import CompletionRequest
from luthier.serve.openai import answering
from luthier.serve.openai.answering import Source
from luthier.serve.openai.replies import PlainReply, Reply
from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

USUAL_TOKENS = 256
"""Of an answer where nobody says how many, as far as the context goes."""
EMPTY = "Invalid 'prompt': it is empty."


@dataclass
class Answers:
    """Answers to the prompts of a request, as they grow."""

    asked: CompletionRequest
    streams: Sequence[Source]
    replies: Sequence[Reply | PlainReply]

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


async def answers_to(request: Request, asked: CompletionRequest, held: contextlib.AsyncExitStack) -> Answers:
    """The request's prompts, handed to the engine of its model, which `held` keeps, or to the server that has the model."""
    if backend := service_of(request).backends.get(asked.model_name):
        return _elsewhere(backend, asked, key_of(request))
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
    return Answers(
        asked, streams, [Reply(voice.template, tools=False, stop_strings=asked.stop_tokens or ()) for _ in streams]
    )


def _elsewhere(backend: Backend, asked: CompletionRequest, client: str) -> Answers:
    """Answers of another server, to which a prompt goes as the user's message."""
    if not all(asked.prompts):
        raise bad_request(EMPTY, "prompt", "invalid_value")
    body: dict[str, Any] = {"temperature": 0, "max_tokens": asked.token_limit or USUAL_TOKENS}
    if asked.stop_tokens:
        body["stop"] = asked.stop_tokens
    if asked.types:
        schema = {"name": "answer", "schema": _schema(asked.types), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    streams = [
        Answer(backend, {**body, "messages": [{"role": "user", "content": text}]}, client=client)
        for text in asked.prompts
    ]
    return Answers(asked, streams, [PlainReply() for _ in streams])


def _ids(voice: Voice, text: str) -> list[int]:
    """A prompt as tokens: a message of the user, or for a base model the text itself."""
    if not text:
        raise bad_request(EMPTY, "prompt", "invalid_value")
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
