"""Attention over packed rows: each row looks back on itself only, and training on short rows in bf16 is several times as fast.

A prefix that rows share stands in the batch once. Its keys and values are gathered for each of these rows, and the gradients
of what was gathered are summed; queries are those of own tokens.

torch's flash kernel computes scores tile by tile and again in the backward pass, and does that slowly in bf16 on a processor.
Matrix products over larger parts of a row, each with the keys up to its end, are up to three times as fast with rows of a
hundred tokens, and still faster with two thousand. They save as little for backward: scores are recomputed there, too. Heads
that share keys and values are stacked as rows of one product.

It enters through transformers' own registers of attention and mask functions, and steps aside for whatever it does not
cover: then the mask that transformers made from the position ids keeps the rows apart. Where none is needed none is made: for
8,192 tokens it would take 67 MB.
"""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, cast

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from luthier.model import padding
from luthier.model.packed import Segments

NAME = "luthier"
LONGEST = 2048  # tokens of a row up to which products are clearly faster than the flash kernel
BLOCKS = 64, 128  # queries of a row at a time: an eighth of it, between these
FOREIGN = ("softcap", "s_aux", "position_bias")  # arguments of attention that is not plain softmax

HeadStates = Float[Tensor, "batch heads time width"]


class PrefixSharingUnsupported(RuntimeError):
    """Rows of a batch share a prefix, and a model attends in a way for which they must stand in it whole."""


def install_attention(model: PreTrainedModel | PeftModel) -> None:
    """Let a model attend by this module where it would use SDPA; a model that needs another attention keeps it."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    if inner.config._attn_implementation == "sdpa":
        inner.set_attn_implementation(NAME)


def attend(
    module: nn.Module,
    query: Float[Tensor, "batch heads time width"],
    key: Float[Tensor, "batch groups keys width"],
    value: Float[Tensor, "batch groups keys width"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch time heads width"], None]:
    """Causal softmax attention, inside each segment of a packed batch (of 1), in the form that transformers asks for."""
    window = kwargs.get("sliding_window")
    covered = (
        segments is not None
        and attention_mask is None
        and getattr(module, "is_causal", True)
        and kwargs.get("is_causal") is not False
        and (window is None or window >= segments.longest)
        and all(kwargs.get(argument) is None for argument in FOREIGN)
    )
    if segments is None or not covered:
        if segments is not None and segments.shares:
            raise PrefixSharingUnsupported(type(module).__name__)
        if segments is not None and attention_mask is None:  # it was left out, see `_mask`
            attention_mask = segments.mask
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return attended
    return _attend_in_buckets(
        query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling, dropout, segments
    ), None


@torch.compiler.disable  # type: ignore[untyped-decorator]  # each batch has other buckets, for which all would be compiled anew
def _attend_in_buckets(
    query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float, segments: Segments
) -> Float[Tensor, "1 tokens heads width"]:
    """Attention of packed states, computed for rows of like length at a time."""
    packed = [part[0].transpose(0, 1) for part in (query, key, value)]  # tokens heads width
    if segments.even:
        rows, time = len(segments.lengths), segments.lengths[0]
        query, key, value = (part.view(rows, time, *part.shape[1:]).transpose(1, 2) for part in packed)
        return _attend_padded(query, key, value, scale, dropout).transpose(1, 2).flatten(0, 1)[None]
    own = [bucket.own for bucket in segments.buckets]
    keys = [bucket.keys for bucket in segments.buckets]
    queries = padding.pad_rows(packed[0], [bucket.queries for bucket in segments.buckets], gradient_layouts=own)
    others = (padding.pad_rows(part, keys, gradient_layouts=None if segments.shares else keys) for part in packed[1:])
    attended = []
    for parts in zip(queries, *others, strict=True):
        query_rows, key_rows, value_rows = (rows.transpose(1, 2) for rows in parts)
        attended.append(_attend_padded(query_rows, key_rows, value_rows, scale, dropout).transpose(1, 2))
    return padding.pack_rows(attended, own, segments.tokens)[None]


def _attend_padded(query: HeadStates, key: Tensor, value: Tensor, scale: float, dropout: float) -> HeadStates:
    """Causal attention over rows of one length, in the way that is fastest for them; the queries are those of the last keys."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and key.shape[2] <= LONGEST and not dropout:
        return attend_by_products(query, key, value, scale)
    same = query.shape[2] == key.shape[2]
    mask = None if same else causal_lower_right(query.shape[2], key.shape[2])
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=same, scale=scale, enable_gqa=True
    )


def attend_by_products(
    query: HeadStates,
    key: Float[Tensor, "batch groups keys width"],
    value: Float[Tensor, "batch groups keys width"],
    scale: float,
) -> HeadStates:
    """Causal softmax attention by matrix products; several heads of `query` may share one of `key` and `value`.

    Where there are fewer queries than keys, they are those of the last ones.
    """
    return cast(Tensor, _Attend.apply(query, key, value, scale))  # type: ignore[no-untyped-call]


class _Attend(torch.autograd.Function):
    """softmax(scale · query · keyᵀ + causal mask) · value, for some queries at a time and the keys that they see.

    Nothing but the inputs is kept: the backward pass computes the weights P again. With O = P·V: dV = Pᵀ·dO and
    dS = P ∘ (dP − rowsum(dP ∘ P)), where dP = dO·Vᵀ (Dao et al. 2022, section 3.1).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.scale = scale
        keys, values = _stack_groups(key, key.shape[1]), _stack_groups(value, key.shape[1])
        output = query.new_empty(_shape_bthd(query, value.shape[3])).transpose(1, 2)
        for part, seen in _query_blocks(query.shape[2], key.shape[2]):
            weights, _ = _weights(query, keys, part, scale)
            output[:, :, part] = torch.bmm(weights, values[:, :seen]).view(output[:, :, part].shape)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (query, key, value), (grad_output,) = ctx.saved_tensors, grads
        keys, values = _stack_groups(key, key.shape[1]), _stack_groups(value, key.shape[1])
        grad_query = query.new_empty(_shape_bthd(query, query.shape[3])).transpose(1, 2)
        grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
        for part, seen in _query_blocks(query.shape[2], key.shape[2]):
            weights, queries = _weights(query, keys, part, ctx.scale)
            grad = _stack_groups(grad_output[:, :, part], key.shape[1])
            grad_values[:, :seen].baddbmm_(weights.transpose(1, 2), grad)
            grad_weights = torch.bmm(grad, values[:, :seen].transpose(1, 2))
            scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype).mul_(ctx.scale)
            grad_query[:, :, part] = torch.bmm(scores, keys[:, :seen]).view(grad_query[:, :, part].shape)
            grad_keys[:, :seen].baddbmm_(scores.transpose(1, 2), queries)
        return grad_query, grad_keys.view(key.shape), grad_values.view(value.shape), None


def _query_blocks(time: int, keys: int) -> list[tuple[slice, int]]:
    """The last `time` places of a row in parts of about equal length, each with how many keys its queries see.

    Keys after a part's end are not seen by it, and left out.
    """
    least, most = BLOCKS
    count = max(1, round(time / min(max(least, keys / 8), most)))
    size = math.ceil(time / count)
    ends = [(start, min(start + size, time)) for start in range(0, time, size)]
    return [(slice(start, end), keys - time + end) for start, end in ends]


def _weights(query: Tensor, keys: Tensor, part: slice, scale: float) -> tuple[Tensor, Tensor]:
    """How much each query of a part takes of each key up to its end; and these queries, stacked."""
    batch, heads, time, _ = query.shape
    together = heads * batch // len(keys)
    queries = _stack_groups(query[:, :, part], len(keys) // batch)
    size, seen = part.stop - part.start, keys.shape[1] - time + part.stop
    scores = torch.baddbmm(queries.new_empty(()), queries, keys[:, :seen].transpose(1, 2), beta=0, alpha=scale)
    # the keys before the part are seen by all of its queries
    scores.view(len(keys), together, size, seen)[..., seen - size :] += _causal_mask(size, scores.dtype, scores.device)
    return torch.softmax(scores, dim=-1), queries


def _stack_groups(rows: HeadStates, groups: int) -> Float[Tensor, "stacks queries width"]:
    """Heads that share keys and values below each other."""
    batch, heads, time, width = rows.shape
    return rows.reshape(batch * groups, heads // groups * time, width)


@lru_cache(maxsize=64)
def _causal_mask(time: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "time time"]:
    """What is added to the scores: 0 up to the diagonal, −∞ after it."""
    return torch.full((time, time), float("-inf"), dtype=dtype, device=device).triu(1)


def _shape_bthd(rows: HeadStates, width: int) -> tuple[int, int, int, int]:
    """The shape of a tensor with each token's heads side by side."""
    batch, heads, time, _ = rows.shape
    return batch, time, heads, width


@contextlib.contextmanager
def packed_segments(segments: Segments) -> Iterator[None]:
    """Inside, a model with this attention makes no mask for a batch of these rows, where attention needs none."""
    token = _segments.set(segments)
    try:
        yield
    finally:
        _segments.reset(token)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """transformers' mask, or None for rows that are told apart without: every token sees all of its row before it.

    A window or a chunk that is shorter than a row, and what a model adds to the mask, need one.
    """
    segments, local = _segments.get(), kwargs.get("local_size")
    if (
        segments is not None
        and (kwargs["batch_size"], kwargs["q_length"], kwargs["kv_length"]) == (1, segments.tokens, segments.tokens)
        and (local is None or local >= segments.longest)
        and not kwargs.get("use_vmap")
        and kwargs.get("attention_mask") is None
    ):
        return None
    if segments is not None and segments.shares:
        raise PrefixSharingUnsupported("a mask")
    return sdpa_mask(*args, **kwargs)


_segments: ContextVar[Segments | None] = ContextVar("segments", default=None)
AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)
