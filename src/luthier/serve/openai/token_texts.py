"""Tokens as texts in log-probabilities: a token that is a part of a character only is spelled in bytes, as OpenAI does."""

from luthier.chat.tokens import Tokenizer
from luthier.engine.requests import TokenLogprob


def text_of(tokenizer: Tokenizer, token: int) -> str:
    """A token's text; each token has one of its own, but for those that differ in nothing that can be seen."""
    piece = bytes_of(tokenizer, token)
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def bytes_of(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes that a token stands for."""
    return tokenizer.pieces([token])[0]


def chat_entry(tokenizer: Tokenizer, scored: TokenLogprob) -> dict[str, object]:
    """An entry of a chat's `logprobs.content`."""
    top = [_entry(tokenizer, token, logprob) for token, logprob in scored.top]
    return {**_entry(tokenizer, scored.token, scored.logprob), "top_logprobs": top}


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, object]:
    return {
        "token": text_of(tokenizer, token),
        "logprob": max(logprob, LOWEST),
        "bytes": list(bytes_of(tokenizer, token)),
    }


LOWEST = -9999.0
"""What stands for the log p of a token that is impossible: JSON has no infinity."""


def top_logprobs(tokenizer: Tokenizer, scored: TokenLogprob) -> dict[str, float]:
    """An entry of plain completions' `top_logprobs`: the likeliest tokens, and the token itself among them."""
    found: dict[str, float] = {}
    for token, logprob in (*scored.top, (scored.token, scored.logprob)):
        text = text_of(tokenizer, token)
        found[text] = max(found.get(text, LOWEST), logprob)
    return found
