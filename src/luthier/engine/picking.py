"""From a batch's scores to each row's next token, by what its request asks; and how likely tokens are."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from luthier.engine.requests import TokenLogprob
from luthier.engine.rows import Row
from luthier.model import sampling


class Picked(NamedTuple):
    """A row's next token, with its log p where that was asked for."""

    token: int
    logprob: TokenLogprob | None = None


@torch.inference_mode()
def pick(rows: Sequence[Row], scores: Float[Tensor, "batch vocab"]) -> list[Picked]:
    """Each row's next token. Log p is the model's own, before temperature, penalties and grammar."""
    tokens = scores.argmax(dim=-1).tolist()
    if all(row.is_plain for row in rows):
        return [Picked(token) for token in tokens]
    changed = [place for place, row in enumerate(rows) if row.counts]
    changed_scores = {place: _changed(rows[place], scores[place]) for place in changed}
    for place in changed:
        tokens[place] = int(changed_scores[place].argmax())
    drawn = [place for place, row in enumerate(rows) if row.request.temperature]
    if drawn:
        asked = [rows[place].request for place in drawn]
        chosen = sampling.draw(
            torch.stack([changed_scores.get(place, scores[place]) for place in drawn]),
            [rows[place].generator.random() for place in drawn],
            [one.temperature for one in asked],
            [one.top_p for one in asked],
        )
        for place, token in zip(drawn, chosen.tolist(), strict=True):
            tokens[place] = token
    logprobs: dict[int, TokenLogprob] = {}
    if told := [place for place, row in enumerate(rows) if row.request.logprobs is not None]:
        wanted = torch.tensor([tokens[place] for place in told], device=scores.device)
        most = [rows[place].request.logprobs or 0 for place in told]
        logprobs = dict(zip(told, token_logprobs(scores[told], wanted, most), strict=True))
    return [Picked(token, logprobs.get(place)) for place, token in enumerate(tokens)]


def _changed(row: Row, scores: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    """A row's scores as its request wants them changed."""
    asked = row.request
    return sampling.penalise(scores, row.counts, presence=asked.presence_penalty, frequency=asked.frequency_penalty)


def token_logprobs(
    scores: Float[Tensor, "places vocab"], tokens: Int[Tensor, " places"], most: Sequence[int]
) -> list[TokenLogprob]:
    """Log p of a token at each place, with so many of the likeliest tokens there."""
    logprobs = scores.float().log_softmax(dim=-1)
    own = logprobs.gather(1, tokens[:, None]).squeeze(1).tolist()
    values, ids = logprobs.topk(max(most), dim=-1) if max(most) else (logprobs[:, :0], logprobs[:, :0])
    tops = [list(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)]
    return [
        TokenLogprob(token, logprob, tuple(top[:count]))
        for token, logprob, top, count in zip(tokens.tolist(), own, tops, most, strict=True)
    ]
