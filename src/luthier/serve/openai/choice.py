"""Chat completions whose answer is one of those that the request allows: vLLM's `guided_choice`, and its later name.

Nothing is generated: the answers are drawn by their probabilities among each other, calibrated where the model was tuned on
these labels. In `logprobs` a whole answer stands in the place of a token.
"""

import math
import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np

from luthier.serve.allowed_answers import Scored
from luthier.serve.openai import answering, token_texts
from luthier.serve.openai.requests import ChatRequest


def drawn(scored: Scored, asked: ChatRequest) -> list[int]:
    """The answer of each choice, as its number among the allowed ones; at temperature 0 the likeliest."""
    first = np.argsort(-scored.shares, kind="stable")
    if asked.temperature == 0:
        return [int(first[0])] * asked.choices
    scaled = np.log(np.maximum(scored.shares[first], 1e-300)) / (
        1.0 if asked.temperature is None else asked.temperature
    )
    shares = np.exp(scaled - scaled[0])
    shares /= shares.sum()
    top_p = 1.0 if asked.top_p is None else asked.top_p
    kept = int(np.searchsorted(np.cumsum(shares), top_p - 1e-9)) + 1
    weights = shares[:kept].tolist()
    found = []
    for number in range(asked.choices):
        source = random.SystemRandom() if asked.seed is None else random.Random(asked.seed + number)
        found.append(int(source.choices(first[:kept].tolist(), weights)[0]))
    return found


def body(scored: Scored, asked: ChatRequest, chosen: Sequence[int]) -> dict[str, Any]:
    """The whole completion."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": scored.answers[number], "refusal": None},
            "finish_reason": "stop",
            "logprobs": _logprobs(scored, asked, number),
        }
        for index, number in enumerate(chosen)
    ]
    return {**_head("chat.completion", asked), "choices": choices, "usage": usage(scored, chosen)}


async def chunks(scored: Scored, asked: ChatRequest, chosen: Sequence[int]) -> AsyncGenerator[dict[str, Any]]:
    """The same as events: an answer comes in one piece."""
    head = _head("chat.completion.chunk", asked)
    beside = {"usage": None} if asked.with_usage else {}
    for index, number in enumerate(chosen):
        delta = {"role": "assistant", "content": scored.answers[number]}
        one = {"index": index, "delta": delta, "finish_reason": None, "logprobs": _logprobs(scored, asked, number)}
        yield {**head, "choices": [one], **beside}
        end: dict[str, Any] = {"index": index, "delta": {}, "finish_reason": "stop", "logprobs": None}
        yield {**head, "choices": [end], **beside}
    if asked.with_usage:
        yield {**head, "choices": [], "usage": usage(scored, chosen)}


def usage(scored: Scored, chosen: Sequence[int]) -> dict[str, int]:
    """Tokens of the prompt, and of the answers that were given."""
    completion = sum(scored.answer_tokens[number] for number in chosen)
    prompt = scored.prompt_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _head(kind: str, asked: ChatRequest) -> dict[str, Any]:
    return {
        "id": answering.new_id("chatcmpl"), "object": kind, "created": answering.now(), "model": asked.model,
    }  # fmt: skip


def _logprobs(scored: Scored, asked: ChatRequest, number: int) -> dict[str, Any] | None:
    """The answer as one entry, and the likeliest answers beside it."""
    if not asked.logprobs:
        return None
    top = np.argsort(-scored.shares, kind="stable")[: asked.top_logprobs or 0]
    entry = {**_entry(scored, number), "top_logprobs": [_entry(scored, int(each)) for each in top]}
    return {"content": [entry], "refusal": None}


def _entry(scored: Scored, number: int) -> dict[str, Any]:
    answer, share = scored.answers[number], float(scored.shares[number])
    logprob = max(math.log(share), token_texts.LOWEST) if share > 0 else token_texts.LOWEST
    return {"token": answer, "logprob": logprob, "bytes": list(answer.encode())}
