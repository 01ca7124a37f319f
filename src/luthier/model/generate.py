"""Answers, many at once: sorted by length, batched under a token budget, left-padded, finished rows dropped.

Greedy, or sampled with a seed for each prompt. What all prompts begin with (a system message, the examples of a few-shot
prompt) is computed once and shared.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from luthier.model.loading import LanguageModel

DROP_AT = 0.75  # share of rows still going at which the others are dropped: dropping copies the cache
SHARED_AT_LEAST = 16  # tokens of common beginning that are worth a forward pass of their own


@dataclass(frozen=True)
class Reply:
    """Generated ids with the stop token, if one came; `seconds` is the batch's time divided by its rows."""

    ids: list[int]
    finish: str
    """`stop` at an end token, `length` at the token limit."""
    seconds: float


@dataclass(frozen=True)
class Sampling:
    """Draws each token from the model's distribution at this temperature instead of taking the likeliest.

    `seeds` has an entry for each prompt. A prompt's draws depend on its seed alone, not on the company it is answered in.
    """

    temperature: float
    seeds: Sequence[Sequence[int]]


Pick = Callable[[Tensor, Sequence[int]], Tensor]
"""(scores of the last position, the rows that they belong to) → each row's next token."""


def answer(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    tokens_per_batch: int = 24576,
    on_batch: Callable[[dict[int, Reply]], None] | None = None,
) -> list[Reply]:
    """A reply to each prompt, in their order; `on_batch` sees each batch's replies by index as soon as they are there."""
    replies: dict[int, Reply] = {}
    order = sorted(range(len(prompts)), key=lambda number: (len(prompts[number]), number))
    beginning = _beginning(lm, prompts) if prompts else None
    while order:
        batch: list[int] = []
        while order and (not batch or (len(batch) + 1) * (len(prompts[order[0]]) + max_new_tokens) <= tokens_per_batch):
            batch.append(order.pop(0))
        start = time.perf_counter()
        rows: list[list[int]] = [[] for _ in batch]
        pick = _sampled(sampling, batch) if sampling else _likeliest
        for tokens in _decode(lm, [prompts[number] for number in batch], max_new_tokens, beginning, pick):
            for row, token in tokens.items():
                rows[row].append(token)
        seconds = (time.perf_counter() - start) / len(batch)
        stops = lm.template.stop_ids
        done = {
            number: Reply(ids, "stop" if ids and ids[-1] in stops else "length", seconds)
            for number, ids in zip(batch, rows, strict=True)
        }
        replies.update(done)
        if on_batch:
            on_batch(done)
    return [replies[number] for number in range(len(prompts))]


def stream(lm: LanguageModel, prompt: Sequence[int], *, max_new_tokens: int) -> Iterator[int]:
    """The reply to one prompt, token by token; the same tokens as `answer` gives."""
    for tokens in _decode(lm, [prompt], max_new_tokens, None):
        yield tokens[0]


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts have in common, leaving each at least one of its own; 0 if it is not worth it."""
    first, last = min(map(list, prompts)), max(map(list, prompts))
    limit = min(map(len, prompts)) - 1
    same = next((place for place in range(limit) if first[place] != last[place]), limit)
    return same if len(prompts) > 1 and same >= SHARED_AT_LEAST else 0


def _likeliest(scores: Float[Tensor, "batch vocab"], rows: Sequence[int]) -> Int[Tensor, " batch"]:
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


@torch.inference_mode()
def _beginning(lm: LanguageModel, prompts: Sequence[Sequence[int]]) -> DynamicCache | None:
    """Keys and values of what all prompts begin with, for one row; None if that is not worth it."""
    shared = shared_beginning(prompts)
    if not shared:
        return None
    cache = _roomy_cache(lm.model.config, shared)
    lm.model(input_ids=torch.tensor([list(prompts[0][:shared])], device=lm.device), cache=cache, logits_to_keep=1)
    return cache


@torch.inference_mode()
def _decode(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    beginning: DynamicCache | None,
    pick: Pick = _likeliest,
) -> Iterator[dict[int, int]]:
    """Each step's new tokens by row; rows that have ended are soon no longer computed. All prompts have the `beginning`."""
    device, model = lm.device, lm.model
    stops = lm.template.stop_ids
    longest = max(map(len, prompts))
    steps = min(max_new_tokens, max(lm.context - longest, 0))
    cache = _roomy_cache(model.config, longest + steps, beginning)
    shared = cache.get_seq_length()
    if shared:
        cache.batch_repeat_interleave(len(prompts))
    tokens, mask = _left_padded([prompt[shared:] for prompt in prompts], device)
    mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)  # batch shared+time
    rows = list(range(len(prompts)))
    ended: set[int] = set()
    for _ in range(steps):
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen = pick(output.logits[:, -1], rows)  # batch
        new = {row: token for row, token in zip(rows, chosen.tolist(), strict=True) if row not in ended}
        yield new
        ended.update(row for row, token in new.items() if token in stops)
        going = [place for place, row in enumerate(rows) if row not in ended]
        if not going:
            return
        if len(going) <= DROP_AT * len(rows):
            keep = torch.tensor(going, device=device)
            cache.batch_select_indices(keep)
            chosen, mask = chosen[keep], mask[keep]
            rows = [rows[place] for place in going]
        tokens = chosen[:, None]  # batch 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)


class _RoomyLayer(DynamicLayer):
    """Keys and values of a layer with room for those to come: transformers' own layer copies all of them at every token."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (batch heads time width) behind the old ones; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._buffers = self._grown(self.keys, key_states, end), self._grown(self.values, value_states, end)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., length:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def _grown(self, old: Tensor | None, new: Tensor, end: int) -> Tensor:
        batch, heads, _, width = new.shape
        buffer = new.new_empty(batch, heads, max(self.room, end), width)
        if old is not None and old.numel():
            buffer[..., : old.shape[-2], :] = old
        return buffer

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._buffers = None

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._buffers = None


def _roomy_cache(config: PreTrainedConfig, room: int, beginning: DynamicCache | None = None) -> DynamicCache:
    """transformers' cache for this model, where plain layers get room for `room` tokens; others stay as they are.

    It is empty, or a copy of a `beginning`.
    """
    if beginning is not None:
        cache = copy.deepcopy(beginning)
        for layer in cache.layers:
            if isinstance(layer, _RoomyLayer):
                layer.room = room
        return cache
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _left_padded(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Token ids and mask; a padding token's id does not matter, since the mask hides it."""
    longest = max(map(len, rows))
    tokens = [[0] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
