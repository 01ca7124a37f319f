"""Norms and gated MLPs that save their inputs for the backward pass and compute the rest again.

As transformers writes them, a norm saves its input in fp32 and its result besides, and a gated MLP saves four tensors of its
intermediate size. Here a norm saves what came in, and an MLP the outputs of its gate and up projections: a third less memory
for saved activations, and fewer passes over it. Outputs are the same to the last bit in the dtype that is trained in, gradients
but for rounding; a module whose outputs would differ stays as it is. LoRA layers are replaced first
(`luthier.model.adapters`), so that MLPs with adapters are covered too.
"""

import copy
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from luthier.model import adapters
from luthier.model.adapters import Adapter, LoraLinear


def replace_norms_and_mlps(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Replace, for good, the norms, gated MLPs and LoRA layers that ours equal; returns how many were replaced.

    Weights and their names stay. `dtype` is what the model will compute in, where that is not what it has now.
    """
    # which candidate the first module of its kind is equal to
    kinds: dict[tuple[type[nn.Module], float | None], int | None] = {}
    replaced = adapters.fuse_lora(model)
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            candidates = _candidates(module)
            if not candidates:
                continue
            kind = (type(module), getattr(candidates[0], "eps", None))
            if kind not in kinds:
                equal = (number for number, one in enumerate(candidates) if _equal(module, one, dtype))
                kinds[kind] = next(equal, None)
            if (number := kinds[kind]) is not None:
                setattr(parent, name, candidates[number])
                replaced += 1
    return replaced


class RmsNorm(nn.Module):
    """x / √(mean(x²) + ε) · weight, over the last dimension (Zhang and Sennrich 2019); the mean in fp32.

    Some families round before they multiply by the weight (Llama), others after it (OLMo, GPT-OSS).
    """

    def __init__(self, weight: nn.Parameter, eps: float, *, rounds_last: bool) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps
        self.rounds_last = rounds_last

    def forward(self, states: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        return cast(Tensor, _Norm.apply(states, self.weight, self.eps, self.rounds_last))  # type: ignore[no-untyped-call]


class GatedMlp(nn.Module):
    """down(silu(gate(x)) · up(x)) (Shazeer 2020, SwiGLU)."""

    def __init__(self, gate: nn.Module, up: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.gate_proj = gate
        self.up_proj = up
        self.down_proj = down

    def forward(self, states: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        gate, up, down = self.gate_proj(states), self.up_proj(states), self.down_proj
        if type(down) is nn.Linear and down.bias is None:
            return cast(Tensor, _GatedDown.apply(gate, up, down.weight))
        if isinstance(down, LoraLinear) and (adapter := down.adapter):
            return cast(Tensor, _GatedAdapted.apply(gate, up, *adapter))  # type: ignore[no-untyped-call]
        return cast(Tensor, down(_Gated.apply(gate, up)))  # type: ignore[no-untyped-call]


def _candidates(module: nn.Module) -> list[nn.Module]:
    """Our modules that may replace this one, in the order to try."""
    if isinstance(module, (RmsNorm, GatedMlp)):
        return []
    parts = dict(module.named_children())
    if {"gate_proj", "up_proj", "down_proj"} <= parts.keys() <= {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return [GatedMlp(parts["gate_proj"], parts["up_proj"], parts["down_proj"])]
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weights = dict(module.named_parameters())
    if type(module).__name__.endswith("RMSNorm") and not parts and weights.keys() == {"weight"} and eps is not None:
        weight = cast(nn.Parameter, module.weight)
        return [RmsNorm(weight, eps, rounds_last=last) for last in (False, True)]
    return []


@torch.no_grad()
def _equal(module: nn.Module, ours: nn.Module, dtype: torch.dtype | None) -> bool:
    """Whether our module gives the same numbers in this dtype."""
    first = next(ours.parameters())
    if dtype not in (None, first.dtype):
        module, ours = (copy.deepcopy(one).to(dtype) for one in (module, ours))
    states = torch.randn(2, 3, first.shape[-1], generator=torch.Generator().manual_seed(0))
    states = states.to(first.device, dtype or first.dtype)
    try:
        return torch.equal(module(states), ours(states))
    except (RuntimeError, TypeError):  # it takes other inputs
        return False


class _Norm(torch.autograd.Function):
    """With x̂ = x·r, r = 1/√(mean(x²) + ε) and g = dy·weight: dx = r·(g − x̂·mean(g·x̂)), dweight = Σ dy·x̂."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float, rounds_last: bool) -> Tensor:
        exact = states.float()
        root = torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(states, weight, root)
        if rounds_last:
            return (weight * (exact * root)).to(states.dtype)
        return weight * (exact * root).to(states.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        states, weight, root = ctx.saved_tensors
        need_states, need_weight = ctx.needs_input_grad[:2]
        normed, grad = states.float() * root, grads[0].float()
        grad_weight = (grad * normed).flatten(0, -2).sum(0).to(weight.dtype) if need_weight else None
        if not need_states:
            return None, grad_weight, None, None
        grad = grad * weight
        share = (grad * normed).mean(-1, keepdim=True)
        return grad.addcmul_(normed, share, value=-1).mul_(root).to(states.dtype), grad_weight, None, None


class _Gated(torch.autograd.Function):
    """silu(gate) · up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return _gated_backward(grads[0], gate, nn.functional.silu(gate), up)


class _GatedDown(torch.autograd.Function):
    """(silu(gate) · up) · weightᵀ; the matmul's input is computed again when its gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return nn.functional.linear(nn.functional.silu(gate).mul_(up), weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        gate, up, weight = ctx.saved_tensors
        (grad,) = grads
        active = nn.functional.silu(gate)
        grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_weight = grad.flatten(0, -2).T @ (active * up).flatten(0, -2)
        return *_gated_backward(grad @ weight, gate, active, up), grad_weight


class _GatedAdapted(torch.autograd.Function):
    """The same where the down projection is frozen and has an adapter."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, *adapter: Any) -> Tensor:
        active = nn.functional.silu(gate).mul_(up)
        output, low = adapters.lora_forward(active.flatten(0, -2), Adapter(*adapter))
        ctx.save_for_backward(gate, up, low, *adapter[:-1])
        ctx.scale = adapter[-1]
        return output.view(*gate.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, low, weight, bias, *halves = ctx.saved_tensors
        active = nn.functional.silu(gate)
        grad, *grad_halves = adapters.lora_backward(
            grads[0].flatten(0, -2), (active * up).flatten(0, -2), low,
            Adapter(weight, bias, halves[0], halves[1], ctx.scale), need_states=True,
        )  # fmt: skip
        assert grad is not None
        return *_gated_backward(grad.view(gate.shape), gate, active, up), None, None, *grad_halves, None


def _gated_backward(grad: Tensor, gate: Tensor, active: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up; `active` is silu(gate) and is overwritten."""
    slope: Tensor = torch.ops.aten.silu_backward(grad * up, gate)
    return slope, active.mul_(grad)
