"""A model from nothing: a shape for a number of weights, its configuration, and random weights that a seed decides."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from luthier.errors import UserError

Family = Literal["llama", "gpt-neox"]
HEAD = 32
"""Numbers of an attention head; twice as many from `LARGE_WIDTH` on."""
LARGE_WIDTH = 512
RESIDUAL = ("o_proj", "down_proj", "attention.dense", "dense_4h_to_h")
"""Matrices whose results are added to what passes from layer to layer."""


@dataclass(frozen=True)
class Shape:
    """What a model's size follows from. The table of tokens is its head as well."""

    family: Family
    width: int
    layers: int
    vocabulary: int
    context: int

    @property
    def inner(self) -> int:
        """The width inside of an MLP: a Llama has three such matrices instead of two, each two thirds as large."""
        return 4 * self.width if self.family == "gpt-neox" else max(32, round(8 * self.width / 3 / 32) * 32)

    @property
    def heads(self) -> int:
        return max(1, self.width // (2 * HEAD if self.width >= LARGE_WIDTH else HEAD))

    @property
    def layer_parameters(self) -> int:
        """Weights of a layer."""
        if self.family == "gpt-neox":
            return 12 * self.width**2 + 13 * self.width
        return 4 * self.width**2 + 3 * self.width * self.inner + 2 * self.width

    @property
    def parameters(self) -> int:
        """All weights."""
        last_norm = (2 if self.family == "gpt-neox" else 1) * self.width
        return self.vocabulary * self.width + self.layers * self.layer_parameters + last_norm


def shape_for(
    parameters: int, *, vocabulary: int, context: int, family: Family, width: int | None = None, layers: int | None = None
) -> Shape:  # fmt: skip
    """The shape with about so many weights, about as wide for its depth as is usual; a given width or depth stays.

    Loss depends on the ratio of width to depth only a little over a wide range (Kaplan et al. 2020, figure 5).
    """
    usual = 32 * (parameters / 1e6) ** 0.15  # 32 at a million weights, 64 at a hundred million
    found = [
        shape
        for shape in _shapes(parameters, vocabulary, context, family, width, layers)
        if (width and layers) or abs(shape.parameters - parameters) <= max(0.1 * parameters, shape.layer_parameters / 2)
    ]
    if not found:
        smallest = Shape(family, width or HEAD, layers or 1, vocabulary, context)
        raise UserError(
            f"{parameters:,} weights cannot hold a vocabulary of {vocabulary:,} and a layer: the smallest model has "
            f"{smallest.parameters:,}. Set it higher, or pretrain.vocab lower.",
            where="pretrain.parameters",
        )

    def distance(shape: Shape) -> float:
        ratio = abs(math.log(shape.width / shape.layers / usual))
        return ratio + 4 * abs(math.log(shape.parameters / parameters))

    return min(found, key=distance)


def _shapes(
    parameters: int, vocabulary: int, context: int, family: Family, width: int | None, layers: int | None
) -> Iterator[Shape]:
    """For each width that heads divide, the depths beside the number of weights."""
    for each in [width] if width else [*range(HEAD, LARGE_WIDTH, HEAD), *range(LARGE_WIDTH, 16_384, 2 * HEAD)]:
        one = Shape(family, each, 1, vocabulary, context)
        depth = (parameters - one.parameters) / one.layer_parameters + 1
        for number in [layers] if layers else {math.floor(depth), math.ceil(depth)}:
            if number >= 1:
                yield Shape(family, each, number, vocabulary, context)


def config_of(shape: Shape, *, end: int | None = None, pad: int | None = None) -> PreTrainedConfig:
    """The shape as transformers knows it, with the tokens that end a text and that fill up.

    Weights begin the smaller the wider the model is (Nguyen and Salazar 2019).
    """
    if shape.width % shape.heads or (shape.width // shape.heads) % 2:
        raise UserError(f"{shape.width} is no multiple of {2 * HEAD}. Expected one.", where="pretrain.width")
    own: dict[str, Any] = {"use_parallel_residual": True}
    if shape.family == "llama":
        own = {"num_key_value_heads": shape.heads, "rms_norm_eps": 1e-5}
    return AutoConfig.for_model(
        {"llama": "llama", "gpt-neox": "gpt_neox"}[shape.family],
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, max_position_embeddings=shape.context,
        initializer_range=math.sqrt(2 / (5 * shape.width)), tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=end, pad_token_id=pad, **own,
    )  # fmt: skip


def build(config: PreTrainedConfig, seed: int, device: torch.device | None = None) -> PreTrainedModel:
    """The model with random weights: the same ones for the same seed. What is added up over layers begins smaller (GPT-2)."""
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and any(part in name for part in RESIDUAL):
                weight /= math.sqrt(2 * config.num_hidden_layers)
    assert isinstance(model, PreTrainedModel)
    nn.Module.to(model, device)
    return model
