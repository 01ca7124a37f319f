"""Attention inside the rows of a packed batch gives what transformers' own gives, and steps aside where it must."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.model import attention
from luthier.model.head import summed_loss
from luthier.model.packed import Segments, pack
from token_rows import Row

CPU = torch.device("cpu")
LAYER = torch.nn.Identity()  # attention asks its module for `is_causal` only


def states(
    heads: int, groups: int, time: int, *, batch: int = 2, dtype: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(batch, heads, time, 8), (batch, groups, time, 8), (batch, groups, time, 8)]
    return [torch.randn(size, generator=generator, dtype=dtype).requires_grad_() for size in sizes]


@pytest.mark.parametrize("part", [64, 5])  # one part, and four of which the last is shorter
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
def test_products_and_their_gradients_are_those_of_causal_sdpa(
    heads: int, groups: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "PARTS", (part, part))
    ours, theirs = states(heads, groups, 19), states(heads, groups, 19)
    output = attention.products(*ours, 0.3)
    wanted = scaled_dot_product_attention(*theirs, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(output, wanted)
    direction = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=wanted.dtype)
    output.backward(direction)
    wanted.backward(direction)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_the_gradient_of_packed_attention_agrees_with_finite_differences() -> None:
    segments = Segments((3, 1, 2), CPU)
    assert torch.autograd.gradcheck(
        lambda *packed: attention.attend(LAYER, *packed, None, segments=segments)[0], states(2, 1, 6, batch=1)
    )
    assert torch.autograd.gradcheck(lambda *rows: attention.products(*rows, 0.5), states(2, 1, 5))


def test_a_row_is_taken_in_parts_of_about_equal_length() -> None:
    assert attention._parts(95) == [slice(0, 95)]
    assert attention._parts(191) == [slice(0, 64), slice(64, 128), slice(128, 191)]
    assert [len(attention._parts(time)) for time in (512, 1024, 2048)] == [8, 8, 16]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_each_row_attends_to_itself_only(dtype: torch.dtype) -> None:
    packed = states(4, 2, 20, batch=1, dtype=dtype)
    output, _ = attention.attend(LAYER, *packed, None, segments=Segments((9, 4, 7), CPU))
    for start, end in ((0, 9), (9, 13), (13, 20)):
        alone = [rows[:, :, start:end] for rows in packed]
        wanted = scaled_dot_product_attention(*alone, is_causal=True, enable_gqa=True).transpose(1, 2)
        torch.testing.assert_close(
            output[:, start:end], wanted, rtol=0.02, atol=1e-9 if dtype == torch.float64 else 0.01
        )


def test_without_segments_a_mask_is_obeyed() -> None:
    rows = states(2, 2, 6)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    mask[:, :, 2:, 0] = False
    output, _ = attention.attend(LAYER, *rows, mask)
    torch.testing.assert_close(output, scaled_dot_product_attention(*rows, attn_mask=mask).transpose(1, 2))


def test_a_sliding_window_still_hides_what_lies_before_it() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4}
    config = AutoConfig.for_model("mistral", **(sizes | heads))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    attention.use(model)

    def last_loss(first: int) -> float:
        ids = np.array([first, *range(2, 12)])
        return summed_loss(model, pack([Row(ids, np.arange(11) == 10)], CPU)).item()

    assert last_loss(1) == pytest.approx(last_loss(40), abs=1e-6)


def test_a_model_that_attends_in_its_own_way_keeps_it(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation="eager")
    attention.use(model)
    assert model.config._attn_implementation == "eager"


def test_a_bf16_model_s_gradients_are_as_near_to_fp32_as_with_sdpa(tiny_model: Path) -> None:
    rows = [Row(3 + np.arange(start, start + 40) * 7 % 200, np.ones(40)) for start in range(3)]

    def gradients(dtype: torch.dtype, implementation: str) -> torch.Tensor:
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)
        model.set_attn_implementation(implementation)
        summed_loss(model, pack(rows, CPU)).backward()
        return torch.cat([weight.grad.float().flatten() for weight in model.parameters() if weight.grad is not None])

    exact = gradients(torch.float32, "sdpa")
    plain, ours = (gradients(torch.bfloat16, name) for name in ("sdpa", attention.NAME))
    assert (ours - exact).norm() < 1.5 * (plain - exact).norm()
