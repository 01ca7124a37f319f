"""Updates are those of the optimizers that the words name, in fp32, whatever the model computes in."""

import math
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from luthier.errors import UserError
from luthier.recipe import Train
from luthier.train.checkpoint import as_tensor
from luthier.train.optimizer import OPTIMIZERS, PACKAGES, MasterOptimizer, check_own_optimizer, learning_rate, resolve


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    rates = [learning_rate(step, highest=1.0, steps=12, warmup=2, schedule="cosine") for step in range(1, 13)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


def test_a_linear_schedule_falls_by_equal_steps() -> None:
    rates = [learning_rate(step, highest=1e-5, steps=3, warmup=1, schedule="linear") for step in (1, 2, 3)]
    assert rates == pytest.approx([1e-5, 1e-5, 5e-6])


def updated(
    precision: str, count: int, gradients: list[torch.Tensor], limit: float = 1e9
) -> tuple[torch.Tensor, float]:
    model = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    optimizer = MasterOptimizer(model, Train(precision=precision))  # type: ignore[arg-type]
    for gradient in gradients:
        model.weight.grad = (
            gradient.to(model.weight.dtype)
            if model.weight.grad is None
            else model.weight.grad + gradient.to(model.weight.dtype)
        )
        optimizer.accumulate()
    clip = optimizer.clip(count, limit)
    optimizer.step(0.1, clip.scale)
    return optimizer.masters["weight"].tensor().clone(), clip.norm


def test_two_half_batches_give_the_update_of_the_whole() -> None:
    gradient = torch.arange(6.0).reshape(2, 3)
    for precision in ("fp32", "bf16"):
        whole, _ = updated(precision, 4, [gradient])
        halves, _ = updated(precision, 4, [gradient * 0.25, gradient * 0.75])
        torch.testing.assert_close(whole, halves)


def test_the_gradient_is_the_mean_over_learnt_tokens_and_its_norm_is_told_before_clipping() -> None:
    _, norm = updated("fp32", 5, [torch.full((2, 3), 5.0)], limit=0.1)
    assert norm == pytest.approx(math.sqrt(6))


def test_masters_keep_what_bf16_would_lose() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = MasterOptimizer(model, Train(precision="bf16"))
    for _ in range(20):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.accumulate()
        optimizer.step(1e-4, optimizer.clip(1, 1e9).scale)
    assert optimizer.masters["weight"].tensor().item() == pytest.approx(1 - 20e-4, abs=1e-6)


def test_a_gradient_that_is_not_a_number_is_told_by_its_norm() -> None:
    _, norm = updated("fp32", 1, [torch.tensor([[1.0, float("inf"), 0.0], [0.0, 0.0, 0.0]])])
    assert not math.isfinite(norm)


@pytest.fixture(params=list(OPTIMIZERS))
def word(request: pytest.FixtureRequest) -> str:
    if request.param in PACKAGES:
        pytest.importorskip(PACKAGES[request.param][0])
    return str(request.param)


def small_model() -> torch.nn.Module:
    """An embedding, a hidden matrix large enough for 8-bit blocks, and a vector."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(40, 128), torch.nn.Linear(128, 64))


def one_step(optimizer: MasterOptimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for parameter in (master.parameter for master in optimizer.masters.values()):
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    optimizer.accumulate()
    optimizer.step(1e-2, optimizer.clip(1, 1e9).scale)


def tensors(optimizer: MasterOptimizer) -> dict[str, torch.Tensor]:
    """What a checkpoint holds."""
    return {name: as_tensor(stored).clone() for name, stored in optimizer.state().items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_state_holds_all_that_the_next_update_needs(word: str, precision: str) -> None:
    config = Train(optimizer=word, precision=precision, weight_decay=0.1)  # type: ignore[arg-type]
    calm, first = MasterOptimizer(small_model(), config), MasterOptimizer(small_model(), config)
    for number in range(3):
        one_step(calm, number)
        one_step(first, number)
    again = MasterOptimizer(small_model(), config)
    again.load(safetensors.torch.load(safetensors.torch.save(tensors(first))))
    for number in range(3, 6):
        one_step(calm, number)
        one_step(again, number)
    for name, wanted in tensors(calm).items():
        assert torch.equal(tensors(again)[name], wanted), name


def test_a_table_updated_a_few_rows_at_a_time_is_the_same_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Train(optimizer="adamw", precision="bf16", weight_decay=0.1)
    whole = MasterOptimizer(small_model(), config)
    monkeypatch.setattr("luthier.train.optimizer.BLOCK", 7 * 128)  # the last part of 40 rows is not full
    by_rows = MasterOptimizer(small_model(), config)
    for number in range(3):
        one_step(by_rows, number)
    assert len(by_rows._row_ranges(by_rows.masters["0.weight"])) == 6
    monkeypatch.undo()
    for number in range(3):
        one_step(whole, number)
    assert all(torch.equal(tensors(by_rows)[name], wanted) for name, wanted in tensors(whole).items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adamw_has_before_the_first_update_what_torch_would_make_then(precision: str) -> None:
    optimizer = MasterOptimizer(small_model(), Train(optimizer="adamw", precision=precision))  # type: ignore[arg-type]
    before = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors(optimizer).items()}
    (adamw,) = optimizer.optimizers
    adamw.state.clear()
    one_step(optimizer, 0)
    made_by_torch = tensors(optimizer)
    assert before == {name: (tensor.shape, tensor.dtype) for name, tensor in made_by_torch.items()}
    again = MasterOptimizer(small_model(), Train(optimizer="adamw", precision=precision))  # type: ignore[arg-type]
    one_step(again, 0)
    assert all(torch.equal(tensors(again)[name], wanted) for name, wanted in made_by_torch.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_weight_that_is_a_single_number_learns_too(precision: str) -> None:
    model = torch.nn.Module()
    model.scale = torch.nn.Parameter(torch.tensor(1.0))
    optimizer = MasterOptimizer(model, Train(precision=precision))  # type: ignore[arg-type]
    one_step(optimizer, 0)
    assert abs(optimizer.masters["scale"].tensor().item() - 1) == pytest.approx(1e-2, rel=0.02)


def moved(word: str) -> dict[str, torch.Tensor]:
    """By how much each weight moves at the first update with a rate of 0.01."""
    optimizer = MasterOptimizer(small_model(), Train(optimizer=word, precision="fp32"))
    before = {name: master.tensor().clone() for name, master in optimizer.masters.items()}
    one_step(optimizer, 0)
    return {name: master.tensor() - before[name] for name, master in optimizer.masters.items()}


def test_every_optimizer_moves_weights_by_about_the_rate(word: str) -> None:
    for name, change in moved(word).items():
        size = change.square().mean().sqrt().item()
        assert 0.001 < size <= 0.0101, (name, size)


def test_adafactors_first_update_is_worked_out_by_hand() -> None:
    """β₂ is 0 at step 1, so V is the row means times the column means of g², divided by the mean; RMS(g/√V) is 1 here."""
    model = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    optimizer = MasterOptimizer(model, Train(optimizer="adafactor", precision="fp32"))
    model.weight.grad = torch.tensor([[2.0, 4.0], [1.0, -2.0]])
    optimizer.accumulate()
    optimizer.step(0.01, optimizer.clip(1, 1e9).scale)
    # g² = [[4, 16], [1, 4]]: row means 10 and 2.5, column means 2.5 and 10, mean 6.25, so V = g² exactly
    torch.testing.assert_close(model.weight.detach(), -0.01 * torch.tensor([[1.0, 1.0], [1.0, -1.0]]))


OWN = """
import torch

def muon(weights, settings):
    rest = [*weights.tables, *weights.vectors]
    return [torch.optim.Muon(weights.hidden, lr=0.0), torch.optim.SGD(rest, lr=0.0, momentum=0.9)]
"""


def test_an_optimizer_of_ones_own_gets_weights_by_kind_and_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_optimizer.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = Train(optimizer="own_optimizer:muon", precision="fp32")
    calm, again = MasterOptimizer(small_model(), config), MasterOptimizer(small_model(), config)
    one_step(calm, 0)
    hidden, rest = (
        {name for name, master in calm.masters.items() if each.state.get(master.full)} for each in calm.optimizers
    )
    assert (hidden, rest) == ({"1.weight"}, {"0.weight", "1.bias"})
    again.load(tensors(calm))
    one_step(calm, 1)
    one_step(again, 1)
    assert all(torch.equal(tensors(again)[name], wanted) for name, wanted in tensors(calm).items())


ESTIMATING = """
import torch

class Estimating(torch.optim.Optimizer):
    '''Like Prodigy: a step size from all gradients, kept in the param groups; nested and half-precise memory besides.'''

    def __init__(self, groups):
        super().__init__(groups, dict(lr=0.0, k=0, d=1e-6, seen=(0.0, 0.0), made_of=object))

    def step(self, closure=None):
        weights = [weight for group in self.param_groups for weight in group["params"] if weight.grad is not None]
        total = sum(weight.grad.square().sum().item() for weight in weights)
        for group in self.param_groups:
            group["k"] += 1
            group["d"] = max(group["d"], 1 / 3 / (1 + total))
            group["seen"] = (group["d"], total)
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                state.setdefault("last", [torch.zeros_like(weight), {"of": torch.zeros((), dtype=torch.bfloat16)}])
                state.setdefault("half", torch.zeros_like(weight, dtype=torch.bfloat16))
                state["half"].add_(weight.grad)
                state["last"][0].mul_(0.5).add_(weight.grad)
                state["last"][1]["of"].add_(1)
                weight.sub_(group["lr"] * group["d"] * group["k"] * (state["last"][0] + state["half"]))

def estimating(weights, settings):
    return [Estimating(weights.groups(0.1))]
"""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_optimizer_of_ones_own_steps_once_with_all_weights_and_keeps_its_param_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr("luthier.train.optimizer.BLOCK", 1000)  # each weight a block of its own
    (tmp_path / "estimating_of_a_test.py").write_text(ESTIMATING)
    monkeypatch.syspath_prepend(tmp_path)
    config = Train(optimizer="estimating_of_a_test:estimating", precision=precision)  # type: ignore[arg-type]
    check_own_optimizer(config)
    calm, again = MasterOptimizer(small_model(), config), MasterOptimizer(small_model(), config)
    for number in range(3):
        one_step(calm, number)
    groups = calm.optimizers[0].param_groups
    assert [group["k"] for group in groups] == [3, 3]
    assert (
        groups[0]["seen"] == groups[1]["seen"] and 7000 < groups[0]["seen"][1] < 15000
    )  # all 13,376 gradients at once
    again.load(safetensors.torch.load(safetensors.torch.save(tensors(calm))))
    assert [{**group, "params": 0, "lr": 0} for group in again.optimizers[0].param_groups] == [
        {**group, "params": 0, "lr": 0} for group in groups
    ]
    for number in range(3, 5):
        one_step(calm, number)
        one_step(again, number)
    assert all(torch.equal(tensors(again)[name], wanted) for name, wanted in tensors(calm).items())


REFUSED = """
import torch

class Twice(torch.optim.SGD):
    def step(self, closure):
        closure()

class Odd(torch.optim.SGD):
    def step(self, closure=None):
        self.param_groups[0]["seen"] = {1, 2}

def twice(weights, settings):
    return [Twice(weights.groups(0.0), lr=0.0)]

def odd(weights, settings):
    return [Odd(weights.groups(0.0), lr=0.0)]

def some(weights, settings):
    return [torch.optim.SGD(weights.hidden, lr=0.0)]

def broken(weights, settings):
    return [torch.optim.SGD(weights.everything, lr=0.0)]
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "twice",
            r"step\(\) of Twice wants closure: optimizers that compute the gradient again themselves cannot be used",
        ),
        (
            "odd",
            "Odd keeps seen as a set, which a checkpoint cannot hold, so a stopped run could not go on. Expected tensors",
        ),
        ("some", "expected each trained weight in one optimizer, found 0.weight, 1.bias in none or in several"),
        ("broken", '"refused_of_a_test:broken" failed in a trial on three small weights: AttributeError'),
    ],
)
def test_an_optimizer_that_cannot_be_used_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    (tmp_path / "refused_of_a_test.py").write_text(REFUSED)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"train.optimizer: {told}"):
        check_own_optimizer(Train(optimizer=f"refused_of_a_test:{name}", precision="bf16"))


def test_eight_bit_moments_take_a_byte_a_weight() -> None:
    pytest.importorskip("bitsandbytes")
    optimizer = MasterOptimizer(small_model(), Train(optimizer="adamw-8bit", precision="fp32"))
    one_step(optimizer, 0)
    moments = [tensor for name, tensor in optimizer.state().items() if name in ("state1/0.weight", "state2/0.weight")]
    assert [(moment.dtype, moment.shape.numel()) for moment in moments] == [(torch.uint8, 40 * 128)] * 2


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    message = (
        r"train.optimizer: this needs the package bitsandbytes, which is not installed: pip install 'luthier\[quant"
    )
    with pytest.raises(UserError, match=message):
        resolve("adamw-8bit")
