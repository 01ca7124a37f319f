"""Keys and values of what a model has read, with room for what it will write."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values of a layer with room for those to come: transformers' own layer copies all of them at every token.

    They are a window of larger buffers (rows heads columns width): all rows end in the same column, and the window moves on by
    a column with each token. What stands in a row before its first token is finite, and must be hidden by a mask.
    """

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room
        self._buffers: tuple[Tensor, Tensor] | None = None
        self._start = 0
        """The window's first column."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (batch heads time width) behind the old ones; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, _, time, _ = key_states.shape
        length = self.get_seq_length()
        if self._buffers is None or self._start + length + time > self._buffers[0].shape[2]:
            self._rebuild(key_states, value_states, rows=rows, columns=length + time, before=0)
        assert self._buffers is not None
        end = self._start + length
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, end : end + time] = states
        return self._show(rows, length + time)

    def _show(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Let the window have so many rows and columns; returns it."""
        assert self._buffers is not None
        keys, values = (buffer[:rows, :, self._start : self._start + length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values

    @property
    def _rows(self) -> int:
        return len(self.keys) if self.keys is not None and self.keys.numel() else 0

    def _rebuild(self, keys: Tensor, values: Tensor, *, rows: int, columns: int, before: int) -> None:
        """Larger buffers for what is there, like the new `keys` and `values`: `before` free columns on the left of it.

        A second and later time there is half as much room again, so that moving costs little for each token.
        """
        length = self.get_seq_length()
        if self._buffers is not None:
            columns = max(columns + columns // 2, before + length)
            rows = rows if rows <= len(self._buffers[0]) else max(rows, 2 * len(self._buffers[0]))
        buffers = []
        for old, new in ((self.keys, keys), (self.values, values)):
            buffer = new.new_zeros(rows, new.shape[1], max(self.room, columns), new.shape[3])
            if length and old is not None:
                buffer[: len(old), :, before : before + length] = old
            buffers.append(buffer)
        self._buffers, self._start = (buffers[0], buffers[1]), before
        if length:
            self._show(self._rows, length)

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
                    buffer[new, :, : self._start + length] = buffer[row, :, : self._start + length]
        self._show(len(rows), length)

    def leave_out(self, columns: int) -> None:
        """Take the first columns out of the window; no row may have a token there."""
        if self._buffers is not None:
            length = self.get_seq_length()
            self._start += columns
            self._show(self._rows, length - columns)

    def append(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Put rows (heads time width) below the others, so that all end in the same column."""
        if not self.is_initialized:
            self.lazy_initialization(keys[0], values[0])
        rows = self._rows
        length, longest = self.get_seq_length(), max(len(state[0]) for state in keys)
        total, more = rows + len(keys), max(0, longest - length)
        if self._buffers is None or total > len(self._buffers[0]) or more > self._start:
            self._rebuild(keys[0][None], values[0][None], rows=total, columns=length + more, before=more)
        assert self._buffers is not None
        end = self._start + length
        for buffer, states in zip(self._buffers, (keys, values), strict=True):
            for row, state in enumerate(states, start=rows):
                begin = end - len(state[0])
                buffer[row, :, :begin] = 0
                buffer[row, :, begin:end] = state
        self._start -= more
        self._show(total, length + more)


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
