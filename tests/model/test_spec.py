"""Sizes that follow from a configuration alone."""

import gc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig, PretrainedConfig

from luthier.errors import UserError
from luthier.model import attention, loading, recomputation, reference
from luthier.model.head import states
from luthier.model.packed import Packed, pack
from luthier.model.reference import ModelReference
from luthier.model.spec import ModelSpec
from token_rows import Row


def packed(lengths: Sequence[int]) -> Packed:
    rows = [Row(np.arange(length), np.ones(length, dtype=bool)) for length in lengths]
    return pack(rows, torch.device("cpu"))


def pythia(width: int, depth: int, heads: int, vocabulary: int = 50304) -> PretrainedConfig:
    """A model of EleutherAI's Pythia suite (Biderman et al. 2023, table 1)."""
    return GPTNeoXConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width,
        vocab_size=vocabulary, max_position_embeddings=2048, tie_word_embeddings=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("config", "parameters", "multiplied", "gigaflops"),
    [
        (pythia(512, 6, 8), 70_426_624, 44_670_976, 2195.667812352),
        (pythia(1024, 24, 16), 405_334_016, 353_822_720, 17391.09433344),
    ],
)
def test_pythia_has_the_published_sizes(
    config: PretrainedConfig, parameters: int, multiplied: int, gigaflops: float
) -> None:
    """The operations of a step of 4 rows of 2,048 tokens, as transformers' trainer counts them."""
    spec = ModelSpec.of(config)
    assert (spec.parameters, spec.matmul_parameters) == (parameters, multiplied)
    assert spec.flops_per_token() * 2048 * 4 / 1e9 == pytest.approx(gigaflops, abs=1e-9)


def test_tied_tables_count_once_and_are_multiplied(tiny_model: Path) -> None:
    spec, lm = ModelReference.of(str(tiny_model), weights=False).spec, loading.load(str(tiny_model))
    assert spec.parameters == sum(weight.numel() for weight in lm.model.parameters())
    assert (spec.embedding_parameters, spec.matmul_parameters) == (0, spec.parameters)


def test_adapters_are_counted_as_peft_makes_them(tiny_model: Path) -> None:
    for magnitudes in (False, True):
        model = loading.add_adapters(loading.load(str(tiny_model)).model, rank=4, alpha=8, seed=0, dora=magnitudes)
        made = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        assert (
            ModelReference.of(str(tiny_model), weights=False).spec.adapter_parameters(4, magnitudes=magnitudes) == made
        )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_a_forward_pass_saves_is_estimated_to_the_byte(tiny_model: Path, checkpointing: bool) -> None:
    """From one and two layers; here there are four of them."""
    config = AutoConfig.from_pretrained(tiny_model, num_hidden_layers=4)
    spec = ModelSpec.of(config)
    model = AutoModelForCausalLM.from_config(config).train()
    attention.install_attention(model)
    recomputation.replace_norms_and_mlps(model)
    weights = {weight.data_ptr() for weight in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        if (address := tensor.untyped_storage().data_ptr()) not in weights:
            saved[address] = tensor
        return tensor

    batch = packed([20, 13])
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        states(model, batch)
    whole = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    estimated = spec.saved_activations([20, 13], "fp32", checkpointing=checkpointing)
    assert estimated < 0.6 * whole if checkpointing else estimated == whole


def test_what_was_tried_is_let_go() -> None:
    """A function whose result is what it saves, as attention does, would hold itself, the pass and the model."""
    spec = ModelSpec.of(pythia(64, 1, 2, 100))

    def living() -> int:
        gc.collect()
        return sum(type(each) is torch.nn.Parameter for each in gc.get_objects())

    before = living()
    assert spec.saved_activations([8, 9], "fp32") > 0
    assert living() == before


def test_a_model_that_computes_the_kinds_of_its_layers_is_measured_too(mamba: torch.nn.Module) -> None:
    assert ModelSpec.of(mamba.config).saved_activations([8, 9], "fp32") > 0  # type: ignore[arg-type]


def test_a_configuration_is_enough(tmp_path: Path) -> None:
    pythia(64, 1, 2, 100).save_pretrained(tmp_path)
    assert ModelReference.of(str(tmp_path), weights=False).spec.num_layers == 1
    with pytest.raises(UserError, match="found no weights"):
        reference.find_folder(str(tmp_path))
