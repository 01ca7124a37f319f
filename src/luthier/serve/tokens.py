"""A model's tokenizer over HTTP, as lm-eval asks for it, so that its clients need no files of the model."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from luthier.serve.engines import Voice
from luthier.serve.errors import bad_request
from luthier.serve.openai.answering import speaking
from luthier.serve.openai.requests import Text, TokenIds
from luthier.serve.openai.shapes import Asked
from luthier.serve.service import service_of

router = APIRouter(tags=["tokenizer"])

Model = Annotated[str | None, Field(max_length=256)]
"""A model's name; without one it is the first one of the server."""


class TokenizeRequest(Asked):
    prompt: Text
    add_special_tokens: bool = True
    model: Model = None


class Tokens(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizeRequest(Asked):
    tokens: TokenIds
    model: Model = None


class Prompt(BaseModel):
    prompt: str


@router.get("/tokenizer_info")
@router.get("/v1/tokenizer_info", include_in_schema=False)
async def tokenizer_info(
    request: Request, model: Annotated[str | None, Query(max_length=256)] = None
) -> dict[str, Any]:
    """The names of special tokens, and the chat template."""
    async with _speaking(request, model) as voice:
        named = {name: token for name, token in voice.template.tokenizer.named.items() if isinstance(token, str)}
        named.setdefault("eos_token", voice.template.tokenizer.eos)
        return {
            **{name: named.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
            "chat_template": voice.template.portable_source,
            "max_model_len": voice.context,
        }


@router.post("/tokenize")
@router.post("/v1/tokenize", include_in_schema=False)
async def tokenize(request: Request, asked: TokenizeRequest) -> Tokens:
    """A text as tokens, in which control tokens are what they spell."""
    async with _speaking(request, asked.model) as voice:
        coder = voice.engine.lm.tokenizer
        coded = await asyncio.to_thread(coder, asked.prompt, add_special_tokens=asked.add_special_tokens, verbose=False)
        ids = [int(token) for token in coded["input_ids"]]
        return Tokens(tokens=ids, count=len(ids), max_model_len=voice.context)


@router.post("/detokenize")
@router.post("/v1/detokenize", include_in_schema=False)
async def detokenize(request: Request, asked: DetokenizeRequest) -> Prompt:
    """Tokens as text, control tokens spelled."""
    async with _speaking(request, asked.model) as voice:
        most = int(voice.engine.lm.model.config.get_text_config().vocab_size)
        if max(asked.tokens) >= most:
            raise bad_request(f"Invalid 'tokens': the model knows ids from 0 to {most - 1}.", "tokens", "invalid_value")
        return Prompt(prompt=str(voice.engine.lm.tokenizer.decode(asked.tokens)))


def _speaking(request: Request, model: str | None) -> AbstractAsyncContextManager[Voice]:
    if model is None:
        first = next(service_of(request).catalogue.bases(), None)
        if first is None:
            raise bad_request("Missing required parameter: 'model'. No model has its files here.", "model")
        model = first.name
    return speaking(request, model)
