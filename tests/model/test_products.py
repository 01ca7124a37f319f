"""Linear layers give the same by either library, are trained as ever, and a model keeps its parts."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from luthier.engine.engine import Engine
from luthier.engine.requests import GenerationRequest
from luthier.model import generate, loading, machine, products


@pytest.fixture(autouse=True)
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where oneDNN is faster, for weights of any size."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(machine, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "SMALLEST", 0)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    ("states", "weight"),
    [
        (drawn(1, 24), drawn(16, 24)),
        (drawn(33, 24), drawn(16, 24)),
        (drawn(3, 5, 24)[:, -1:], drawn(16, 24)),
        (drawn(5, 3, 24).transpose(0, 1), drawn(24, 16).T),
        (drawn(24), drawn(40, 24)[8:24]),
        (drawn(0, 24), drawn(16, 24)),
    ],
    ids=["a token", "tokens", "the last of each row", "turned round", "a part of a weight", "nothing"],
)
@pytest.mark.parametrize("bias", [None, drawn(16)], ids=["", "bias"])
def test_products_are_those_in_double_precision_but_for_rounding(
    states: Tensor, weight: Tensor, bias: Tensor | None
) -> None:
    with torch.inference_mode():
        found = products.linear(states, weight, bias)
    exact = states.double() @ weight.double().T + (0 if bias is None else bias.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_where_something_is_trained_gradients_are_torchs() -> None:
    layer, states = nn.Linear(24, 16), drawn(3, 24)
    wanted = torch.autograd.grad(layer(states).sum(), list(layer.parameters()))
    products.install(layer)
    for own, other in zip(torch.autograd.grad(layer(states).sum(), list(layer.parameters())), wanted, strict=True):
        assert torch.equal(own, other)


def test_a_copy_computes_with_its_own_weights_and_names_stay() -> None:
    model = nn.Sequential(nn.Linear(24, 16))
    names = list(model.state_dict())
    products.install(model)
    twin = copy.deepcopy(model)
    with torch.inference_mode():
        model[0].weight.zero_()
        assert not bool((model(drawn(2, 24)) - model[0].bias).any())
        assert bool((twin(drawn(2, 24)) - twin[0].bias).any())
    assert list(model.state_dict()) == list(twin.state_dict()) == names


@pytest.mark.parametrize("rows", [2, 9, 32, 100])
def test_packed_weights_give_the_same_numbers(rows: int) -> None:
    layer, states = nn.Linear(48, 80), drawn(rows, 48)
    with torch.inference_mode():
        wanted = products.linear(states, layer.weight, layer.bias)
        assert products.pack(layer, layer.weight.nbytes)
        assert torch.equal(layer(states), wanted)
        assert torch.equal(copy.deepcopy(layer)(states), wanted)


def test_weights_are_packed_where_there_is_memory_for_all_of_them() -> None:
    model = nn.Sequential(nn.Linear(24, 16), nn.Linear(16, 16))
    whole = 4 * (24 * 16 + 16 * 16)
    assert not products.pack(model, whole - 1) and "forward" not in vars(model[0])
    assert products.pack(model, whole) and "forward" in vars(model[1])


def test_packed_layers_are_trained_as_ever() -> None:
    layer, states = nn.Linear(24, 16), drawn(3, 24)
    wanted = torch.autograd.grad(layer(states).sum(), list(layer.parameters()))
    products.pack(layer, 1 << 20)
    for own, other in zip(torch.autograd.grad(layer(states).sum(), list(layer.parameters())), wanted, strict=True):
        assert torch.equal(own, other)


def test_answers_are_those_of_plain_transformers_alone_and_in_company(tiny_model: Path) -> None:
    lm = loading.load(str(tiny_model))
    prompts = [tuple((11 * place + number) % 300 + 5 for place in range(3 + 17 * number)) for number in range(6)]
    wanted = [
        lm.model.generate(  # type: ignore[operator]
            torch.tensor([prompt]), do_sample=False, max_new_tokens=30, eos_token_id=None, pad_token_id=0
        )[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
    ways = {"forward" in vars(module) for module in lm.model.modules() if type(module) is nn.Linear}
    assert ways == {False}, "the answers to compare with were not transformers' own"
    with Engine(lm, threads=1) as engine:
        assert all(layer.forward.func is products._forward_packed for layer in products._layers(lm.model))
        streams = [engine.submit(GenerationRequest(prompt, 30, ignore_end=True)) for prompt in prompts]
        assert [list(stream.result().ids) for stream in streams] == wanted
    stop = lm.template.stop_ids
    replies = [generate.answer(lm, [prompt], max_new_tokens=30)[0].ids for prompt in prompts]
    for reply, whole in zip(replies, wanted, strict=True):
        assert reply == whole[: len(reply)] and (len(reply) == 30 or reply[-1] in stop)
    ways = {"forward" in vars(module) for module in lm.model.modules() if type(module) is nn.Linear}
    assert ways == {True}
