"""Attention inside the rows of a packed batch gives what transformers' own gives, and steps aside where it must."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.model import attention, packed
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
    monkeypatch.setattr(attention, "BLOCKS", (part, part))
    ours, theirs = states(heads, groups, 19), states(heads, groups, 19)
    output = attention.attend_by_products(*ours, 0.3)
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
    assert torch.autograd.gradcheck(lambda *rows: attention.attend_by_products(*rows, 0.5), states(2, 1, 5))


def test_a_row_is_taken_in_parts_of_about_equal_length() -> None:
    assert attention._query_blocks(95, 95) == [(slice(0, 95), 95)]
    assert attention._query_blocks(191, 191) == [(slice(0, 64), 64), (slice(64, 128), 128), (slice(128, 191), 191)]
    assert attention._query_blocks(128, 200) == [
        (slice(0, 64), 136),
        (slice(64, 128), 200),
    ]  # the last 128 of 200 places
    assert [len(attention._query_blocks(time, time)) for time in (512, 1024, 2048)] == [8, 8, 16]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_each_row_attends_to_itself_only(dtype: torch.dtype) -> None:
    together = states(4, 2, 20, batch=1, dtype=dtype)
    output, _ = attention.attend(LAYER, *together, None, segments=Segments((9, 4, 7), CPU))
    for start, end in ((0, 9), (9, 13), (13, 20)):
        alone = [rows[:, :, start:end] for rows in together]
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
    attention.install_attention(model)

    def last_loss(first: int) -> float:
        ids = np.array([first, *range(2, 12)])
        return summed_loss(model, pack([Row(ids, np.arange(11) == 10)], CPU)).item()

    assert last_loss(1) == pytest.approx(last_loss(40), abs=1e-6)


def test_a_model_that_attends_in_its_own_way_keeps_it(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation="eager")
    attention.install_attention(model)
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


def test_rows_of_like_length_share_a_bucket_and_a_long_one_costs_no_other() -> None:
    assert packed.group_by_length((10, 512, *[10] * 49), 64**2) == [[1], [0, *range(2, 51)]]
    assert packed.group_by_length((95, 100, 90), 64**2) == [[1, 0, 2]]  # 975 + 1,900 pairs more
    assert packed.group_by_length((7, 7), 0) == [[0, 1]]


def test_pairs_of_tokens_are_those_of_each_row_and_a_little_padding() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        lengths = tuple(generator.integers(1, generator.integers(2, 600), 40).tolist())
        buckets = Segments(lengths, CPU).buckets
        pairs = sum(bucket.rows * bucket.longest**2 for bucket in buckets)
        assert pairs <= sum(length**2 for length in lengths) + len(buckets) * 64**2
        assert sorted(torch.cat([bucket.own.indices for bucket in buckets]).tolist()) == list(range(sum(lengths)))
    # the reviewed batch: 512 and 50 times 10 took 51 rows of 512, 13.4 million pairs
    assert sum(bucket.rows * bucket.longest**2 for bucket in Segments((512, *[10] * 50), CPU).buckets) == 267_144


@pytest.mark.parametrize("padding", [0, 40, 64**2])
def test_buckets_change_neither_output_nor_gradient(padding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packed.PADDED, "cpu", padding)
    lengths = (3, 11, 4, 3, 9, 1)
    ours, theirs = states(4, 2, 31, batch=1), states(4, 2, 31, batch=1)
    output, _ = attention.attend(LAYER, *ours, None, segments=Segments(lengths, CPU))
    rows = zip(*(part.split(lengths, dim=2) for part in theirs), strict=True)
    alone = [scaled_dot_product_attention(*row, is_causal=True, enable_gqa=True).transpose(1, 2) for row in rows]
    wanted = torch.cat(alone, dim=1)
    torch.testing.assert_close(output, wanted)
    direction = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=wanted.dtype)
    output.backward(direction)
    wanted.backward(direction)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_no_mask_is_made_where_none_is_needed(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **named: object) -> None:
        raise AssertionError("a mask was made")

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    rows = [Row(np.arange(5, 5 + length), np.ones(length)) for length in (9, 30)]
    wanted = summed_loss(model, pack(rows, CPU))
    attention.install_attention(model)
    monkeypatch.setattr(attention, "sdpa_mask", refused)
    torch.testing.assert_close(summed_loss(model, pack(rows, CPU)), wanted)
    with pytest.raises(AssertionError, match="a mask was made"):  # of a padded batch, which is nobody's packed rows
        model(torch.ones(2, 4, dtype=torch.long), attention_mask=torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]))


def test_attention_of_another_kind_gets_the_mask_that_was_left_out() -> None:
    ours = states(2, 2, 6, batch=1)
    segments = Segments((4, 2), CPU)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:4, :4], mask[4:, 4:] = torch.ones(4, 4).tril(), torch.ones(2, 2).tril()
    assert torch.equal(segments.mask[0, 0], mask)
    output, _ = attention.attend(LAYER, *ours, None, segments=segments, s_aux=1.0)
    torch.testing.assert_close(output, scaled_dot_product_attention(*ours, attn_mask=mask).transpose(1, 2))
