"""Chat completions: a conversation is rendered by the model's own template, and read as training data is read."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from luthier.chat import Conversation, Message, ToolCall
from luthier.data import messages, tool_messages
from luthier.engine.requests import Event, Finished, GenerationRequest, Grammar, Piece, TokenLogprob
from luthier.engine.streams import Stream
from luthier.errors import UserError
from luthier.serve import allowed_answers
from luthier.serve.engines import Voice
from luthier.serve.errors import APIError, bad_request
from luthier.serve.openai import answering, choice, token_texts
from luthier.serve.openai.answering import EventStream
from luthier.serve.openai.relay import relay
from luthier.serve.openai.replies import Reply, Said
from luthier.serve.openai.requests import ChatRequest, MessageAsked
from luthier.serve.openai.shapes import key_of
from luthier.serve.service import service_of

router = APIRouter(prefix="/v1/chat", tags=["chat"])


@router.post("/completions")
async def create(request: Request, asked: ChatRequest) -> Response:
    """The assistant's answer, whole or as server-sent events."""
    if backend := service_of(request).backends.get(asked.model):
        return await relay(request, asked, "chat/completions", backend)
    async with contextlib.AsyncExitStack() as held:
        voice = await held.enter_async_context(answering.speaking(request, asked.model))
        if asked.allowed_answers:
            return await _chosen(request, asked, voice)
        prompt = await asyncio.to_thread(_prompt, voice, asked)
        param = "max_tokens" if asked.max_completion_tokens is None else "max_completion_tokens"
        room = answering.expect_room(voice, prompt, asked.token_limit, param=param)
        top = (asked.top_logprobs or 0) if asked.logprobs else None
        wanted = [
            GenerationRequest(
                tuple(prompt), room, **answering.sampling(asked, number), logprobs=top, grammar=_grammar(asked),
                adapter=voice.adapter, client=key_of(request),
            )
            for number in range(asked.choices)
        ]  # fmt: skip
        streams = await answering.submit(voice.engine, wanted)
        choices = [_Choice(voice, asked) for _ in streams]
        metrics = service_of(request).metrics
        if asked.stream:
            return EventStream(request, _chunks(streams, choices, asked, metrics.generated), held.pop_all())
        body = await answering.until_disconnect(request.receive, _whole(streams, choices, asked, metrics.generated))
        return JSONResponse(body)


async def _chosen(request: Request, asked: ChatRequest, voice: Voice) -> Response:
    """One of the answers that are allowed."""
    service = service_of(request)
    spoken = spoken_messages(voice, asked.messages)
    known = await asyncio.to_thread(service.catalogue.find, asked.model, key_of(request))
    scored = await asyncio.to_thread(allowed_answers.score, voice, known.folder, spoken, asked.allowed_answers)
    chosen = choice.drawn(scored, asked)
    used = choice.usage(scored, chosen)
    service.metrics.generated(used["prompt_tokens"], used["completion_tokens"])
    if asked.stream:
        return EventStream(request, choice.chunks(scored, asked, chosen), contextlib.AsyncExitStack())
    return JSONResponse(choice.body(scored, asked, chosen))


def _prompt(voice: Voice, asked: ChatRequest) -> list[int]:
    """The conversation as the template asks with it."""
    tools = _offered(asked)
    spoken = spoken_messages(voice, asked.messages)
    whole = Conversation(spoken, tools=tools)
    if not voice.template.takes_tools_of(whole) or (tools and not voice.template.reads_calls):
        raise bad_request("The chat template of this model has no form for tools.", "tools", "unsupported_value")
    if not spoken:
        raise bad_request("Invalid 'messages': nothing is said in them.", "messages", "invalid_value")
    try:
        return voice.template.prompt(spoken, tools=tools)
    except UserError as refusal:
        raise bad_request(f"Invalid 'messages': {refusal.message}", "messages", "invalid_value") from None


def spoken_messages(voice: Voice, asked: Sequence[MessageAsked]) -> tuple[Message, ...]:
    """The messages as training data would be read, behind the model's own system message where they bring none."""
    try:
        spoken = messages.chat(json.dumps([message.as_data for message in asked])).messages
    except (messages.Unfit, ValueError) as fault:
        raise bad_request(f"Invalid 'messages': {fault}.", "messages", "invalid_value") from None
    return voice.with_system(spoken)


def _offered(asked: ChatRequest) -> tuple[str, ...]:
    """The functions that the model may call."""
    if not asked.tools or asked.tool_choice == "none":
        return ()
    listed = [tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in asked.tools]
    return tool_messages.definitions(json.dumps(listed))


def _grammar(asked: ChatRequest) -> Grammar | None:
    form = asked.response_format
    if form is None or form.type == "text":
        return None
    schema = form.json_schema.schema_ if form.json_schema else None
    return Grammar(None if schema is None else json.dumps(schema))


class _Choice:
    """One of the answers, as it grows."""

    def __init__(self, voice: Voice, asked: ChatRequest) -> None:
        self._voice, self._scored = voice, bool(asked.logprobs)
        self._reply = Reply(voice.template, tools=bool(_offered(asked)), stop_strings=asked.stop or ())
        self.finished: Finished | None = None
        self.text = self.thoughts = ""
        self.calls: tuple[ToolCall, ...] = ()
        self.logprobs: list[dict[str, object]] = []

    def add(self, event: Event) -> tuple[Said, list[dict[str, object]]]:
        """What this event lets be shown, and the log-probabilities that came with it."""
        said, scores = Said(), []
        if isinstance(event, Piece):
            said, scores = self._reply.add(event), self._entries(event.logprobs)
        elif isinstance(event, Finished):
            if event.finish == "cancelled":
                raise APIError(503, "The server is stopping; the answer is incomplete.", code="unavailable")
            self.finished, said = event, self._reply.end(event)
        self.text, self.thoughts = self.text + said.text, self.thoughts + said.thoughts
        self.calls += said.calls
        self.logprobs += scores
        return said, scores

    def _entries(self, scored: Sequence[TokenLogprob]) -> list[dict[str, object]]:
        template = self._voice.template
        said = [each for each in scored if each.token not in template.stop_ids] if self._scored else []
        return [token_texts.chat_entry(template.tokenizer, each) for each in said]

    @property
    def finish_reason(self) -> str | None:
        if self.finished is None:
            return None
        return "tool_calls" if self.calls else "stop" if self.finished.finish == "stop" else "length"

    def as_json(self, index: int) -> dict[str, Any]:
        """The whole choice."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.thoughts:
            message["reasoning_content"] = self.thoughts
        if self.calls:
            message |= {"content": self.text or None, "tool_calls": _calls(self.calls)}
        scores = {"content": self.logprobs, "refusal": None} if self._scored else None
        return {"index": index, "message": message, "finish_reason": self.finish_reason, "logprobs": scores}


def _calls(calls: Sequence[ToolCall], *, numbered: bool = False) -> list[dict[str, Any]]:
    return [
        ({"index": number} if numbered else {})
        | {
            "id": answering.new_id("call"),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for number, call in enumerate(calls)
    ]


def _usage(choices: Sequence[_Choice]) -> dict[str, Any]:
    ended = [choice.finished for choice in choices if choice.finished]
    prompt, completion = ended[0].prompt_tokens, sum(each.completion_tokens for each in ended)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": max(each.cached_tokens for each in ended)},
    }


async def _whole(
    streams: Sequence[Stream], choices: Sequence[_Choice], asked: ChatRequest, count: answering.Count
) -> dict[str, Any]:
    async for number, event in answering.merged(streams, constrained=_grammar(asked) is not None):
        choices[number].add(event)
    usage = _usage(choices)
    count(usage["prompt_tokens"], usage["completion_tokens"])
    return {
        "id": answering.new_id("chatcmpl"),
        "object": "chat.completion",
        "created": answering.now(),
        "model": asked.model,
        "choices": [choice.as_json(index) for index, choice in enumerate(choices)],
        "usage": usage,
    }


async def _chunks(
    streams: Sequence[Stream], choices: Sequence[_Choice], asked: ChatRequest, count: answering.Count
) -> AsyncGenerator[dict[str, Any]]:
    head = {
        "id": answering.new_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": answering.now(),
        "model": asked.model,
    }

    def chunk(index: int, delta: dict[str, Any], scores: list[dict[str, object]] | None = None) -> dict[str, Any]:
        reason = choices[index].finish_reason
        one: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}
        if scores:
            one["logprobs"] = {"content": scores, "refusal": None}
        return {**head, "choices": [one], **({"usage": None} if asked.with_usage else {})}

    for index in range(len(choices)):
        yield chunk(index, {"role": "assistant", "content": ""})
    async for index, event in answering.merged(streams, constrained=_grammar(asked) is not None):
        said, scores = choices[index].add(event)
        delta: dict[str, Any] = {}
        if said.thoughts:
            delta["reasoning_content"] = said.thoughts
        if said.text:
            delta["content"] = said.text
        if said.calls:
            delta["tool_calls"] = _calls(said.calls, numbered=True)
        if delta or scores or choices[index].finished:
            yield chunk(index, delta, scores)
    usage = _usage(choices)
    count(usage["prompt_tokens"], usage["completion_tokens"])
    if asked.with_usage:
        yield {**head, "choices": [], "usage": usage}
