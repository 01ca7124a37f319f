"""AdamW on fp32 master weights, whatever number format the model computes in; and the learning rate over time."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from luthier.recipe import Train

Schedule = Literal["cosine", "linear", "constant"]


def learning_rate(step: int, *, highest: float, steps: int, warmup: int, schedule: Schedule) -> float:
    """Rate of the update number `step` (from 1): linear warm-up to `highest`, then down to 0 at the end.

    The last update of a cosine or linear schedule still moves: 0 would be reached one step after it.
    """
    if step <= warmup:
        return highest * step / warmup
    done = (step - warmup - 1) / max(1, steps - warmup)
    if schedule == "cosine":
        return highest * 0.5 * (1 + math.cos(math.pi * done))
    return highest * (1 - done) if schedule == "linear" else highest


class MasterAdamW:
    """AdamW (Loshchilov and Hutter 2019) over the trainable parameters of a model.

    Gradients of micro-batches are added up in fp32. The update happens in fp32; the model's own weights are then the rounded
    masters. In fp32 a parameter is its own master.
    """

    def __init__(self, model: nn.Module, settings: Train) -> None:
        """Keeps fp32 masters of what can learn, then puts the weights into the number format of `settings.precision`.

        Adapters beside frozen weights are few: they stay in fp32 and are their own masters.
        """
        compute = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        adapters = any(not parameter.requires_grad for parameter in model.parameters())
        self.parameters: dict[str, nn.Parameter] = {}
        self.masters: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            learns = parameter.requires_grad
            if learns:
                self.parameters[name] = parameter
                own = compute == torch.float32 or adapters
                self.masters[name] = parameter if own else parameter.detach().clone()
                assert parameter.dtype == torch.float32, f"{name} is {parameter.dtype}; masters start from fp32 weights"
            if not (learns and adapters):
                parameter.data = parameter.data.to(compute)
        matrices = [weight for weight in self.masters.values() if weight.ndim >= 2]
        vectors = [weight for weight in self.masters.values() if weight.ndim < 2]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)

    @torch.no_grad()
    def gather(self) -> None:
        """Add the gradients that a backward pass left in the model to the step's gradients."""
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            if parameter is master or parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

    @torch.no_grad()
    def finish(self, learnt: int, largest: float) -> float:
        """Turn the step's summed gradients into their mean per learnt token, scaled down to a norm of at most `largest`.

        Returns the norm before that; it is not finite if any value is not.
        """
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients)) / learnt
        scale = min(1.0, largest / (norm + 1e-6)) / learnt if math.isfinite(norm) else math.nan
        torch._foreach_mul_(gradients, scale)
        return norm

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update at this learning rate; the gradients are gone afterwards."""
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.write_back()

    @torch.no_grad()
    def write_back(self) -> None:
        """Round the masters into the model's weights."""
        for name, parameter in self.parameters.items():
            if parameter is not self.masters[name]:
                parameter.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Everything that the next update depends on, as named tensors."""
        tensors: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            tensors[f"weight/{name}"] = master.detach()
            for key, value in self.adam.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, master in self.masters.items():
            master.copy_(tensors[f"weight/{name}"])
            kept = {key: tensors.get(f"{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if kept["step"] is not None:
                self.adam.state[master] = {key: value.clone() for key, value in kept.items() if value is not None}
        self.write_back()
