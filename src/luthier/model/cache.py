"""Keys and values of what a model has read, with room for what it will write."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values of a layer with room for those to come: transformers' own layer copies all of them at every token."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, length: int) -> "RoomyLayer":
        """A layer over buffers (batch heads room width) whose first `length` tokens are filled."""
        layer = cls(keys.shape[-2])
        layer.lazy_initialization(keys, values)
        layer._buffers = keys, values
        layer.keys, layer.values = keys[..., :length, :], values[..., :length, :]
        return layer

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

    def reset(self) -> None:
        super().reset()
        self._buffers = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._buffers = None

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._buffers = None

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, and their room: those that stay where they are cost nothing.

        A row that moves takes the place of one that is not kept.
        """
        if self._buffers is None:
            return
        assert all(row == new or row >= len(rows) for new, row in enumerate(rows)), "a row would be overwritten"
        length = self.get_seq_length()
        for buffer in self._buffers:
            for new, row in enumerate(rows):
                if row != new:
                    buffer[new, :, :length] = buffer[row, :, :length]
        keys, values = (buffer[: len(rows)] for buffer in self._buffers)
        self._buffers = keys, values
        self.keys, self.values = keys[..., :length, :], values[..., :length, :]


def roomy(config: PreTrainedConfig, room: int) -> DynamicCache:
    """transformers' cache for this model, where plain layers get room for `room` tokens; others stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Memory that the keys and values of a token take in all layers, at most."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * width * dtype.itemsize)


def is_plain(cache: DynamicCache) -> bool:
    """Whether every layer keeps the keys and values of all tokens, so that caches can be put together."""
    return all(type(layer) is RoomyLayer for layer in cache.layers)


@torch.inference_mode()
def keep_rows(cache: DynamicCache, rows: Sequence[int]) -> None:
    """Leave out all other rows of a plain cache; see `RoomyLayer.keep_rows`."""
    for layer in cache.layers:
        assert isinstance(layer, RoomyLayer)
        layer.keep_rows(rows)


def stacked(parts: Sequence[DynamicCache], *, shared: int, room: int) -> DynamicCache:
    """One plain cache of several, their rows below each other, with room for `room` tokens.

    All rows begin with the same `shared` tokens; what follows is moved to the right end of the longest part, as padding on the
    left would have it. What stands in between is zero, and must be hidden by a mask.
    """
    if len(parts) == 1:
        return parts[0]
    whole = DynamicCache()
    lengths = [part.get_seq_length() for part in parts]
    for layers in zip(*(part.layers for part in parts), strict=True):
        if not layers[0].is_initialized:  # a layer that uses another's keys and values
            whole.layers.append(layers[0])
            continue
        buffers = []
        for name in ("keys", "values"):
            states: list[Tensor] = [getattr(layer, name) for layer in layers]
            _, heads, _, width = states[0].shape
            buffer = states[0].new_zeros(sum(map(len, states)), heads, room, width)
            first = 0
            for state, length in zip(states, lengths, strict=True):
                rows = buffer[first : first + len(state)]
                rows[..., :shared, :] = state[..., :shared, :]
                rows[..., max(lengths) - (length - shared) : max(lengths), :] = state[..., shared:, :]
                first += len(state)
            buffers.append(buffer)
        for layer in layers:
            layer.reset()  # frees each part's memory as soon as it is copied
        whole.layers.append(RoomyLayer.of(buffers[0], buffers[1], max(lengths)))
    return whole
