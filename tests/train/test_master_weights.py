"""A master split into a bf16 number and 16 bits is merged again to the last bit."""

import pytest
import torch

from luthier.train import master_weights
from luthier.train.master_weights import Master, Workspace


def every_kind_of_number() -> torch.Tensor:
    """Normal, tiny, huge and infinite numbers of both signs, halves between two bf16 numbers, and some 700,000 at random."""
    ends = [0.0, 1e-45, 1.1754944e-38, 3.4028235e38, float("inf")]
    halves = torch.tensor([0x3F808000, 0x3F818000, 0x7F7F8000], dtype=torch.int32).view(torch.float32)
    found = torch.cat([torch.tensor(ends), halves, torch.randn(700_000, generator=torch.Generator().manual_seed(0))])
    return torch.cat([found, -found])


def test_numbers_are_rounded_to_the_nearest_and_come_back_exactly() -> None:
    whole = every_kind_of_number()
    rounded, low_bits = torch.empty_like(whole, dtype=torch.bfloat16), torch.empty_like(whole, dtype=torch.int16)
    master_weights.split(whole, rounded, low_bits)
    assert torch.equal(master_weights.merge(rounded, low_bits, Workspace(0)).view(torch.int32), whole.view(torch.int32))
    between = low_bits == -(1 << 15)  # torch takes the even one of two equally near numbers
    assert torch.equal(rounded[~between], whole[~between].to(torch.bfloat16))
    assert between.sum() < 100


def test_a_master_takes_no_memory_beyond_four_bytes_a_weight_between_updates() -> None:
    start = torch.randn(300, 7)
    master = Master(torch.nn.Parameter(start.clone()), torch.bfloat16)
    assert master.parameter.dtype == torch.bfloat16 and torch.equal(master.tensor(), start)
    assert master.full.shape == start.shape and master.full.untyped_storage().nbytes() <= 4
    master.merge(Workspace(0))
    master.full.add_(1e-5)
    master.split()
    assert torch.equal(master.tensor(), start + 1e-5)
    master.load(start)
    assert torch.equal(master.tensor(), start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_is_not_in_fp32_is_no_start(dtype: torch.dtype) -> None:
    with pytest.raises(AssertionError, match=r"masters start from fp32"):
        Master(torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)), dtype)


def test_in_fp32_a_parameter_is_its_own_master() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    assert Master(parameter, torch.float32).full is parameter


def test_a_workspace_is_the_same_memory_after_it_was_cleared_and_more_is_found_elsewhere() -> None:
    workspace, rounded = Workspace(10), torch.zeros(2, 3, dtype=torch.bfloat16)
    first, second = workspace.empty_like(rounded), workspace.empty_like(rounded)
    assert first.shape == second.shape == (2, 3) and first.dtype == torch.float32
    assert first.untyped_storage().nbytes() == 40 and second.untyped_storage().nbytes() == 24
    workspace.clear()
    assert workspace.empty_like(rounded).data_ptr() == first.data_ptr()
