"""From a batch's scores to each row's next token, by what its request asks; and how likely tokens are."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from luthier.engine.requests import TokenLogprob
from luthier.engine.rows import Row
from luthier.errors import UserError
from luthier.model import sampling


class Picked(NamedTuple):
    """A row's next token, with its log p where that was asked for."""

    token: int
    logprob: TokenLogprob | None = None
    failure: str | None = None
    """Why this row has no next token."""


@torch.inference_mode()
def pick(rows: Sequence[Row], scores: Float[Tensor, "batch vocab"]) -> list[Picked]:
    """Each row's next token. Log p is the model's own, before temperature, penalties and grammar."""
    tokens = scores.argmax(dim=-1).tolist()
    if all(row.is_plain for row in rows):
        return [Picked(token) for token in tokens]
    changed: dict[int, Tensor] = {}
    failures: dict[int, str] = {}
    for index, row in enumerate(rows):
        if (row.counts or row.grammar) and not row.stream.ended:
            try:
                changed[index] = _changed(row, scores[index])
            except UserError as error:
                failures[index] = error.message
            else:
                tokens[index] = int(changed[index].argmax())
    drawn = [index for index, row in enumerate(rows) if row.request.temperature]
    if drawn:
        asked = [rows[index].request for index in drawn]
        chosen = sampling.draw(
            torch.stack([changed.get(index, scores[index]) for index in drawn]),
            [rows[index].generator.random() for index in drawn],
            [one.temperature for one in asked],
            [one.top_p for one in asked],
        )
        for index, token in zip(drawn, chosen.tolist(), strict=True):
            tokens[index] = token
    logprobs: dict[int, TokenLogprob] = {}
    if wanted_by := [index for index, row in enumerate(rows) if row.request.logprobs is not None]:
        wanted = torch.tensor([tokens[index] for index in wanted_by], device=scores.device)
        most = [rows[index].request.logprobs or 0 for index in wanted_by]
        logprobs = dict(zip(wanted_by, token_logprobs(scores[wanted_by], wanted, most), strict=True))
    return [Picked(token, logprobs.get(index), failures.get(index)) for index, token in enumerate(tokens)]


def _changed(row: Row, scores: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    """A row's scores as its request wants them changed."""
    asked = row.request
    scores = sampling.penalise(scores, row.counts, presence=asked.presence_penalty, frequency=asked.frequency_penalty)
    return scores if row.grammar is None else scores.masked_fill(~row.grammar.allowed(scores.device), -torch.inf)


def token_logprobs(
    scores: Float[Tensor, "positions vocab"], tokens: Int[Tensor, " positions"], most: Sequence[int]
) -> list[TokenLogprob]:
    """Log p of a token at each position, with so many of the likeliest tokens there."""
    logprobs = scores.float().log_softmax(dim=-1)
    own = logprobs.gather(1, tokens[:, None]).squeeze(1).tolist()
    values, ids = logprobs.topk(max(most), dim=-1) if max(most) else (logprobs[:, :0], logprobs[:, :0])
    tops = [list(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)]
    return [
        TokenLogprob(token, logprob, tuple(top[:count]))
        for token, logprob, top, count in zip(tokens.tolist(), own, tops, most, strict=True)
    ]
