"""Weights that learn: fp32 for the optimizer, rounded for the model, and 4 bytes for both where the model computes in bf16.

There the model's weight is the master rounded to the nearest bf16 number, which is the upper half of fp32's bits. Only the 16
bits that rounding took away are kept beside it, so the master is there to the last bit and in memory only while it is updated.
"""

from types import EllipsisType
from typing import cast

import torch
from jaxtyping import BFloat16, Float, Float32, Int16
from torch import Tensor, nn

PIECE = 1 << 19  # numbers taken apart or put together at once: they stay in the processor's cache
HALF = 1 << 15  # of the last bit that bf16 has
EVERY = ...
Rows = slice | EllipsisType


class Space:
    """Memory for fp32 numbers that exist while a few weights are updated, the same for the next few.

    Taken anew each time it would come from the system again and again, page by page.
    """

    def __init__(self, numbers: int, device: torch.device | None = None) -> None:
        self._memory = torch.empty(numbers, dtype=torch.float32, device=device)
        self._taken = 0

    def like(self, tensor: Float[Tensor, "..."]) -> Float32[Tensor, "..."]:
        """A tensor of this one's shape with any numbers; it lies elsewhere if what is left does not hold it."""
        start, end = self._taken, self._taken + tensor.numel()
        if end > len(self._memory):
            return torch.empty_like(tensor, dtype=torch.float32)
        self._taken = end
        return self._memory[start:end].view(tensor.shape)

    def clear(self) -> None:
        """All of it may be taken again."""
        self._taken = 0


class Master:
    """A parameter, and the fp32 tensor that an optimizer updates in its stead.

    It can be written into a checkpoint as a tensor can: its numbers are put together when they are asked for.
    """

    dtype = torch.float32

    def __init__(self, parameter: nn.Parameter, compute: torch.dtype) -> None:
        """The parameter, so far in fp32, is put into the number format that the model computes in."""
        assert parameter.dtype == torch.float32, f"a weight that learns is {parameter.dtype}; masters start from fp32"
        self.parameter = parameter
        self.rest: Tensor | None = None
        """The bits that the parameter lacks."""
        self.whole: Tensor = parameter
        """What the optimizer updates: the parameter itself, or a tensor that has numbers between `join` and `part` only."""
        if compute == torch.bfloat16:
            self.whole = parameter.detach().contiguous()
            self.rest = torch.empty_like(self.whole, dtype=torch.int16)
            parameter.data = torch.empty_like(self.whole, dtype=compute)
            self.part()
        else:
            assert compute == torch.float32, f"no masters beside {compute}"

    def join(self, space: Space, rows: Rows = EVERY) -> None:
        """Let the optimizer's tensor have its numbers, or those of some rows."""
        if self.rest is not None:
            self.whole.data = join(self.parameter.data[rows], self.rest[rows], space)

    def part(self, rows: Rows = EVERY) -> None:
        """Round them into the parameter, and keep what that lacks."""
        if self.rest is not None:
            part(self.whole.data, self.parameter.data[rows], self.rest[rows])
            self.whole.data = self.whole.data.new_zeros(()).expand(self.shape)  # the shape, and no memory

    @property
    def shape(self) -> torch.Size:
        return self.parameter.shape

    def numel(self) -> int:
        return self.parameter.numel()

    def element_size(self) -> int:
        return self.dtype.itemsize

    def detach(self) -> Float32[Tensor, "..."]:
        """The master's numbers: in fp32 the parameter's own, else a tensor of their own."""
        return self.parameter.detach() if self.rest is None else join(self.parameter.data, self.rest, Space(0))

    def set(self, value: Float32[Tensor, "..."]) -> None:
        """Take other numbers."""
        if self.rest is None:
            self.parameter.detach().copy_(value)
        else:
            part(value.to(self.rest.device), self.parameter.data, self.rest)


def part(whole: Float32[Tensor, "..."], rounded: BFloat16[Tensor, "..."], rest: Int16[Tensor, "..."]) -> None:
    """Fill `rounded` with the nearest bf16 numbers (of two as near, the farther from 0), and `rest` with what they lack."""
    for bits, high, low in zip(*(_pieces(tensor) for tensor in (whole, rounded, rest)), strict=True):
        low.copy_(bits)  # the lower 16 bits, as a number from −32,768
        high.copy_(torch.add(bits, HALF).bitwise_right_shift_(16))


def join(rounded: BFloat16[Tensor, "..."], rest: Int16[Tensor, "..."], space: Space) -> Float32[Tensor, "..."]:
    """The fp32 numbers that `part` was given."""
    whole = space.like(rounded)
    for bits, high, low in zip(*(_pieces(tensor) for tensor in (whole, rounded, rest)), strict=True):
        bits.copy_(high)
        bits.bitwise_left_shift_(16).add_(low)
    return whole


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """Its bits as integers, in pieces that share its memory."""
    integers = torch.int32 if tensor.dtype == torch.float32 else torch.int16
    return cast(tuple[Tensor, ...], tensor.view(-1).view(integers).split(PIECE))
