"""The update is AdamW's, in fp32, whatever the model computes in."""

import math

import pytest
import torch

from luthier.recipe import Train
from luthier.train.optimizer import MasterAdamW, learning_rate


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    rates = [learning_rate(step, highest=1.0, steps=12, warmup=2, schedule="cosine") for step in range(1, 13)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


def test_a_linear_schedule_falls_by_equal_steps() -> None:
    rates = [learning_rate(step, highest=1e-5, steps=3, warmup=1, schedule="linear") for step in (1, 2, 3)]
    assert rates == pytest.approx([1e-5, 1e-5, 5e-6])


def updated(
    precision: str, learnt: int, gradients: list[torch.Tensor], clip: float = 1e9
) -> tuple[torch.Tensor, float]:
    model = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    optimizer = MasterAdamW(model, Train(precision=precision))  # type: ignore[arg-type]
    for gradient in gradients:
        model.weight.grad = (
            gradient.to(model.weight.dtype)
            if model.weight.grad is None
            else model.weight.grad + gradient.to(model.weight.dtype)
        )
        optimizer.gather()
    norm = optimizer.finish(learnt, clip)
    optimizer.step(0.1)
    return optimizer.masters["weight"].detach().clone(), norm


def test_two_half_batches_give_the_update_of_the_whole() -> None:
    gradient = torch.arange(6.0).reshape(2, 3)
    for precision in ("fp32", "bf16"):
        whole, _ = updated(precision, 4, [gradient])
        halves, _ = updated(precision, 4, [gradient * 0.25, gradient * 0.75])
        torch.testing.assert_close(whole, halves)


def test_the_gradient_is_the_mean_over_learnt_tokens_and_its_norm_is_told_before_clipping() -> None:
    _, norm = updated("fp32", 5, [torch.full((2, 3), 5.0)], clip=0.1)
    assert norm == pytest.approx(math.sqrt(6))


def test_masters_keep_what_bf16_would_lose() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = MasterAdamW(model, Train(precision="bf16"))
    for _ in range(20):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.gather()
        optimizer.finish(1, 1e9)
        optimizer.step(1e-4)
    assert optimizer.masters["weight"].item() == pytest.approx(1 - 20e-4, abs=1e-6)


def test_a_gradient_that_is_not_a_number_is_told_by_its_norm() -> None:
    _, norm = updated("fp32", 1, [torch.tensor([[1.0, float("inf"), 0.0], [0.0, 0.0, 0.0]])])
    assert not math.isfinite(norm)
