"""Next-token loss with the output head only where something is learnt.

Scores for the whole vocabulary exist for a few hundred positions at a time, and each chunk's gradient is formed in the forward
pass while its scores are at hand: cross entropy's gradient with respect to the scores is softmax minus one-hot.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.model import attention
from luthier.model.packed import Packed

CausalModel = PreTrainedModel | PeftModel
CHUNK = 128  # positions whose fp32 scores are held at once: 128 × 49,152 × 4 bytes = 24 MiB
BLOCK_BYTES = 128 << 20  # of gradients of scores that are held at once, in the weights' number format


class _HeadLoss(torch.autograd.Function):
    """Summed cross entropy of `hidden @ weight.T` against targets; saves gradients, not scores."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, scale: float
    ) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight: Tensor | None = None
        size = max(CHUNK, BLOCK_BYTES // (len(weight) * weight.element_size()) // CHUNK * CHUNK)
        for start in range(0, len(hidden), size):
            block, wanted = hidden[start : start + size], targets[start : start + size]
            grad = hidden.new_empty(len(block), len(weight)) if need_hidden or need_weight else None
            total += _block_loss(block, weight, wanted, softcap, scale, grad)
            if grad is not None and grad_hidden is not None:
                grad_hidden[start : start + size] = grad @ weight
            if grad is not None and need_weight:
                part = grad.T @ block
                grad_weight = part if grad_weight is None else grad_weight.float().add_(part)
        if need_weight:
            grad_weight = torch.zeros_like(weight) if grad_weight is None else grad_weight.to(weight.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        (outer,) = grads
        return (
            None if grad_hidden is None else grad_hidden * outer.to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * outer.to(grad_weight.dtype),
            None,
            None,
            None,
        )


def _block_loss(
    block: Float[Tensor, "positions width"],
    weight: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " positions"],
    softcap: float | None,
    scale: float,
    grad: Float[Tensor, "positions vocab"] | None,
    each: Float[Tensor, " positions"] | None = None,
) -> Float[Tensor, ""]:
    """Summed loss of a block; fills `grad` with its gradient with respect to the products `block @ weight.T`.

    `each` is filled with the loss of each position.

    The scores of a few positions at a time pass through fp32 while they are still in the processor's cache.
    """
    total = torch.zeros((), dtype=torch.float32, device=block.device)
    for start in range(0, len(block), CHUNK):
        wanted = targets[start : start + CHUNK, None]
        scores = (block[start : start + CHUNK] @ weight.T).float()  # positions vocab
        if scale != 1.0:
            scores *= scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        slope = torch.softmax(scores, dim=-1)
        # −log p(target) = highest − target's score + log Σ exp(score − highest), and that sum is 1 ÷ the highest p
        highest, summed = scores.amax(-1, keepdim=True), slope.amax(-1, keepdim=True).reciprocal_()
        losses = (highest - scores.gather(-1, wanted) + summed.log_())[:, 0]
        total += losses.sum()
        if each is not None:
            each[start : start + CHUNK] = losses
        if grad is None:
            continue
        slope.scatter_add_(-1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
        if softcap:
            slope *= 1 - (scores / softcap) ** 2
        if scale != 1.0:
            slope *= scale
        grad[start : start + CHUNK] = slope
    return total


class _EachLoss(torch.autograd.Function):
    """Cross entropy of each position of `hidden @ weight.T`; the scores are computed a second time in the backward pass.

    What a position's gradient is multiplied by is known only then, so it cannot be summed up beforehand as in `_HeadLoss`.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, scale: float
    ) -> Tensor:
        each = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        _block_loss(hidden, weight, targets, softcap, scale, None, each)
        ctx.save_for_backward(hidden, weight, targets)
        ctx.softcap, ctx.scale = softcap, scale
        return each

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (hidden, weight, targets), (outer,) = ctx.saved_tensors, grads
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if need_weight else None
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            grad = hidden.new_empty(len(hidden[part]), len(weight))
            _block_loss(hidden[part], weight, targets[part], ctx.softcap, ctx.scale, grad)
            grad *= outer[part, None]
            if grad_hidden is not None:
                grad_hidden[part] = grad @ weight
            if grad_weight is not None:
                grad_weight += grad.T @ hidden[part]
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def summed_loss(model: CausalModel, batch: Packed) -> Float[Tensor, ""]:
    """Sum of −log p(token | tokens of its row before it), in nats and fp32, over the learnt tokens of the batch."""
    head = model.get_output_embeddings()
    wanted = batch.tokens[batch.targets]
    if not is_plain(head):
        return nn.functional.cross_entropy(_scores(model, batch), wanted, reduction="sum")
    loss: Tensor = _HeadLoss.apply(_states(model, batch), head.weight, wanted, *bend(model))  # type: ignore[no-untyped-call]
    return loss


def row_likelihoods(model: CausalModel, batch: Packed) -> Float[Tensor, " rows"]:
    """log p of each row's learnt tokens, given the tokens of the row before them: sums in nats and fp32."""
    head = model.get_output_embeddings()
    wanted = batch.tokens[batch.targets]
    if is_plain(head):
        each: Tensor = _EachLoss.apply(_states(model, batch), head.weight, wanted, *bend(model))  # type: ignore[no-untyped-call]
    else:
        each = nn.functional.cross_entropy(_scores(model, batch), wanted, reduction="none")
    return torch.stack([-part.sum() for part in each.split(batch.learnt_by_row)])


def _scores(model: CausalModel, batch: Packed) -> Float[Tensor, "learnt vocab"]:
    """The model's own scores in fp32, where an adapter sits on its head, or the head has a bias."""
    return model(**inputs(model, batch)).logits[0, batch.targets - 1].float()  # type: ignore[no-any-return]


def _states(model: CausalModel, batch: Packed) -> Float[Tensor, "learnt width"]:
    """What the head sees, only where a token is learnt."""
    return decoder(model)(**inputs(model, batch)).last_hidden_state[0, batch.targets - 1]  # type: ignore[no-any-return]


def inputs(model: CausalModel, batch: Packed) -> dict[str, Any]:
    named: dict[str, Any] = {
        "input_ids": batch.tokens[None],
        "position_ids": batch.segments.positions,
        "use_cache": False,
    }
    if model.config._attn_implementation == attention.NAME:
        named["segments"] = batch.segments
    return named


def is_plain(head: nn.Module | None) -> bool:
    """Whether the head is one matrix product and nothing else."""
    return type(head) is nn.Linear and head.bias is None


def bend(model: CausalModel) -> tuple[float | None, float]:
    """What some families do to the head's products: a soft cap on them (Gemma), and a factor before it (Cohere, Granite)."""
    config = model.config.get_text_config()
    factor = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    return getattr(config, "final_logit_softcapping", None), factor


def decoder(model: CausalModel) -> nn.Module:
    """The model without its head; adapters inside it stay."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    headless = inner.get_decoder()
    assert isinstance(headless, nn.Module)
    return headless
