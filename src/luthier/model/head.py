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

CausalModel = PreTrainedModel | PeftModel
CHUNK = 512  # positions whose scores are held at once: 512 × 49,152 × 4 bytes = 96 MiB


class _HeadLoss(torch.autograd.Function):
    """Summed cross entropy of `hidden @ weight.T` against targets; saves gradients, not scores."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, scale: float
    ) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if need_weight else None
        for start in range(0, len(hidden), CHUNK):
            part, wanted = hidden[start : start + CHUNK], targets[start : start + CHUNK]
            scores = (part @ weight.T).float()  # positions vocab
            if scale != 1.0:
                scores *= scale
            if softcap:
                scores = softcap * torch.tanh(scores / softcap)
            normalizer = torch.logsumexp(scores, dim=-1, keepdim=True)
            total += (normalizer.squeeze(-1) - scores.gather(-1, wanted[:, None]).squeeze(-1)).sum()
            if not (need_hidden or need_weight):
                continue
            slope = (1 - (scores / softcap) ** 2) if softcap else None
            grad = scores.sub_(normalizer).exp_()
            grad[torch.arange(len(part), device=grad.device), wanted] -= 1.0
            if slope is not None:
                grad *= slope
            if scale != 1.0:
                grad *= scale
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[start : start + CHUNK] = grad @ weight
            if grad_weight is not None:
                grad_weight += grad.T @ part
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype))
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


def summed_loss(model: CausalModel, tokens: Int[Tensor, "batch time"], learn: Tensor) -> Float[Tensor, ""]:
    """Sum of −log p(token | tokens before it), in nats and fp32, over the positions that `learn` (batch time) marks.

    Rows are padded on the right. Attention looks back only, so padding can change nothing that is learnt and needs no mask.
    """
    wanted = learn[:, 1:]
    head = model.get_output_embeddings()
    if not is_plain(head):  # an adapter sits on the head, or it has a bias: let the model compute its own scores
        scores = model(input_ids=tokens, use_cache=False).logits[:, :-1][wanted].float()  # learnt vocab
        return nn.functional.cross_entropy(scores, tokens[:, 1:][wanted], reduction="sum")
    hidden = _decoder(model)(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][wanted]  # learnt width
    config = model.config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    loss: Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, tokens[:, 1:][wanted], softcap, scale
    )
    return loss


def is_plain(head: nn.Module | None) -> bool:
    """Whether the head is one matrix product and nothing else."""
    return type(head) is nn.Linear and head.bias is None


def _decoder(model: CausalModel) -> nn.Module:
    """The model without its head; adapters inside it stay."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    decoder = inner.get_decoder()
    assert isinstance(decoder, nn.Module)
    return decoder
