"""Answers, many at once: sorted by length, batched under a token budget, left-padded, finished rows dropped.

Each prompt may be answered up to its own limit, and as far as its own context goes, whatever else is in its batch.
Greedy, or sampled with a seed for each prompt. What all prompts of a batch begin with (a system message, the examples of a
few-shot prompt) is computed once and shared. Prompts are read a few of like length at a time, and answered all together.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from luthier.model import cache as caches
from luthier.model import decoding, probes, sampling
from luthier.model.loading import LanguageModel

CACHE_BYTES = 2 << 30  # of keys and values that a batch may need: more rows at a time are faster, until memory is short


@dataclass(frozen=True)
class Reply:
    """Generated ids with the stop token, if one came; `seconds` is the batch's time divided by its rows."""

    ids: list[int]
    finish: str
    """`stop` at an end token, `length` at the token limit or the context's end, `no room` where the prompt fills that."""
    seconds: float


@dataclass(frozen=True)
class Sampling:
    """Draws each token from the model's distribution at this temperature instead of the argmax.

    `seeds` has an entry for each prompt. A prompt's draws depend on its seed alone, not on its batch-mates.
    """

    temperature: float
    seeds: Sequence[Sequence[int]]


NO_ROOM = "no room"
"""How an answer finishes that never began, because its prompt leaves no token of the context free."""

Pick = Callable[[Tensor, Sequence[int]], Tensor]
"""(scores of the last position, the rows that they belong to) → each row's next token."""


def answer(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | Sequence[int],
    sampling: Sampling | None = None,
    stop_strings: Sequence[str] = (),
    over: Callable[[Sequence[int]], bool] | None = None,
    tokens_per_batch: int | None = None,
    on_batch: Callable[[dict[int, Reply]], None] | None = None,
) -> list[Reply]:
    """A reply to each prompt, in their order; `on_batch` sees each batch's replies by index as soon as they are there.

    `max_new_tokens` is one limit for all prompts, or one for each. A reply also ends with the token that completes one of
    the `stop_strings`, and is cut where its ids are `over`.
    """
    limits = limits_of(lm, prompts, max_new_tokens)
    replies: dict[int, Reply] = {}
    for batch in batches(lm, prompts, limits, tokens_per_batch):
        start = time.perf_counter()
        rows: list[list[int]] = [[] for _ in batch]
        ended: set[int] = set()
        cut: set[int] = set()
        pick = _sampled(sampling, batch) if sampling else _argmax
        for tokens in _decode(
            lm, [prompts[number] for number in batch], [limits[number] for number in batch], ended, pick
        ):
            for row, token in tokens.items():
                rows[row].append(token)
            if stop_strings:
                ended.update(row for row in tokens if _complete(lm, rows[row], stop_strings))
            if over:
                cut.update(row for row in tokens if row not in ended and over(rows[row]))
                ended |= cut
        seconds = (time.perf_counter() - start) / len(batch)
        done = {
            number: Reply(rows[row], _finish(row in ended - cut, room=limits[number]), seconds)
            for row, number in enumerate(batch)
        }
        replies.update(done)
        if on_batch:
            on_batch(done)
    return [replies[number] for number in range(len(prompts))]


def stream(lm: LanguageModel, prompt: Sequence[int], *, max_new_tokens: int) -> Iterator[int]:
    """The reply to one prompt, token by token; the same tokens as `answer` gives."""
    for tokens in _decode(lm, [prompt], limits_of(lm, [prompt], max_new_tokens), set()):
        yield tokens[0]


def limits_of(lm: LanguageModel, prompts: Sequence[Sequence[int]], most: int | Sequence[int]) -> list[int]:
    """How many tokens may follow each prompt: as many as were asked for, and fit into the context behind it."""
    each = [most] * len(prompts) if isinstance(most, int) else most
    return [max(0, min(limit, lm.context - len(prompt))) for prompt, limit in zip(prompts, each, strict=True)]


def _finish(stopped: bool, *, room: int) -> str:
    return "stop" if stopped else "length" if room else NO_ROOM


def batches(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], limits: Sequence[int], tokens_per_batch: int | None = None
) -> Iterator[list[int]]:
    """Numbers of prompts that are answered together: of like length, with at most so many tokens when padded.

    What has no room for an answer comes first, in a batch of its own. No batch reaches beyond the context, unless its
    prompts do: some families keep a mask of that size. Nor beyond what a model computes alike beside any batch-mates.
    """
    budget = tokens_per_batch or CACHE_BYTES // caches.bytes_per_token(lm.model.config, lm.model.dtype)
    order = sorted(range(len(prompts)), key=lambda number: (len(prompts[number]), number))
    if without := [number for number in order if not limits[number]]:
        yield without
    longest = max((len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True) if limit), default=0)
    most = min(lm.context, probes.longest_in_batch(lm.model, longest))
    batch: list[int] = []
    limit = 0
    for number in (number for number in order if limits[number]):
        size = len(prompts[number]) + max(limit, limits[number])
        if batch and (size > most or (len(batch) + 1) * size > budget):
            yield batch
            batch, limit = [], 0
        batch.append(number)
        limit = max(limit, limits[number])
    if batch:
        yield batch


def _complete(lm: LanguageModel, ids: Sequence[int], stop_strings: Sequence[str]) -> bool:
    """Whether one of the texts stands at the end of what was written; a token has at least a byte."""
    text = lm.template.tokenizer.decode(ids[-max(len(end.encode()) for end in stop_strings) - 1 :])
    return any(end in text for end in stop_strings)


def _argmax(scores: Float[Tensor, "batch vocab"], rows: Sequence[int]) -> Int[Tensor, " batch"]:
    return scores.argmax(dim=-1)


def _sampled(drawing: Sampling, prompts: Sequence[int]) -> Pick:
    """Each row's draw at a level of its own generator."""
    generators = [np.random.default_rng(drawing.seeds[prompt]) for prompt in prompts]

    def pick(scores: Float[Tensor, "batch vocab"], rows: Sequence[int]) -> Int[Tensor, " batch"]:
        levels = [generators[row].random() for row in rows]
        return sampling.draw(scores, levels, [drawing.temperature] * len(rows))

    return pick


def _decode(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    ended: set[int],
    pick: Pick = _argmax,
) -> Iterator[dict[int, int]]:
    """Each step's new tokens by row, up to a row's limit; rows that are over are soon no longer computed.

    Those that stop are put into `ended`; the caller may put others in.
    """
    steps = max(limits)
    if not steps:
        return
    batch, scores = decoding.read(lm, prompts, steps)
    rows = list(range(len(prompts)))
    whole = max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True))
    stretched = probes.longest_in_batch(lm.model, whole) + 1  # tokens from which on a row's positions are others
    text = list(prompts[0])
    for step in range(1, steps + 1):
        chosen = pick(scores, rows)  # batch
        new = {
            row: token
            for row, token in zip(rows, chosen.tolist(), strict=True)
            if row not in ended and step <= limits[row]
        }
        ended.update(row for row, token in new.items() if token in lm.template.stop_ids)
        yield new
        going = [index for index, row in enumerate(rows) if row not in ended and step < limits[row]]
        if not going or step == steps:
            return
        kept = batch.thin(going)
        chosen, rows = chosen[kept], [rows[index] for index in kept]
        if len(prompts) == 1 and len(text := [*text, *new.values()]) == stretched:
            # as transformers does where LongRoPE changes its factors
            batch, scores = decoding.read(lm, [text], steps - step)
            continue
        scores = batch.step(chosen)
