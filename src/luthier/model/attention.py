"""Attention over packed rows: each row looks back on itself only, and short rows in bf16 learn several times as fast.

torch's flash kernel computes scores tile by tile and again in the backward pass, which saves memory where rows are long. For
rows of up to a few hundred tokens in bf16 on a processor, matrix products over the whole square of scores are two to three
times as fast, although half of that square is masked. Heads that share keys and values stand below each other as rows of
one product.

It enters through transformers' own register of attention functions, and steps aside for whatever it does not cover: then
the mask that transformers made from the position ids keeps the rows apart.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from luthier.model.packed import Segments

NAME = "luthier"
LONGEST = 512  # tokens of a row up to which products are faster than the flash kernel
FOREIGN = ("softcap", "s_aux", "position_bias")  # arguments of attention that is not plain softmax

Rows = Float[Tensor, "batch heads time width"]


def use(model: PreTrainedModel | PeftModel) -> None:
    """Let a model attend by this module where it would use SDPA; a model that needs another attention keeps it."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    if inner.config._attn_implementation == "sdpa":
        inner.set_attn_implementation(NAME)


def attend(
    module: nn.Module,
    query: Float[Tensor, "batch heads time width"],
    key: Float[Tensor, "batch groups time width"],
    value: Float[Tensor, "batch groups time width"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    **named: Any,
) -> tuple[Float[Tensor, "batch time heads width"], None]:
    """Causal softmax attention, inside each segment of a packed batch (of 1), in the form that transformers asks for."""
    window = named.get("sliding_window")
    covered = (
        segments is not None
        and getattr(module, "is_causal", True)
        and named.get("is_causal") is not False
        and (window is None or window >= segments.longest)
        and all(named.get(argument) is None for argument in FOREIGN)
    )
    if segments is None or not covered:
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **named
        )
        return attended
    queries, keys, values = (_below_each_other(states, segments) for states in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and segments.longest <= LONGEST and not dropout:
        output = products(queries, keys, values, scale)
    else:
        output = scaled_dot_product_attention(
            queries, keys, values, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=True
        )
    return _end_to_end(output, segments), None


def products(
    query: Rows,
    key: Float[Tensor, "batch groups time width"],
    value: Float[Tensor, "batch groups time width"],
    scale: float,
) -> Rows:
    """Causal softmax attention by matrix products; several heads of `query` may share one of `key` and `value`."""
    batch, heads, time, width = query.shape
    groups = key.shape[1]
    output: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
        (query * scale).reshape(batch * groups, heads // groups * time, width),
        key.reshape(batch * groups, time, width),
        value.reshape(batch * groups, time, value.shape[3]),
    )
    return output.view(batch, heads, time, value.shape[3])


class _Attend(torch.autograd.Function):
    """softmax(query · keyᵀ + causal mask) · value; the backward pass needs the weights P only, not the scores.

    With O = P·V: dV = Pᵀ·dO and dS = P ∘ (dO·Vᵀ − rowsum(dO ∘ O)) (Dao et al. 2022, section 3.1).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows, stacked, _ = query.shape
        time = key.shape[1]
        scores = torch.bmm(query, key.transpose(1, 2)).view(rows, stacked // time, time, time)
        scores += _causal(time, scores.dtype, scores.device)
        weights = torch.softmax(scores, dim=-1).view(rows, stacked, time)
        output = torch.bmm(weights, value)
        ctx.save_for_backward(query, key, value, weights, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, weights, output = ctx.saved_tensors
        (grad_output,) = grads
        grad_value = torch.bmm(weights.transpose(1, 2), grad_output)
        grad_scores = torch.bmm(grad_output, value.transpose(1, 2))
        wide = torch.promote_types(output.dtype, torch.float32)
        own = (grad_output.to(wide) * output).sum(dim=-1, keepdim=True).to(output.dtype)
        grad_scores.sub_(own).mul_(weights)
        return torch.bmm(grad_scores, key), torch.bmm(grad_scores.transpose(1, 2), query), grad_value


@lru_cache(maxsize=64)
def _causal(time: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "time time"]:
    """What is added to the scores: 0 up to the diagonal, −∞ after it."""
    return torch.full((time, time), float("-inf"), dtype=dtype, device=device).triu(1)


def _below_each_other(states: Float[Tensor, "1 heads tokens width"], segments: Segments) -> Rows:
    """Packed states as rows of equal length, zeros behind the shorter ones: whoever looks back only never sees them."""
    tokens = states[0].transpose(0, 1)  # tokens heads width
    count, longest = len(segments.lengths), segments.longest
    if count * longest > len(tokens):
        tokens = _Spread.apply(tokens, segments.slots, count * longest)  # type: ignore[no-untyped-call]
    return tokens.view(count, longest, *tokens.shape[1:]).transpose(1, 2)


def _end_to_end(rows: Rows, segments: Segments) -> Float[Tensor, "1 tokens heads width"]:
    """The inverse: rows packed again, without what stands behind the shorter ones."""
    tokens = rows.transpose(1, 2).flatten(0, 1)  # batch*time heads width
    if len(tokens) > sum(segments.lengths):
        tokens = _Collect.apply(tokens, segments.slots)  # type: ignore[no-untyped-call]
    return tokens[None]


class _Spread(torch.autograd.Function):
    """Tokens to their slots among zeros. Each slot has one source, so the gradient is a plain selection."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, slots: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(slots)
        return tokens.new_zeros(size, *tokens.shape[1:]).index_copy_(0, slots, tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slots,) = ctx.saved_tensors
        return grads[0].index_select(0, slots), None, None


class _Collect(torch.autograd.Function):
    """Tokens from their slots; what stands in no slot gets no gradient."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.size = len(tokens)
        return tokens.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slots,), (grad,) = ctx.saved_tensors, grads
        return grad.new_zeros(ctx.size, *grad.shape[1:]).index_copy_(0, slots, grad), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
