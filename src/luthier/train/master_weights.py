"""fp32 master weights for the optimizer, rounded ones for the model, and 4 bytes for both where the model computes in bf16.

There the model's weight is the master rounded to the nearest bf16 number, which is the upper half of fp32's bits. Only the 16
bits that rounding took away are kept beside it, so the master is known to the last bit and takes 4 bytes more only while it is
updated.
"""

import hashlib
from collections.abc import Iterable
from types import EllipsisType
from typing import cast

import torch
from jaxtyping import BFloat16, Float, Float32, Int16
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

PIECE = 1 << 19  # numbers split or merged at once: they stay in the processor's cache
HALF = 1 << 15  # of the last bit that bf16 has
ALL_ROWS = ...
RowRange = slice | EllipsisType


class Workspace:
    """Memory for fp32 numbers that exist while a few weights are updated, used again for the next few.

    Allocated anew each time it would come from the system again and again, page by page.
    """

    def __init__(self, numbers: int, device: torch.device | None = None) -> None:
        self._memory = torch.empty(numbers, dtype=torch.float32, device=device)
        self._used = 0

    def empty_like(self, tensor: Float[Tensor, "..."]) -> Float32[Tensor, "..."]:
        """A tensor of this one's shape with any numbers in it; it lies elsewhere if what is left does not hold it."""
        start, end = self._used, self._used + tensor.numel()
        if end > len(self._memory):
            return torch.empty_like(tensor, dtype=torch.float32)
        self._used = end
        return self._memory[start:end].view(tensor.shape)

    def clear(self) -> None:
        """All of it may be used again."""
        self._used = 0


class Master:
    """A parameter of the model, and the fp32 tensor that an optimizer updates in its stead; of a shard, the part here."""

    def __init__(self, parameter: nn.Parameter, dtype: torch.dtype) -> None:
        """The parameter, so far in fp32, is rounded to the dtype that the model computes in."""
        assert parameter.dtype == torch.float32, f"a trainable weight is {parameter.dtype}; masters start from fp32"
        self.parameter = parameter
        self.low_bits: Tensor | None = None
        """The bits that the parameter lacks; None where the parameter is fp32 and its own master."""
        self.full: Tensor = parameter.to_local().detach() if isinstance(parameter, DTensor) else parameter
        """What the optimizer updates: the parameter itself, or its part that is in this process, or a tensor that has numbers
        between `merge` and `split` only."""
        if dtype == torch.bfloat16 and not isinstance(parameter, DTensor):
            self.full = parameter.detach().contiguous()
            self.low_bits = torch.empty_like(self.full, dtype=torch.int16)
            parameter.data = torch.empty_like(self.full, dtype=dtype)
            self.split()
        else:
            assert dtype == torch.float32 or isinstance(parameter, DTensor), f"no masters beside {dtype}"

    def merge(self, workspace: Workspace, rows: RowRange = ALL_ROWS) -> None:
        """Fill the optimizer's tensor with the master's numbers, or with those of some rows."""
        if self.low_bits is not None:
            self.full.data = merge(self.parameter.data[rows], self.low_bits[rows], workspace)

    def split(self, rows: RowRange = ALL_ROWS) -> None:
        """Round the optimizer's tensor into the parameter, and keep the bits that it lacks."""
        if self.low_bits is not None:
            split(self.full.data, self.parameter.data[rows], self.low_bits[rows])
            self.full.data = self.full.data.new_zeros(()).expand(self.parameter.shape)  # the shape, and no memory

    def tensor(self) -> Float32[Tensor, "..."]:
        """The master's numbers: in fp32 the parameter's own memory, else a new tensor."""
        if self.low_bits is None:
            return self.full.detach()
        return merge(self.parameter.data, self.low_bits, Workspace(0))

    def load(self, value: Float32[Tensor, "..."]) -> None:
        """Take these numbers."""
        if self.low_bits is None:
            self.full.detach().copy_(value)
        else:
            split(value.to(self.low_bits.device), self.parameter.data, self.low_bits)


def fingerprint(masters: Iterable[Master]) -> str:
    """What differs where a bit of the weights does: SHA-256 of the sums over their bits."""
    parts = (master.tensor().contiguous().flatten() for master in masters)
    sums = [int(part.view(torch.int32).sum(dtype=torch.int64)) for part in parts]
    return hashlib.sha256(repr(sums).encode()).hexdigest()


def split(full: Float32[Tensor, "..."], rounded: BFloat16[Tensor, "..."], low_bits: Int16[Tensor, "..."]) -> None:
    """Fill `rounded` with the nearest bf16 numbers (of two as near, the farther from 0), and `low_bits` with what they lack."""
    for bits, high, low in zip(*(_pieces(tensor) for tensor in (full, rounded, low_bits)), strict=True):
        low.copy_(bits)  # the lower 16 bits, as a number from −32,768
        high.copy_(torch.add(bits, HALF).bitwise_right_shift_(16))


def merge(
    rounded: BFloat16[Tensor, "..."], low_bits: Int16[Tensor, "..."], workspace: Workspace
) -> Float32[Tensor, "..."]:
    """The fp32 numbers that `split` was called with."""
    full = workspace.empty_like(rounded)
    for bits, high, low in zip(*(_pieces(tensor) for tensor in (full, rounded, low_bits)), strict=True):
        bits.copy_(high)
        bits.bitwise_left_shift_(16).add_(low)
    return full


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """Its bits as integers, in pieces that share its memory."""
    integers = torch.int32 if tensor.dtype == torch.float32 else torch.int16
    return cast(tuple[Tensor, ...], tensor.view(-1).view(integers).split(PIECE))
