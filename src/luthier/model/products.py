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
ROWS = 32  # that packed weights are laid out for; other numbers find them as good


class _Packed:
    """A copy of a weight in the order in which oneDNN reads it. Copies of the layer share it, since it cannot be copied."""

    def __init__(self, weight: Tensor) -> None:
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def __deepcopy__(self, memo: object) -> "_Packed":
        return self


def install(model: nn.Module) -> None:
    """Let the model's linear layers compute by `linear` where nothing is trained; its modules and their names stay."""
    for module in _layers(model):
        if "forward" not in vars(module):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


@torch.inference_mode(False)
def pack(model: nn.Module, most_bytes: int) -> bool:
    """The same with a copy of each weight in oneDNN's own order, if all of them need no more bytes; gives whether.

    A fifth faster at 32 rows, by a third at few, and the same numbers. The weights must not change any more.
    """
    layers = _layers(model)
    if sum(layer.weight.nbytes for layer in layers) > most_bytes:
        return False
    for layer in layers:
        if not any(isinstance(each, _Packed) for each in getattr(layer.forward, "args", ())):
            layer.forward = partial(_forward_packed, layer, _Packed(layer.weight))  # type: ignore[method-assign]
    return bool(layers)


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """states · weightᵀ + bias."""
    return _by_onednn(states, weight, bias) if _concerns(states, weight) else nn.functional.linear(states, weight, bias)


def _forward(layer: nn.Linear, states: Tensor) -> Tensor:
    return linear(states, layer.weight, layer.bias)


def _forward_packed(layer: nn.Linear, packed: _Packed, states: Tensor) -> Tensor:
    if _concerns(states, layer.weight):
        return _by_onednn(states, packed.weight, layer.bias)
    return nn.functional.linear(states, layer.weight, layer.bias)


def _by_onednn(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return product


def _layers(model: nn.Module) -> list[nn.Linear]:
    """Those that oneDNN is to compute."""
    return [each for each in model.modules() if type(each) is nn.Linear and _is_large(each.weight)]


def _concerns(states: Tensor, weight: Tensor) -> bool:
    return states.dtype == torch.float32 and not torch.is_grad_enabled() and _is_large(weight)


def _is_large(weight: Tensor) -> bool:
    """Whether oneDNN is to multiply by this weight."""
    return (
        weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and weight.numel() >= SMALLEST
        and machine.onednn_is_faster()
    )
