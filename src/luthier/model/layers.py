"""How the layers of a model compute while it trains: as they are, with activation checkpointing, or compiled."""

import warnings

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from luthier.model.causal import CausalModel, base_model


def enable_checkpointing(model: CausalModel) -> None:
    """Activation checkpointing: save a layer's input only, and compute the rest again when going back (Chen et al. 2016)."""
    base_model(model).activation_checkpointing_enable({"use_reentrant": False})


def compile_layers(model: CausalModel) -> None:
    """Let torch.compile fuse what it can in each layer; names of weights stay."""
    warnings.filterwarnings("ignore", message=".*functools.lru_cache")  # a mask is computed anew in each graph
    for layer in blocks(model):
        layer.compile(dynamic=True)


def restore(model: CausalModel) -> None:
    """Layers without checkpointing and not compiled, as they were."""
    base_model(model).activation_checkpointing_disable()
    for layer in blocks(model):
        layer._compiled_call_impl = None


def blocks(model: CausalModel) -> list[nn.Module]:
    """The layers that are alike, each of which attends and computes once."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
