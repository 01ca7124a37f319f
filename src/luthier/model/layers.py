"""How the layers of a model are computed while it trains: as they are, a second time in the backward pass, or compiled."""

import warnings

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from luthier.model.head import CausalModel


def use(model: CausalModel, *, again: bool, compiled: bool) -> None:
    """With `again`, keep a layer's input only and compute the rest once more in the backward pass (Chen et al. 2016).

    With `compiled`, let torch.compile fuse what it can in each layer; names of weights stay.
    """
    if again:
        _whole(model).activation_checkpointing_enable({"use_reentrant": False})
    if compiled:
        warnings.filterwarnings("ignore", message=".*functools.lru_cache")  # a mask is computed anew in each graph
    for layer in _layers(model) if compiled else ():
        layer.compile(dynamic=True)


def release(model: CausalModel) -> None:
    """The layers as they were."""
    _whole(model).activation_checkpointing_disable()
    for layer in _layers(model):
        layer._compiled_call_impl = None


def _whole(model: CausalModel) -> PreTrainedModel:
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    return inner


def _layers(model: CausalModel) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
