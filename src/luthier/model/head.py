"""Next-token loss with the output head only where the loss is taken.

Scores for the whole vocabulary exist for a block of positions at a time, and become its gradient in the forward pass, in place:
cross entropy's gradient with respect to the scores is softmax minus one-hot.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from luthier.model import allocator, attention, padding, probes
from luthier.model.causal import CausalModel, inputs, keeps_logits, logit_transform, states
from luthier.model.packed import Packed

CHUNK = 128  # positions whose scores exist at once where nothing is trained on them
BLOCK_BYTES = 128 << 20  # of scores that the loss is taken on at once, in the weights' number format
PIECE_BYTES = 8 << 20  # of fp32 scores: as much as stays in a processor's cache from the softmax to the gradient


class _HeadLoss(torch.autograd.Function):
    """Summed cross entropy of `hidden @ weight.T` against targets, and the hits; saves gradients, not scores."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hits = torch.zeros((), dtype=torch.int64, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight and not len(hidden) else None
        size = positions_at_once(len(weight) * weight.element_size())
        buffer = allocator.buffer(min(size, len(hidden)), len(weight), weight.dtype, weight.device)
        for start in range(0, len(hidden), size):
            block, wanted = hidden[start : start + size], targets[start : start + size]
            scores = torch.mm(block, weight.T, out=buffer[: len(block)])
            total += _losses(scores, wanted, softcap, scale, with_gradient=True, hits=hits).sum()
            if grad_hidden is not None:
                torch.mm(scores, weight, out=grad_hidden[start : start + size])
            if need_weight:
                grad_weight = _accumulated(grad_weight, scores, block)
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype))
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        outer, _ = grads  # 1, unless the sum was multiplied by something; the saved gradients are used up
        grad_hidden, grad_weight = (None if grad is None else grad.mul_(outer) for grad in ctx.saved_tensors)
        return grad_hidden, grad_weight, None, None, None


def _accumulated(
    total: Float[Tensor, "vocab width"] | None,
    scores: Float[Tensor, "block vocab"],
    states: Float[Tensor, "block width"],
) -> Float[Tensor, "vocab width"]:
    """A block's share of the head's gradient, and what the blocks before it gave; in fp32, where there are several."""
    if total is None:
        return scores.T @ states
    if scores.dtype == torch.float32:
        return total.addmm_(scores.T, states)
    return total.float().add_(scores.T @ states)


def positions_at_once(row: int) -> int:
    """How many positions the loss is taken on at once, where the scores of each are so many bytes."""
    return max(CHUNK, BLOCK_BYTES // row // CHUNK * CHUNK)


def _losses(
    scores: Float[Tensor, "loss_tokens vocab"],
    targets: Int[Tensor, " positions"],
    softcap: float | None,
    scale: float,
    *,
    with_gradient: bool,
    hits: Int[Tensor, ""] | None = None,
) -> Float[Tensor, " positions"]:
    """The loss of each position in fp32; where something is trained, `scores` become its gradient with respect to them.

    To `hits` is added at how many positions no token is likelier than the target.
    """
    each = torch.empty(len(scores), dtype=torch.float32, device=scores.device)
    rows = max(1, PIECE_BYTES // (scores.shape[1] * each.element_size()))
    for start in range(0, len(scores), rows):
        part = slice(start, start + rows)
        piece, wanted = scores[part], targets[part, None]
        logits = piece.float()
        if scale != 1.0:
            logits = logits * scale
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        slope = torch.softmax(logits, dim=-1)
        # −log p(target) = highest − target's score + log Σ exp(score − highest), and that sum is 1 ÷ the highest p
        highest, summed = logits.amax(-1, keepdim=True), slope.amax(-1, keepdim=True).reciprocal_()
        below = highest - logits.gather(-1, wanted)
        if hits is not None:
            hits += (below == 0).sum()
        each[part] = (below + summed.log_())[:, 0]
        if not with_gradient:
            continue
        slope.scatter_add_(-1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
        if softcap:
            slope *= 1 - (logits / softcap) ** 2
        if scale != 1.0:
            slope *= scale
        piece.copy_(slope)
    return each


def _losses_only(
    hidden: Float[Tensor, "positions width"],
    weight: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " positions"],
    softcap: float | None,
    scale: float,
    hits: Int[Tensor, ""] | None = None,
) -> Float[Tensor, " positions"]:
    """The loss of each position, from scores that exist for a few positions at a time."""
    parts = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat(
        [_losses(part @ weight.T, wanted, softcap, scale, with_gradient=False, hits=hits) for part, wanted in parts]
    )


class _EachLoss(torch.autograd.Function):
    """Cross entropy of each position of `hidden @ weight.T`; the scores are computed a second time in the backward pass.

    What a position's gradient is multiplied by is known only then, so it cannot be summed up beforehand as in `_HeadLoss`.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, scale: float
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.softcap, ctx.scale = softcap, scale
        return _losses_only(hidden, weight, targets, softcap, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (hidden, weight, targets), (outer,) = ctx.saved_tensors, grads
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if need_weight else None
        size = positions_at_once(len(weight) * weight.element_size())
        buffer = allocator.buffer(min(size, len(hidden)), len(weight), weight.dtype, weight.device)
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            scores = torch.mm(hidden[part], weight.T, out=buffer[: len(hidden[part])])
            _losses(scores, targets[part], ctx.softcap, ctx.scale, with_gradient=True)
            scores *= outer[part, None]
            if grad_hidden is not None:
                torch.mm(scores, weight, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight += scores.T @ hidden[part]
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def summed_loss(model: CausalModel, batch: Packed) -> Float[Tensor, ""]:
    """Sum of −log p(token | tokens of its row before it), in nats and fp32, over the loss tokens of the batch."""
    return loss_and_hits(model, batch)[0]


def loss_and_hits(model: CausalModel, batch: Packed) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """The summed loss, and how many of the loss tokens are those that the model finds likeliest in their places."""
    head = model.get_output_embeddings()
    wanted = batch.targets
    if not probes.has_plain_head(model):
        found = scores(model, batch)
        hits = (found.detach().argmax(-1) == wanted).sum()
        return nn.functional.cross_entropy(found, wanted, reduction="sum"), hits
    hidden = _hidden(model, batch)
    if not torch.is_grad_enabled():
        hits = torch.zeros((), dtype=torch.int64, device=hidden.device)
        return _losses_only(hidden, head.weight, wanted, *logit_transform(model), hits).sum(), hits
    loss: Tensor
    loss, hits = _HeadLoss.apply(hidden, head.weight, wanted, *logit_transform(model))  # type: ignore[no-untyped-call]
    return loss, hits


def row_likelihoods(model: CausalModel, batch: Packed) -> Float[Tensor, " rows"]:
    """log p of each row's loss tokens, given the tokens of the row before them: sums in nats and fp32."""
    head = model.get_output_embeddings()
    wanted = batch.targets
    if probes.has_plain_head(model):
        each: Tensor = _EachLoss.apply(_hidden(model, batch), head.weight, wanted, *logit_transform(model))  # type: ignore[no-untyped-call]
    else:
        each = nn.functional.cross_entropy(scores(model, batch), wanted, reduction="none")
    return torch.stack([-part.sum() for part in each.split(batch.loss_tokens_by_row)])


def scores(model: CausalModel, batch: Packed) -> Float[Tensor, "loss_tokens vocab"]:
    """The model's own scores in fp32, where its head has an adapter or a bias, or bends scores its own way."""
    named = inputs(model, batch)
    positions, which = batch.predicted_from.unique(return_inverse=True)  # rows that share a token may go on otherwise
    if keeps_logits(model):
        named["logits_to_keep"] = positions
    with attention.packed_segments(batch.segments):
        logits: Tensor = model(**named).logits[0]
    kept = logits if len(logits) == len(positions) else logits[positions]
    return (padding.index_select_summed(kept, which) if batch.segments.shares else kept).float()


def _hidden(model: CausalModel, batch: Packed) -> Float[Tensor, "loss_tokens width"]:
    """What the head sees, only before loss tokens."""
    return padding.index_select_summed(states(model, batch), batch.predicted_from)


def loss_of(model: CausalModel) -> "CausalLoss":
    """The model and its loss as one module, the same one each time."""
    found = getattr(model, "loss_module", None)
    if found is None:
        found = CausalLoss(model)
        object.__setattr__(model, "loss_module", found)  # beside its modules: it holds the model
    assert isinstance(found, CausalLoss)
    return found


class CausalLoss(nn.Module):
    """A model and its loss as one module, whose `forward` is the one call of a training step.

    What is put around a module to reach its forward pass (hooks, DistributedDataParallel, FSDP) sees the decoder and the head.
    """

    def __init__(self, model: CausalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Packed, *, by_row: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """The batch's summed loss and hits; or with `by_row` log p of each row's loss tokens."""
        return row_likelihoods(self.model, batch) if by_row else loss_and_hits(self.model, batch)
