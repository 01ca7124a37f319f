"""How likely texts are to a model: Σ log p of continuations behind contexts, many at once, nothing generated.

A context is computed once for all its continuations.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn
from transformers import DynamicCache

from luthier.model.loading import LanguageModel

Ids = Sequence[int]
TOKENS_PER_BATCH = 512  # continuation tokens, padding included: their scores over the vocabulary are in memory at once


class Likelihood(NamedTuple):
    """`logprob` is Σ log p of a continuation in nats; `greedy` says whether each of its tokens is the likeliest one."""

    logprob: float
    greedy: bool


def continuations(
    lm: LanguageModel,
    pairs: Sequence[tuple[Ids, Ids]],
    *,
    on_batch: Callable[[dict[int, Likelihood]], None] | None = None,
) -> list[Likelihood]:
    """For each (context, continuation) how likely the continuation is; neither is empty, together they fit into the context.

    `on_batch` sees likelihoods, by index, as soon as they are there.
    """
    behind: dict[tuple[int, ...], list[int]] = {}
    for number, (context, _) in enumerate(pairs):
        behind.setdefault(tuple(context), []).append(number)
    found: dict[int, Likelihood] = {}
    for numbers in _batches(list(behind.values()), pairs):
        done = dict(zip(numbers, _score(lm, [pairs[number] for number in numbers]), strict=True))
        found.update(done)
        if on_batch:
            on_batch(done)
    return [found[number] for number in range(len(pairs))]


def _batches(groups: Sequence[list[int]], pairs: Sequence[tuple[Ids, Ids]]) -> Iterator[list[int]]:
    """Pairs of one context together, groups of like lengths together, as many as the budget allows."""
    sizes = [(max(len(pairs[number][1]) for number in group), len(pairs[group[0]][0])) for group in groups]
    batch: list[int] = []
    for width, place in sorted((size, place) for place, size in enumerate(sizes)):
        if batch and (len(batch) + len(groups[place])) * width[0] > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch += groups[place]
    if batch:
        yield batch


@torch.inference_mode()
def _score(lm: LanguageModel, pairs: Sequence[tuple[Ids, Ids]]) -> list[Likelihood]:
    """One pass over the contexts, padded on the left, and one over all continuations, padded on the right."""
    contexts = list(dict.fromkeys(tuple(context) for context, _ in pairs))
    place = {context: number for number, context in enumerate(contexts)}
    longest, width = max(map(len, contexts)), max(len(ids) for _, ids in pairs)
    tokens = _tensor([[0] * (longest - len(ids)) + list(ids) for ids in contexts], lm)
    mask = _tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in contexts], lm)
    cache = DynamicCache(config=lm.model.config)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    head = {"cache": cache, "use_cache": True}
    first = lm.model(input_ids=tokens, attention_mask=mask, position_ids=positions, logits_to_keep=1, **head).logits
    rows = _tensor([place[tuple(context)] for context, _ in pairs], lm)
    cache.batch_select_indices(rows)
    wanted = _tensor([list(ids) + [0] * (width - len(ids)) for _, ids in pairs], lm)  # pair width
    counts = _tensor([[1] * len(ids) + [0] * (width - len(ids)) for _, ids in pairs], lm)
    mask = torch.cat([mask[rows], counts], dim=1)
    positions = (mask.cumsum(dim=1) - 1)[:, longest:]
    later = lm.model(input_ids=wanted, attention_mask=mask, position_ids=positions, **head).logits  # pair width vocab
    scores = torch.cat([first[rows], later[:, :-1]], dim=1).float()
    losses = nn.functional.cross_entropy(scores.transpose(1, 2), wanted, reduction="none") * counts
    likeliest = ((scores.argmax(dim=-1) == wanted) | (counts == 0)).all(dim=1)
    return [Likelihood(-nats, best) for nats, best in zip(losses.sum(dim=1).tolist(), likeliest.tolist(), strict=True)]


def _tensor(rows: Sequence[object], lm: LanguageModel) -> torch.Tensor:
    return torch.tensor(rows, device=lm.device)
