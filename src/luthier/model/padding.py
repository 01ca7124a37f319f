"""From a packed batch to padded rows and back; gradients of tokens that several rows use are summed.

Sums are taken in fp32 and in one order, whatever the number of threads, so that a step gives the same bits whenever it is made.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from luthier.model.packed import Layout


def pad_rows(
    tokens: Float[Tensor, "tokens heads width"], layouts: Sequence[Layout], *, gradient_layouts: Sequence[Layout] | None
) -> Sequence[Tensor]:
    """The rows of each layout: rows time heads width.

    Gradients flow back through the slots of `gradient_layouts`, one per token; None: through all slots, and they are summed.
    """
    return cast(Sequence[Tensor], _Pad.apply(tokens, layouts, gradient_layouts))  # type: ignore[no-untyped-call]


def pack_rows(padded: Sequence[Tensor], layouts: Sequence[Layout], count: int) -> Float[Tensor, "tokens heads width"]:
    """The inverse: each of `count` tokens from its one slot."""
    return cast(Tensor, _Pack.apply(layouts, count, *padded))  # type: ignore[no-untyped-call]


def index_select_summed(
    tokens: Float[Tensor, "tokens width"], indices: Int[Tensor, " taken"]
) -> Float[Tensor, "taken width"]:
    """Some tokens, any of them as often as asked for."""
    return cast(Tensor, _Take.apply(tokens, indices))  # type: ignore[no-untyped-call]


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, layouts: Sequence[Layout], gradient_layouts: Sequence[Layout] | None
    ) -> tuple[Tensor, ...]:
        ctx.layouts, ctx.gradient_layouts, ctx.count = layouts, gradient_layouts, len(tokens)
        return _padded(tokens, layouts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        if ctx.gradient_layouts is not None:
            return _packed(grads, ctx.gradient_layouts, ctx.count), None, None
        taken = zip(grads, ctx.layouts, strict=True)
        return _summed(((_used_slots(grad, one), one.indices) for grad, one in taken), ctx.count), None, None


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layouts: Sequence[Layout], count: int, *padded: Tensor) -> Tensor:
        ctx.layouts = layouts
        return _packed(padded, layouts, count)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_padded(grads[0], ctx.layouts)


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.count = len(tokens)
        return tokens.index_select(0, indices)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors
        return _summed([(grads[0], indices)], ctx.count), None


def _padded(tokens: Float[Tensor, "tokens heads width"], layouts: Sequence[Layout]) -> tuple[Tensor, ...]:
    padded = []
    for layout in layouts:
        rows = tokens.index_select(0, layout.indices)
        if layout.slots is not None:
            rows = rows.new_zeros(layout.rows * layout.time, *rows.shape[1:]).index_copy_(0, layout.slots, rows)
        padded.append(rows.view(layout.rows, layout.time, *rows.shape[1:]))
    return tuple(padded)


def _packed(padded: Sequence[Tensor], layouts: Sequence[Layout], count: int) -> Float[Tensor, "tokens heads width"]:
    tokens = padded[0].new_empty(count, *padded[0].shape[2:])
    for rows, layout in zip(padded, layouts, strict=True):
        tokens.index_copy_(0, layout.indices, _used_slots(rows, layout))
    return tokens


def _used_slots(padded: Float[Tensor, "rows time heads width"], layout: Layout) -> Float[Tensor, "tokens heads width"]:
    """The slots of a layout that hold a token."""
    rows = padded.flatten(0, 1)
    return rows if layout.slots is None else rows.index_select(0, layout.slots)


def _summed(parts: Iterable[tuple[Tensor, Int[Tensor, " taken"]]], count: int) -> Tensor:
    """For each of `count` tokens the sum of the values that stand beside its index."""
    total: Tensor | None = None
    for values, indices in parts:
        if total is None:
            accumulation_dtype = torch.promote_types(values.dtype, torch.float32)
            total = torch.zeros(count, *values.shape[1:], dtype=accumulation_dtype, device=values.device)
            dtype = values.dtype
        if values.device.type == "cpu":
            total.index_add_(0, indices, values.to(total.dtype))
        else:  # sorts the indices first, while index_add_ would add in any order there
            total.index_put_((indices,), values.to(total.dtype), accumulate=True)
    assert total is not None
    return total.to(dtype)
