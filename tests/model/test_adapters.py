"""The fused LoRA layer is peft's in numbers and names, and steps aside for every other kind of adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners import lora
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from luthier.model import adapters
from luthier.model.adapters import LoraLinear

WIDTH, TO = 24, 40


def layer(*, bias: bool = True, alpha: int = 12, **more: Any) -> nn.Module:
    """A parent with one adapted layer, `it`, whose adapter is not fresh."""
    torch.manual_seed(0)
    parent = nn.Sequential()
    parent.add_module("it", nn.Linear(WIDTH, TO, bias=bias))
    adapted = get_peft_model(parent, LoraConfig(r=8, lora_alpha=alpha, target_modules=["it"], **more)).base_model.model
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                weight.normal_(std=0.3)
    return adapted  # type: ignore[no-any-return]


def gradients(parent: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Output and gradients of input and adapter, in fp64."""
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(2, 150, WIDTH, generator=generator).to(dtype).requires_grad_()
    output = parent.to(dtype).it(states)
    output.backward(torch.randn(2, 150, TO, generator=generator).to(dtype))
    found = {"output": output.detach(), "states": states.grad} | {
        name: parameter.grad for name, parameter in parent.named_parameters()
    }
    return {name: tensor.double() for name, tensor in found.items() if tensor is not None}


def fused(parent: nn.Module) -> nn.Module:
    assert adapters.fuse_lora(parent) == 1
    return parent


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_peft_and_none_is_made_for_frozen_weights(bias: bool) -> None:
    exact, ours = gradients(layer(bias=bias), torch.float64), gradients(fused(layer(bias=bias)), torch.float32)
    assert ours.keys() == exact.keys() == {"output", "states", "it.lora_A.default.weight", "it.lora_B.default.weight"}
    for name, wanted in exact.items():
        torch.testing.assert_close(ours[name], wanted, rtol=1e-4, atol=1e-4)


def test_in_bf16_gradients_are_as_near_to_the_exact_ones_as_peft_s() -> None:
    theirs, ours = gradients(layer(), torch.bfloat16), gradients(fused(layer()), torch.bfloat16)
    for name, wanted in gradients(layer().to(torch.bfloat16), torch.float64).items():
        assert (ours[name] - wanted).norm() <= 1.2 * (theirs[name] - wanted).norm(), name


def test_the_gradient_agrees_with_finite_differences() -> None:
    parent = fused(layer()).double()
    states = torch.randn(3, WIDTH, dtype=torch.float64, requires_grad=True)
    down, up = (weight for weight in parent.parameters() if weight.requires_grad)

    def output(states: torch.Tensor, *halves: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(  # type: ignore[no-any-return]
            parent.it, {"lora_A.default.weight": halves[0], "lora_B.default.weight": halves[1]}, (states,)
        )

    assert torch.autograd.gradcheck(output, (states, down, up))


def test_every_linear_layer_of_a_model_is_exchanged_and_names_stay(tiny_model: Path) -> None:
    plain: PreTrainedModel = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = get_peft_model(plain, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False))
    tokens = torch.arange(12)[None]
    before, names = model(tokens).logits, list(model.state_dict())
    assert adapters.fuse_lora(model) == 7 * plain.config.num_hidden_layers
    torch.testing.assert_close(model(tokens).logits, before)
    assert list(model.state_dict()) == names
    assert adapters.fuse_lora(model) == 0


def two_adapters(layer: Any) -> None:
    layer.update_layer("other", 2, lora_alpha=4, config=LoraConfig(r=2))
    layer.set_adapter(["default", "other"])
    torch.nn.init.normal_(layer.lora_B["other"].weight)


CHANGES: list[Callable[[Any], None]] = [
    two_adapters,
    lambda layer: layer.enable_adapters(False),
    lambda layer: layer.merge(),
]


@pytest.mark.parametrize("change", [*CHANGES, lambda layer: layer.base_layer.requires_grad_(True)])
def test_a_layer_that_is_more_or_less_than_one_adapter_on_a_frozen_matrix_stays(change: Callable[[Any], None]) -> None:
    parent = layer()
    change(parent.it)
    assert adapters.fuse_lora(parent) == 0


@pytest.mark.parametrize("change", CHANGES)
def test_adapters_can_be_added_switched_off_and_merged_as_before(change: Callable[[Any], None]) -> None:
    theirs, ours = layer(), fused(layer())
    states = torch.randn(5, WIDTH)
    for parent in (theirs, ours):
        torch.manual_seed(4)
        change(parent.it)
    torch.testing.assert_close(ours.it(states), theirs.it(states))


@pytest.mark.parametrize("more", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}])
def test_other_kinds_of_adapters_stay(more: dict[str, Any]) -> None:
    assert adapters.fuse_lora(layer(**more)) == 0


def test_a_layer_of_peft_that_computes_otherwise_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lora.Linear.forward
    monkeypatch.setattr(lora.Linear, "forward", lambda self, states: 1.01 * real(self, states))
    assert adapters.fuse_lora(layer()) == 0


def test_what_a_layer_remembers_is_its_input_and_a_few_numbers_a_token() -> None:
    parent = fused(layer(bias=False).to(torch.bfloat16))
    states = torch.randn(16, WIDTH, dtype=torch.bfloat16, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        parent.it(states)
    weights = {weight.data_ptr() for weight in parent.parameters()}
    of_tokens = [tensor for tensor in kept if tensor.data_ptr() not in weights]
    assert sorted(tensor.numel() for tensor in of_tokens) == [16 * 8, 16 * WIDTH]
    assert isinstance(parent.it, LoraLinear)
