"""The loss of the chunked head is the plain formula's, and so are its gradients."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from luthier.model import allocator, attention, head
from luthier.model.head import CausalLoss, row_likelihoods, summed_loss
from luthier.model.loading import add_adapters
from luthier.model.packed import pack
from token_rows import Row


@pytest.fixture
def model(tiny_model: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


def some_rows(model: torch.nn.Module, seed: int = 0) -> list[Row]:
    generator = np.random.default_rng(seed)
    lengths = (17, 5, 11)
    return [Row(generator.integers(0, model.config.vocab_size, n), generator.random(n) < 0.5) for n in lengths]


def loss_of(model: torch.nn.Module, rows: list[Row]) -> torch.Tensor:
    return summed_loss(model, pack(rows, torch.device("cpu")))  # type: ignore[arg-type]


def plain_loss(model: torch.nn.Module, rows: list[Row]) -> torch.Tensor:
    total = torch.zeros(())
    for row in rows:
        logits = model(input_ids=torch.tensor(row.ids)[None]).logits[0]
        for place in range(1, len(row.ids)):
            if row.loss_mask[place]:
                total = total - torch.log_softmax(logits[place - 1], dim=-1)[row.ids[place]]
    return total


def test_loss_and_gradients_are_those_of_the_plain_formula(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "CHUNK", 3)  # several blocks of several pieces, the last ones not full
    monkeypatch.setattr(head, "BLOCK_BYTES", 6 * 4 * model.config.vocab_size)
    monkeypatch.setattr(head, "PIECE_BYTES", 4 * 4 * model.config.vocab_size)
    rows = some_rows(model)
    loss = loss_of(model, rows)
    loss.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    wanted = plain_loss(model, rows)
    wanted.backward()
    torch.testing.assert_close(loss, wanted)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_each_rows_likelihood_and_gradient_are_those_of_the_row_alone(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, precision: torch.dtype
) -> None:
    monkeypatch.setattr(head, "CHUNK", 3)
    monkeypatch.setattr(head, "BLOCK_BYTES", 0)
    model.to(precision)
    rows = [*some_rows(model), Row(np.arange(4), np.zeros(4, dtype=bool))]  # the last one learns nothing
    weights = torch.tensor([0.5, -2.0, 1.5, 3.0])
    likelihoods = row_likelihoods(model, pack(rows, torch.device("cpu")))  # type: ignore[arg-type]
    (likelihoods * weights).sum().backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.float()
    alone = [-plain_loss(model, [row]) for row in rows]
    sum((weight * one for weight, one in zip(weights, alone, strict=True)), torch.zeros(())).backward()
    rounding = {"rtol": 1e-4, "atol": 1e-5} if precision == torch.float32 else {"rtol": 0.1, "atol": 0.05}
    torch.testing.assert_close(likelihoods, torch.stack(alone), **rounding)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name].float(), parameter.grad, **rounding)


@pytest.mark.parametrize("ours", [True, False])
def test_rows_that_are_packed_together_never_see_each_other(model: torch.nn.Module, ours: bool) -> None:
    if ours:
        attention.install_attention(model)  # type: ignore[arg-type]
    rows = some_rows(model)
    whole = loss_of(model, rows)
    torch.testing.assert_close(whole, sum(loss_of(model, [row]) for row in rows))
    other = Row((rows[0].ids + 7) % model.config.vocab_size, rows[0].loss_mask)
    changed = loss_of(model, [other, *rows[1:]]) - loss_of(model, [other])
    torch.testing.assert_close(changed, whole - loss_of(model, [rows[0]]), rtol=1e-4, atol=1e-4)


def test_the_first_token_is_never_learnt(model: torch.nn.Module) -> None:
    rows = [Row(row.ids, np.arange(len(row.ids)) == 0) for row in some_rows(model)]
    assert loss_of(model, rows).item() == 0.0


def test_frozen_weights_get_no_gradient_and_fresh_adapters_change_nothing(model: torch.nn.Module) -> None:
    rows = some_rows(model)
    before = loss_of(model, rows).detach()
    adapted = add_adapters(model, rank=2, alpha=4, seed=0)
    loss = loss_of(adapted, rows)
    loss.backward()
    torch.testing.assert_close(loss.detach(), before)
    learning = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert learning and all("lora_" in name for name in learning)


def test_gradients_in_two_threads_are_those_of_one(tiny_model: Path) -> None:
    """Fifteen of fifteen were wrong in both while the threads shared the memory that scores are made in."""

    models = [AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32) for _ in range(2)]

    def gradients(start: int) -> list[torch.Tensor]:
        model, found = models[start - 1], []
        with allocator.MemoryPool().in_use():
            for number in range(15):
                row = Row((start + 7 * np.arange(90) + number) % 300 + 5, np.ones(90, dtype=bool))
                summed_loss(model, pack([row], torch.device("cpu"))).backward()
                found.append(model.get_input_embeddings().weight.grad.clone())
                model.zero_grad()
        return found

    wanted = [gradients(start) for start in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(gradients, (1, 2)))
    for alone, beside in zip(wanted, together, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(alone, beside, strict=True))


def test_hooks_around_a_module_see_the_one_forward_pass_of_a_step(model: Any) -> None:
    loss_of(model, some_rows(model))  # what is tried on a model is tried once
    whole, seen = CausalLoss(model), []
    whole.register_forward_pre_hook(lambda module, inputs: seen.append("before"))
    model.get_decoder().register_forward_hook(lambda module, inputs, output: seen.append("decoder"))

    def after(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        seen.append("after")
        for part in output if isinstance(output, tuple) else (output,):
            if part.requires_grad:  # as FSDP hears that the way back begins
                part.register_hook(lambda gradient: seen.append("gradient"))

    whole.register_forward_hook(after)
    batch = pack(some_rows(model), torch.device("cpu"))
    loss, _ = whole(batch)
    loss.backward()
    assert seen == ["before", "decoder", "after", "gradient"]
    assert all(weight.grad is not None for weight in whole.parameters())
    torch.testing.assert_close(loss.detach(), -whole(batch, by_row=True).sum().detach())
