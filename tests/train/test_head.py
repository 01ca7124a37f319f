"""The loss of the chunked head is the plain formula's, and so are its gradients."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from luthier.model import head
from luthier.model.head import summed_loss
from luthier.model.loading import add_adapters


@pytest.fixture
def model(tiny_model: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


def rows(model: torch.nn.Module, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, model.config.vocab_size, (3, 17), generator=generator)
    return tokens, torch.rand(3, 17, generator=generator) < 0.5


def plain_loss(model: torch.nn.Module, tokens: torch.Tensor, learn: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=tokens).logits
    total = torch.zeros(())
    for row in range(len(tokens)):
        for place in range(1, tokens.shape[1]):
            if learn[row, place]:
                total = total - torch.log_softmax(logits[row, place - 1], dim=-1)[tokens[row, place]]
    return total


def test_loss_and_gradients_are_those_of_the_plain_formula(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "CHUNK", 5)  # several chunks, the last one not full
    tokens, learn = rows(model)
    loss = summed_loss(model, tokens, learn)
    loss.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    wanted = plain_loss(model, tokens, learn)
    wanted.backward()
    torch.testing.assert_close(loss, wanted)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_padding_on_the_right_changes_nothing(model: torch.nn.Module) -> None:
    tokens, learn = rows(model)
    longer = torch.cat([tokens, torch.zeros(3, 6, dtype=torch.long)], dim=1)
    marks = torch.cat([learn, torch.zeros(3, 6, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(summed_loss(model, longer, marks), summed_loss(model, tokens, learn))


def test_a_row_s_loss_does_not_depend_on_its_neighbours(model: torch.nn.Module) -> None:
    tokens, learn = rows(model)
    alone = sum(summed_loss(model, tokens[row : row + 1], learn[row : row + 1]) for row in range(3))
    torch.testing.assert_close(summed_loss(model, tokens, learn), alone)


def test_the_first_token_is_never_learnt(model: torch.nn.Module) -> None:
    tokens, _ = rows(model)
    only_first = torch.zeros(3, 17, dtype=torch.bool)
    only_first[:, 0] = True
    assert summed_loss(model, tokens, only_first).item() == 0.0


def test_frozen_weights_get_no_gradient_and_fresh_adapters_change_nothing(model: torch.nn.Module) -> None:
    tokens, learn = rows(model)
    before = summed_loss(model, tokens, learn).detach()
    adapted = add_adapters(model, rank=2, alpha=4, seed=0)
    loss = summed_loss(adapted, tokens, learn)
    loss.backward()
    torch.testing.assert_close(loss.detach(), before)
    learning = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert learning and all("lora_" in name for name in learning)
