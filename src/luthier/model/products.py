"""Linear layers in fp32 on a processor, by whichever of torch's two libraries computes them faster here.

torch gives them to MKL, which does not use all of the AVX-512 that other makers' processors than Intel's have. oneDNN takes a
half to a third of the time there for 32 rows. The rounding is another one, by as little as between two of MKL's own ways, and
a row's result hardly ever depends on how many rows are computed beside it.
"""

from functools import partial

import torch
from torch import Tensor, nn

from luthier.model import machine

SMALLEST = 1 << 16  # numbers of a weight: oneDNN makes a kernel for each shape, which smaller products would not earn


def install(model: nn.Module) -> None:
    """Let the model's linear layers compute by `linear` where nothing is trained; its modules and their names stay."""
    for module in model.modules():
        if type(module) is nn.Linear and "forward" not in vars(module) and _concerns(module.weight):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """states · weightᵀ + bias."""
    if torch.is_grad_enabled() or states.dtype != torch.float32 or not _concerns(weight):
        return nn.functional.linear(states, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return product


def _forward(module: nn.Linear, states: Tensor) -> Tensor:
    return linear(states, module.weight, module.bias)


def _concerns(weight: Tensor) -> bool:
    return (
        weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and weight.numel() >= SMALLEST
        and machine.onednn_is_faster()
    )
