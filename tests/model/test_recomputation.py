"""Our norms and gated MLPs equal those that they replace, and save less for the backward pass."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, PreTrainedModel, Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm

from luthier.model import recomputation

WIDTH = 24


@pytest.fixture
def model(tiny_model: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


def norm() -> torch.nn.Module:
    made = Qwen2RMSNorm(WIDTH, eps=1e-5)
    torch.nn.init.normal_(made.weight, mean=1.0, std=0.2, generator=torch.Generator().manual_seed(1))
    return made


def feed_forward() -> torch.nn.Module:
    torch.manual_seed(1)
    return Qwen2MLP(Qwen2Config(hidden_size=WIDTH, intermediate_size=40, hidden_act="silu"))


def replaced(module: torch.nn.Module) -> torch.nn.Module:
    parent = torch.nn.ModuleDict({"it": module})
    assert recomputation.replace_norms_and_mlps(parent) == 1
    return parent["it"]


def gradients(module: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Output and gradients of input and weights, in fp64."""
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(1, 7, WIDTH, generator=generator).to(dtype).requires_grad_()
    output = module.to(dtype)(states)
    output.backward(torch.randn(1, 7, WIDTH, generator=generator).to(dtype))
    found = {"output": output.detach(), "states": states.grad} | {
        name: parameter.grad for name, parameter in module.named_parameters()
    }
    return {name: tensor.double() for name, tensor in found.items() if tensor is not None}


@pytest.mark.parametrize("make", [norm, feed_forward])
def test_gradients_are_those_of_autograd(make: Callable[[], torch.nn.Module]) -> None:
    exact, ours = gradients(make(), torch.float64), gradients(replaced(make()), torch.float32)
    assert ours.keys() == exact.keys()
    for name, wanted in exact.items():
        torch.testing.assert_close(ours[name], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [norm, feed_forward])
def test_in_bf16_gradients_are_as_near_to_the_exact_ones_as_before(make: Callable[[], torch.nn.Module]) -> None:
    theirs, ours = gradients(make(), torch.bfloat16), gradients(replaced(make()), torch.bfloat16)
    exact = gradients(make().to(torch.bfloat16), torch.float64)
    assert torch.equal(ours["output"], theirs["output"])
    for name, wanted in exact.items():
        assert (ours[name] - wanted).norm() <= 1.2 * (theirs[name] - wanted).norm() + 1e-6, name


def test_a_model_says_the_same_with_them_and_its_weights_keep_their_names(model: PreTrainedModel) -> None:
    tokens = torch.arange(12)[None]
    before, names = model(tokens).logits, list(model.state_dict())
    layers = model.config.num_hidden_layers
    assert (
        recomputation.replace_norms_and_mlps(model) == 3 * layers + 1
    )  # two norms and a feed-forward in each, and the last norm
    assert torch.equal(model(tokens).logits, before)
    assert list(model.state_dict()) == names
    assert recomputation.replace_norms_and_mlps(model) == 0


def test_what_training_remembers_shrinks_by_a_third(model: PreTrainedModel) -> None:
    weights = {parameter.data_ptr() for parameter in model.parameters()}

    def remembered() -> int:
        """Bytes of different tensors that the graph of a forward pass holds, weights left out."""
        held: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in weights:
                held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            kept = model.model(torch.arange(64)[None])  # the graph lives as long as this name
        assert kept.last_hidden_state.requires_grad
        return sum(held.values())

    model.to(torch.bfloat16)
    before = remembered()
    recomputation.replace_norms_and_mlps(model)
    assert remembered() < 0.67 * before


def test_a_norm_or_a_feed_forward_of_another_kind_stays() -> None:
    config = Gemma2Config(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    assert (
        recomputation.replace_norms_and_mlps(Gemma2ForCausalLM(config)) == 0
    )  # it multiplies by 1 + weight, and its activation is GELU


def test_adapters_inside_a_feed_forward_learn(model: PreTrainedModel) -> None:
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    tokens = torch.arange(12)[None]
    before = adapted(tokens).logits
    recomputation.replace_norms_and_mlps(adapted)
    after = adapted(tokens).logits
    assert torch.equal(after, before)
    after.sum().backward()
    trained = [name for name, weight in adapted.named_parameters() if weight.grad is not None]
    assert any("down_proj.lora_B" in name for name in trained) and any("gate_proj.lora_B" in name for name in trained)
    assert all("lora" in name for name in trained)


@pytest.mark.parametrize("family", ["olmo2", "olmo3", "gpt_oss", "llama", "glm4", "exaone4", "smollm3"])
def test_a_norm_is_exchanged_only_for_one_that_rounds_alike_in_the_format_of_the_training(family: str) -> None:
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    few = {"num_key_value_heads": 2, "vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **small, **few), dtype=torch.float32)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, mean=1.0, std=0.2, generator=torch.Generator().manual_seed(1))
    original = copy.deepcopy(model.model.norm).to(torch.bfloat16)
    assert recomputation.replace_norms_and_mlps(model, torch.bfloat16) > 0
    assert model.dtype == torch.float32  # the format comes later
    states = torch.randn(9, 7, 32, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    assert isinstance(model.model.norm, recomputation.RmsNorm)
    assert torch.equal(model.model.norm.to(torch.bfloat16)(states), original(states))


def test_a_norm_that_rounds_last_has_the_gradients_of_autograd() -> None:
    ours = recomputation.RmsNorm(torch.nn.Parameter(norm().weight.detach().clone()), 1e-5, rounds_last=True)
    exact, found = gradients(norm(), torch.float64), gradients(ours, torch.float32)
    for name, wanted in exact.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-5)
