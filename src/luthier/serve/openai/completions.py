"""Plain completions: texts or tokens that the model continues, and how likely it finds each token, which lm-eval asks for."""

import asyncio
import codecs
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from luthier.chat import Message
from luthier.engine.requests import Event, Finished, GenerationRequest, Piece, PromptScored, TokenLogprob
from luthier.engine.streams import Stream
from luthier.serve.engines import Voice
from luthier.serve.errors import APIError, bad_request
from luthier.serve.openai import answering, token_texts
from luthier.serve.openai.answering import EventStream
from luthier.serve.openai.relay import relay
from luthier.serve.openai.requests import MOST_CHOICES, CompletionRequest
from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

router = APIRouter(prefix="/v1/completions", tags=["completions"])

USUAL_TOKENS = 16
"""Of an answer where nobody says how many: OpenAI's number."""


@router.post("")
async def create(request: Request, asked: CompletionRequest) -> Response:
    """Continuations of one prompt or of several, whole or as server-sent events."""
    if len(asked.prompts) * asked.choices > MOST_CHOICES:
        message = (
            f"Invalid 'n': found {len(asked.prompts)} prompts with {asked.choices} answers each, at most {MOST_CHOICES}"
        )
        raise bad_request(f"{message} answers are given at a time.", "n", "invalid_value")
    if backend := service_of(request).backends.get(asked.model):
        return await relay(request, asked, "completions", backend)
    async with contextlib.AsyncExitStack() as held:
        voice = await held.enter_async_context(answering.speaking(request, asked.model))
        prompts = await asyncio.to_thread(lambda: [_ids(voice, prompt) for prompt in asked.prompts])
        limit = USUAL_TOKENS if asked.max_tokens is None else asked.max_tokens
        for prompt in prompts:
            answering.expect_room(voice, prompt, limit, param="max_tokens")
        wanted = [
            GenerationRequest(
                tuple(prompt), limit, **answering.sampling(asked, number), logprobs=asked.logprobs,
                prompt_logprobs=bool(asked.echo) and asked.logprobs is not None, adapter=voice.adapter,
                client=key_of(request),
            )
            for prompt in prompts
            for number in range(asked.choices)
        ]  # fmt: skip
        streams = await answering.submit(voice.engine, wanted)
        choices = [_Choice(voice, asked, one.prompt, _spelled(voice, asked, at)) for at, one in enumerate(wanted)]
        metrics = service_of(request).metrics
        if asked.stream:
            return EventStream(request, _chunks(streams, choices, asked, metrics.generated), held.pop_all())
        body = await answering.until_disconnect(request.receive, _whole(streams, choices, asked, metrics.generated))
        return JSONResponse(body)


def _ids(voice: Voice, prompt: str | list[int]) -> list[int]:
    """A prompt as tokens. In a text nothing is a control token, as in the documents that models are trained on."""
    ids = voice.template.prompt((Message("text", prompt),)) if isinstance(prompt, str) else prompt
    if not ids:
        raise bad_request("Invalid 'prompt': it has no tokens.", "prompt", "invalid_value")
    return ids


def _spelled(voice: Voice, asked: CompletionRequest, number: int) -> str:
    """The prompt of a choice as text."""
    prompt = asked.prompts[number // asked.choices]
    return prompt if isinstance(prompt, str) else voice.template.tokenizer.decode(prompt, control=True)


class _Choice:
    """One of the continuations, as it grows."""

    def __init__(self, voice: Voice, asked: CompletionRequest, prompt: Sequence[int], spelled: str) -> None:
        self._tokenizer, self.prompt_text = voice.template.tokenizer, spelled
        self._scored = asked.logprobs is not None
        self.echo = bool(asked.echo)
        self.finished: Finished | None = None
        self.text = spelled if self.echo else ""
        self._prompt = prompt
        self._offset, self._decoder = (
            len(spelled) if not self.echo else 0,
            codecs.getincrementaldecoder("utf-8")("replace"),
        )
        self.logprobs: dict[str, list[Any]] = _no_scores()

    def add(self, event: Event) -> tuple[str, dict[str, list[Any]]]:
        """The text and the log-probabilities that came with this event."""
        text, scores = "", _no_scores()
        if isinstance(event, Piece):
            text, scores = event.text, self._entries(event.logprobs)
        elif isinstance(event, PromptScored):
            scores = self._entries(event.logprobs, self._prompt)
        else:
            if event.finish == "cancelled":
                raise APIError(503, "The server is stopping; the answer is incomplete.", code="unavailable")
            self.finished = event
        self.text += text
        for name, values in scores.items():
            self.logprobs[name] += values
        return text, scores

    def _entries(self, scored: Sequence[TokenLogprob | None], ids: Sequence[int] = ()) -> dict[str, list[Any]]:
        scores = _no_scores()
        for at, one in enumerate(scored if self._scored else ()):
            token = one.token if one else ids[at]
            scores["tokens"].append(token_texts.text_of(self._tokenizer, token))
            scores["token_logprobs"].append(max(one.logprob, token_texts.LOWEST) if one else None)
            scores["top_logprobs"].append(token_texts.top_logprobs(self._tokenizer, one) if one else None)
            scores["text_offset"].append(self._offset)
            self._offset += len(self._decoder.decode(token_texts.bytes_of(self._tokenizer, token)))
        return scores

    def as_json(self, index: int, text: str, scores: dict[str, list[Any]]) -> dict[str, Any]:
        """The choice with this text, and as far as it has ended with the reason."""
        reason = self.finished and ("stop" if self.finished.finish == "stop" else "length")
        return {"index": index, "text": text, "logprobs": scores if self._scored else None, "finish_reason": reason}


def _no_scores() -> dict[str, list[Any]]:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}


def _usage(choices: Sequence[_Choice], each: int) -> dict[str, int]:
    """Tokens, a prompt's once however many answers it has."""
    ended = [choice.finished for choice in choices if choice.finished]
    prompt = sum(one.prompt_tokens for one in ended[::each])
    completion = sum(one.completion_tokens for one in ended)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _head(asked: CompletionRequest) -> dict[str, Any]:
    kind = {"id": answering.new_id("cmpl"), "object": "text_completion"}
    return {**kind, "created": answering.now(), "model": asked.model}


async def _whole(
    streams: Sequence[Stream], choices: Sequence[_Choice], asked: CompletionRequest, count: answering.Count
) -> dict[str, Any]:
    async for number, event in answering.merged(streams):
        choices[number].add(event)
    usage = _usage(choices, asked.choices)
    count(usage["prompt_tokens"], usage["completion_tokens"])
    listed = [choice.as_json(index, choice.text, choice.logprobs) for index, choice in enumerate(choices)]
    return {**_head(asked), "choices": listed, "usage": usage}


async def _chunks(
    streams: Sequence[Stream], choices: Sequence[_Choice], asked: CompletionRequest, count: answering.Count
) -> AsyncGenerator[dict[str, Any]]:
    head = _head(asked)
    beside = {"usage": None} if asked.with_usage else {}
    for index, choice in enumerate(choices if asked.echo else ()):
        yield {**head, "choices": [choice.as_json(index, choice.prompt_text, _no_scores())], **beside}
    async for index, event in answering.merged(streams):
        text, scores = choices[index].add(event)
        if text or scores["tokens"] or choices[index].finished:
            yield {**head, "choices": [choices[index].as_json(index, text, scores)], **beside}
    usage = _usage(choices, asked.choices)
    count(usage["prompt_tokens"], usage["completion_tokens"])
    if asked.with_usage:
        yield {**head, "choices": [], "usage": usage}
