"""Answers, many at once: sorted by length, batched under a token budget, left-padded, finished rows dropped.

Each prompt may be answered up to its own limit, and as far as its own context goes, whatever else is in its batch.
Greedy, or sampled with a seed for each prompt. What all prompts of a batch begin with (a system message, the examples of a
few-shot prompt) is computed once and shared. Prompts are read a few of like length at a time, and answered all together.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from luthier.model import cache as caches
from luthier.model import probes
from luthier.model.loading import LanguageModel

DROP_AT = (
    0.75  # share of rows still going at which the others are dropped, where that copies the cache: not of plain layers
)
SHARED_AT_LEAST = 16  # tokens of common beginning that are worth a forward pass of their own
CACHE_BYTES = 2 << 30  # of keys and values that a batch may need: more rows at a time are faster, until memory is short
CPU_READS, GPU_READS = 512, 16384  # prompt tokens of a forward pass; a processor keeps small batches in its cache


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
    for batch in _batches(lm, prompts, limits, tokens_per_batch):
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


def _batches(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], limits: Sequence[int], tokens_per_batch: int | None
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


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts have in common, leaving each at least one of its own; 0 if it is not worth it."""
    first, last = min(map(list, prompts)), max(map(list, prompts))
    limit = min(map(len, prompts)) - 1
    same = next((index for index in range(limit) if first[index] != last[index]), limit)
    return same if len(prompts) > 1 and same >= SHARED_AT_LEAST else 0


def _complete(lm: LanguageModel, ids: Sequence[int], stop_strings: Sequence[str]) -> bool:
    """Whether one of the texts stands at the end of what was written; a token has at least a byte."""
    text = lm.template.tokenizer.decode(ids[-max(len(end.encode()) for end in stop_strings) - 1 :])
    return any(end in text for end in stop_strings)


def _argmax(scores: Float[Tensor, "batch vocab"], rows: Sequence[int]) -> Int[Tensor, " batch"]:
    return scores.argmax(dim=-1)


def _sampled(sampling: Sampling, prompts: Sequence[int]) -> Pick:
    """Draws by inverting the distribution function at a uniform number from the row's own generator."""
    generators = [np.random.default_rng(sampling.seeds[prompt]) for prompt in prompts]

    def pick(scores: Float[Tensor, "batch vocab"], rows: Sequence[int]) -> Int[Tensor, " batch"]:
        levels = [generators[row].random() for row in rows]
        below = (scores.double() / sampling.temperature).softmax(dim=-1).cumsum(dim=-1)  # batch vocab
        sought = torch.tensor(levels, dtype=below.dtype, device=below.device)[:, None] * below[:, -1:]
        return torch.searchsorted(below, sought, right=True).squeeze(-1).clamp(max=below.shape[-1] - 1)

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
    cache, mask, scores = _read(lm, prompts, steps)
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
        plain = caches.is_plain(cache)
        if len(going) < len(rows) and (plain or len(going) <= DROP_AT * len(rows)):
            kept = _compact(going)
            keep = torch.tensor(kept, device=lm.device)
            if plain:
                caches.keep_rows(cache, kept)
            else:
                cache.batch_select_indices(keep)
            chosen, mask = chosen[keep], mask[keep]
            rows = [rows[index] for index in kept]
        if len(prompts) == 1 and len(text := [*text, *new.values()]) == stretched:
            # as transformers does where LongRoPE changes its factors
            cache, mask, scores = _read(lm, [text], steps - step)
            continue
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        scores = _forward(lm, chosen[:, None], mask, cache)


def _compact(going: Sequence[int]) -> list[int]:
    """The same indices, the last ones in the gaps between the first ones, so that few rows move."""
    count = len(going)
    last = [index for index in going if index >= count]
    staying = set(going)
    return [index if index in staying else last.pop() for index in range(count)]


@torch.inference_mode()
def _read(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], steps: int
) -> tuple[DynamicCache, Int[Tensor, "batch time"], Float[Tensor, "batch vocab"]]:
    """The prompts' keys and values with room for `steps` tokens, their mask, and the scores for each row's first token."""
    longest = max(map(len, prompts))
    shared = shared_beginning(prompts)
    own = [prompt[shared:] for prompt in prompts]
    portions = list(_portions(own, CPU_READS if lm.device.type == "cpu" else GPU_READS))
    if not caches.is_plain(caches.roomy(lm.model.config, 0)):
        portions = [own]
    beginning = caches.roomy(lm.model.config, longest + steps if len(portions) == 1 else 0)
    if shared:
        ids = torch.tensor([list(prompts[0][:shared])], device=lm.device)
        _forward(lm, ids, torch.ones_like(ids), beginning)
    parts, masks, scores = [], [], []
    for some in portions:
        part = copy.deepcopy(beginning)
        if shared:
            part.batch_repeat_interleave(len(some))
        tokens, mask = _left_padded(some, lm.device)
        mask = torch.cat([mask.new_ones(len(some), shared), mask], dim=1)  # some shared+time
        scores.append(_forward(lm, tokens, mask, part))
        parts.append(part)
        masks.append(nn.functional.pad(mask[:, shared:], (longest - mask.shape[1], 0)))
    mask = torch.cat(masks)
    mask = torch.cat([mask.new_ones(len(mask), shared), mask], dim=1)
    return caches.stacked(parts, shared=shared, room=longest + steps), mask, torch.cat(scores)


def _portions(rows: Sequence[Sequence[int]], most: int) -> Iterator[Sequence[Sequence[int]]]:
    """Rows one after the other, as many at a time as have `most` tokens when padded; one at least."""
    start = 0
    while start < len(rows):
        end, longest = start + 1, len(rows[start])
        while end < len(rows) and (end + 1 - start) * max(longest, len(rows[end])) <= most:
            longest = max(longest, len(rows[end]))
            end += 1
        yield rows[start:end]
        start = end


@torch.inference_mode()
def _forward(
    lm: LanguageModel, tokens: Int[Tensor, "batch new"], mask: Int[Tensor, "batch time"], cache: DynamicCache
) -> Float[Tensor, "batch vocab"]:
    """Scores behind the last of the new tokens, whose keys and values go into the cache."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    output = lm.model(
        input_ids=tokens, attention_mask=mask, position_ids=positions, cache=cache, use_cache=True, logits_to_keep=1
    )
    scores: Tensor = output.logits[:, -1]
    return scores


def _left_padded(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Token ids and mask; a padding token's id does not matter, since the mask hides it."""
    longest = max(map(len, rows))
    tokens = [[0] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
