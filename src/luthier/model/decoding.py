"""Rows that are read and written together, a token for each at every step; rows join and leave between steps.

All rows end in the same column, padded on the left. A cache of plain layers takes in rows that were read apart, and lets rows
go without copying the others; what other caches hold (a window, a state) stays together as it was read.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from luthier.model import cache as caches
from luthier.model import products
from luthier.model.cache import RoomyLayer
from luthier.model.loading import LanguageModel

DROP_AT = (
    0.75  # share of rows still going at which the others are dropped, where that copies the cache: not of plain layers
)
SHARED_AT_LEAST = 16  # tokens of common beginning that are worth a forward pass of their own
CPU_READS, GPU_READS = 512, 16384  # prompt tokens of a forward pass; a processor keeps small batches in its cache


class Batch:
    """Rows with the keys and values of what each has read so far, and room for `room` tokens in all."""

    def __init__(self, lm: LanguageModel, room: int = 0) -> None:
        products.install(lm.model)
        self.lm = lm
        self.cache = caches.roomy(lm.model.config, room)
        self.mask: Int[Tensor, "rows time"] = torch.ones(0, 0, dtype=torch.long, device=lm.device)
        """1 where a row has a token, 0 where it is padded."""

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def columns(self) -> int:
        """Tokens of the longest row."""
        return self.mask.shape[1]

    @property
    def is_plain(self) -> bool:
        """Whether other batches can join this one."""
        return caches.is_plain(self.cache)

    @property
    def _layers(self) -> list[RoomyLayer]:
        """The layers of a plain cache."""
        assert self.is_plain
        return [layer for layer in self.cache.layers if isinstance(layer, RoomyLayer)]

    @torch.inference_mode()
    def read(self, rows: Sequence[Sequence[int]], *, shared: bool = False) -> Float[Tensor, "rows vocab"]:
        """Scores behind these tokens, which each row reads on; `shared`: in a batch of one row, all rows begin with it."""
        if shared and len(rows) > 1:
            self.repeat(len(rows))
        tokens, mask = left_padded(rows, self.lm.device)
        return self.feed(tokens, mask)

    @torch.inference_mode()
    def feed(
        self, tokens: Int[Tensor, "rows new"], mask: Int[Tensor, "rows new"] | None = None
    ) -> Float[Tensor, "rows vocab"]:
        """Scores behind the last of these tokens, some of which may be padding."""
        mask = torch.ones_like(tokens) if mask is None else mask
        self.mask = torch.cat([self.mask, mask], dim=1) if len(self.mask) else mask
        return forward(self.lm, tokens, self.mask, self.cache)

    @torch.inference_mode()
    def feed_scored(self, tokens: Int[Tensor, " new"]) -> Float[Tensor, "new vocab"]:
        """Scores behind each of these tokens, in a batch of one row."""
        more = torch.ones_like(tokens)[None]
        self.mask = torch.cat([self.mask, more], dim=1) if len(self.mask) else more
        return forward_all(self.lm, tokens[None], self.mask, self.cache)[0]

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Scores behind each row's next token."""
        return self.feed(tokens[:, None])

    @torch.inference_mode()
    def repeat(self, times: int) -> None:
        """Let each row stand there so many times."""
        self.cache.batch_repeat_interleave(times)
        self.mask = self.mask.repeat_interleave(times, dim=0)

    def copied(self) -> "Batch":
        """The same rows once more."""
        twin = copy.copy(self)
        twin.cache = copy.deepcopy(self.cache)
        return twin

    @torch.inference_mode()
    def thin(self, going: Sequence[int]) -> list[int]:
        """Computes rows that are over no more, where that is worth it; gives the rows that stay, in their new order."""
        plain = self.is_plain
        if len(going) == len(self) or (not plain and len(going) > DROP_AT * len(self)):
            return list(range(len(self)))
        kept = compact(going)
        keep = torch.tensor(kept, dtype=torch.long, device=self.lm.device)
        self.mask = self.mask[keep]
        if not plain:
            self.cache.batch_select_indices(keep)
            return kept
        padding = int(self.mask.any(dim=0).int().argmax()) if kept else 0
        self.mask = self.mask[:, padding:]
        for layer in self._layers:
            layer.keep_rows(kept)
            layer.leave_out(padding)
        return kept

    @torch.inference_mode()
    def join(self, parts: Sequence["Batch"]) -> None:
        """Take the rows of other plain batches in, below the own ones; those batches are used up."""
        masks = [mask for part in parts for mask in part.mask.bool()]
        lengths = [int(mask.sum()) for mask in masks]
        for layer, *others in zip(self._layers, *(part._layers for part in parts), strict=True):
            if not others[0].is_initialized:  # a layer that uses another's keys and values
                continue
            states = [
                [
                    _squeezed(row, mask, length)
                    for row, mask, length in zip(
                        (row for other in others for row in getattr(other, name)), masks, lengths, strict=True
                    )
                ]
                for name in ("keys", "values")
            ]
            layer.append(*states)
            for other in others:
                other.reset()  # frees each part's memory as soon as it is copied
        longest = max(self.columns, *lengths)
        mask = self.mask.new_zeros(len(self) + len(lengths), longest)
        mask[: len(self), longest - self.columns :] = self.mask
        for row, length in enumerate(lengths, start=len(self)):
            mask[row, longest - length :] = 1
        self.mask = mask

    @torch.inference_mode()
    def beginning(self, row: int, length: int) -> "Batch":
        """A copy of the first tokens of a row, of a plain batch."""
        mask = self.mask[row].bool()
        first, whole = Batch(self.lm), int(mask.sum())
        for own, other in zip(first._layers, self._layers, strict=True):
            if other.keys is not None and other.values is not None:
                keys, values = (
                    _squeezed(states[row], mask, whole)[:, :length] for states in (other.keys, other.values)
                )
                own.append([keys], [values])
        first.mask = self.mask.new_ones(1, length)
        return first


def _squeezed(
    states: Float[Tensor, "heads time width"], mask: Tensor, length: int
) -> Float[Tensor, "heads length width"]:
    """Keys or values of a row's tokens, without the padding before or between them."""
    return states[:, -length:] if bool(mask[-length:].all()) else states[:, mask]


@torch.inference_mode()
def read(lm: LanguageModel, prompts: Sequence[Sequence[int]], steps: int) -> tuple[Batch, Float[Tensor, "batch vocab"]]:
    """A batch of prompts with room for `steps` tokens behind each, and the scores for each row's first token."""
    longest = max(map(len, prompts))
    shared = shared_beginning(prompts)
    own = [prompt[shared:] for prompt in prompts]
    whole = Batch(lm, longest + steps)
    portions = list(portions_of(own, CPU_READS if lm.device.type == "cpu" else GPU_READS)) if whole.is_plain else [own]
    beginning = whole if len(portions) == 1 else Batch(lm)
    if shared:
        beginning.read([prompts[0][:shared]])
    if len(portions) == 1:
        return beginning, beginning.read(own, shared=bool(shared))
    parts, scores = [], []
    for some in portions:
        parts.append(beginning.copied())
        scores.append(parts[-1].read(some, shared=bool(shared)))
    whole.join(parts)
    return whole, torch.cat(scores)


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts have in common, leaving each at least one of its own; 0 if it is not worth it."""
    first, last = min(map(list, prompts)), max(map(list, prompts))
    limit = min(map(len, prompts)) - 1
    same = next((index for index in range(limit) if first[index] != last[index]), limit)
    return same if len(prompts) > 1 and same >= SHARED_AT_LEAST else 0


def portions_of(rows: Sequence[Sequence[int]], most: int) -> Iterator[Sequence[Sequence[int]]]:
    """Rows one after the other, as many at a time as have `most` tokens when padded; one at least."""
    start = 0
    while start < len(rows):
        end, longest = start + 1, len(rows[start])
        while end < len(rows) and (end + 1 - start) * max(longest, len(rows[end])) <= most:
            longest = max(longest, len(rows[end]))
            end += 1
        yield rows[start:end]
        start = end


def compact(going: Sequence[int]) -> list[int]:
    """The same indices, the last ones in the gaps between the first ones, so that few rows move."""
    count = len(going)
    last = [index for index in going if index >= count]
    staying = set(going)
    return [index if index in staying else last.pop() for index in range(count)]


@torch.inference_mode()
def forward(
    lm: LanguageModel, tokens: Int[Tensor, "batch new"], mask: Int[Tensor, "batch time"], cache: DynamicCache
) -> Float[Tensor, "batch vocab"]:
    """Scores behind the last of the new tokens, whose keys and values go into the cache."""
    return forward_all(lm, tokens, mask, cache, logits_to_keep=1)[:, -1]


@torch.inference_mode()
def forward_all(
    lm: LanguageModel,
    tokens: Int[Tensor, "batch new"],
    mask: Int[Tensor, "batch time"],
    cache: DynamicCache,
    **how: int,
) -> Float[Tensor, "batch kept vocab"]:
    """Scores behind all of the new tokens, or with `logits_to_keep` behind so many of the last."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    output = lm.model(input_ids=tokens, attention_mask=mask, position_ids=positions, cache=cache, use_cache=True, **how)
    scores: Tensor = output.logits
    return scores


def left_padded(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Token ids and mask; a padding token's id does not matter, since the mask hides it."""
    longest = max(map(len, rows))
    tokens = [[0] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
