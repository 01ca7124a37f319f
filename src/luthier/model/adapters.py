"""LoRA beside frozen matrices as one function: W·x + s·B·(A·x), and a backward pass that computes no gradient for W.

As peft writes it, a layer is six functions, each of which reads and writes a whole activation. Here it adds in place, and
saves for the backward pass its input as it came and the few numbers of A·x. It stays peft's layer in all but the way it
computes, so that adapters are saved, continued, switched off and merged as before.
"""

import copy
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from peft.tuners import lora
from torch import Tensor, nn

RANDOM = 0.02  # spread of the adapter that both layers are compared with; a fresh one adds nothing
ROUNDING = 1e-5  # relative difference of two fp32 outputs that say the same


class Adapter(NamedTuple):
    """A frozen matrix and what is added to it: `up @ down`, times `scale`."""

    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"] | None
    down: Float[Tensor, "rank inputs"]
    """peft's `lora_A`."""
    up: Float[Tensor, "outputs rank"]
    """peft's `lora_B`."""
    scale: float


class LoraLinear(lora.Linear):
    """peft's linear layer with a LoRA adapter (Hu et al. 2021), which computes as one function while that adapter is on."""

    @classmethod
    def of(cls, layer: lora.Linear) -> "LoraLinear":
        """A layer of this kind with the weights, adapters and state of peft's; it takes that one's place in a model."""
        fused = cls.__new__(cls)
        fused.__dict__.update(layer.__dict__)
        return fused

    @property
    def adapter(self) -> Adapter | None:
        """The active adapter; None unless exactly one is active."""
        names = list(self.lora_A)
        if len(names) != 1 or self.active_adapters != names or self.merged or self.disable_adapters:
            return None
        parts = (self.base_layer, self.lora_A[names[0]], self.lora_B[names[0]])
        frozen, down, up = (cast(nn.Linear, part) for part in parts)
        return Adapter(frozen.weight, frozen.bias, down.weight, up.weight, float(self.scaling[names[0]]))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = self.adapter
        if adapter is None or args or kwargs:
            return super().forward(x, *args, **kwargs)
        return cast(Tensor, _Adapted.apply(x, *adapter))  # type: ignore[no-untyped-call]


def fuse_lora(model: nn.Module) -> int:
    """Replace peft's layers, for good, by `LoraLinear` where that gives the same numbers; returns how many were replaced.

    Weights and their names stay.
    """
    kinds: dict[tuple[bool, float], bool] = {}  # was the first of its kind equal?
    replaced = 0
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is not lora.Linear or not _is_plain(module):
                continue
            kind = (module.base_layer.bias is None, *module.scaling.values())
            if kind not in kinds:
                kinds[kind] = _equal(module)
            if kinds[kind]:
                setattr(parent, name, LoraLinear.of(module))
                replaced += 1
    return replaced


def _is_plain(module: lora.Linear) -> bool:
    """Whether this is one adapter on a frozen linear layer, and nothing else."""
    matrices = [*module.lora_A.values(), *module.lora_B.values(), *module.lora_dropout.values()]
    return (
        type(module.base_layer) is nn.Linear
        and not any(weight.requires_grad for weight in module.base_layer.parameters())
        and [type(matrix) for matrix in matrices] == [nn.Linear, nn.Linear, nn.Identity]
        and all(matrix.bias is None for matrix in matrices[:2])
        and not (module.lora_variant or module.merged or module.disable_adapters or module.fan_in_fan_out)
    )


@torch.no_grad()
def _equal(module: lora.Linear) -> bool:
    """Whether both layers agree up to rounding, tried on a copy with random adapter weights."""
    trial = copy.deepcopy(module).float()
    generator = torch.Generator().manual_seed(0)
    for matrix in (*trial.lora_A.parameters(), *trial.lora_B.parameters()):
        matrix.copy_(RANDOM * torch.randn(matrix.shape, generator=generator))
    weight = cast(nn.Linear, trial.base_layer).weight
    states = torch.randn(2, 3, weight.shape[1], generator=generator).to(weight.device)
    expected = trial(states)
    return bool((LoraLinear.of(trial)(states) - expected).abs().max() <= ROUNDING * expected.abs().max())


def lora_forward(states: Float[Tensor, "tokens inputs"], adapter: Adapter) -> tuple[Tensor, Tensor]:
    """Outputs of the layer, and s·A·x."""
    low_rank = states @ adapter.down.T  # tokens rank
    if adapter.scale != 1.0:
        low_rank *= adapter.scale
    return nn.functional.linear(states, adapter.weight, adapter.bias).addmm_(low_rank, adapter.up.T), low_rank


def lora_backward(
    grad: Float[Tensor, "tokens outputs"], states: Float[Tensor, "tokens inputs"], low_rank: Float[Tensor, "tokens rank"],
    adapter: Adapter, *, need_states: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, A and B. With g = s·Bᵀ·dy: dx = Wᵀ·dy + Aᵀ·g, dA = g·xᵀ and dB = dy·(s·A·x)ᵀ."""
    inner = grad @ adapter.up  # tokens rank
    if adapter.scale != 1.0:
        inner *= adapter.scale
    grad_states = (grad @ adapter.weight).addmm_(inner, adapter.down) if need_states else None
    return grad_states, inner.T @ states, grad.T @ low_rank


class _Adapted(torch.autograd.Function):
    """A frozen linear layer with its adapter."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        output, low_rank = lora_forward(states.flatten(0, -2), Adapter(weight, bias, down, up, scale))
        ctx.save_for_backward(states, weight, down, up, low_rank)
        ctx.scale = scale
        return output.view(*states.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, down, up, low_rank = ctx.saved_tensors
        grad_states, grad_down, grad_up = lora_backward(
            grads[0].flatten(0, -2), states.flatten(0, -2), low_rank, Adapter(weight, None, down, up, ctx.scale),
            need_states=ctx.needs_input_grad[0],
        )  # fmt: skip
        return (
            None if grad_states is None else grad_states.view(states.shape), None, None, grad_down, grad_up, None,
        )  # fmt: skip
