"""Memory that runs out is told with numbers and with what to change, and nothing else is taken for it."""

import pytest
import torch

from luthier.errors import MachineError
from luthier.model import memory

TORCH = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 3000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError(TORCH), "not enough memory to train: 3.0 GB more were asked for"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"),
            "2.00 GiB more were asked for",
        ),
        (MemoryError("Unable to allocate 8.00 GiB for an array"), "Unable to allocate 8.00 GiB for an array"),
        (MemoryError(), "not enough memory to train: "),
    ],
)
def test_memory_that_runs_out_is_told_with_what_was_needed(error: Exception, words: str) -> None:
    with pytest.raises(MachineError) as caught, memory.explain_out_of_memory("to train"):
        raise error
    assert words in str(caught.value) and "name a smaller model" in str(caught.value)


def test_what_torch_says_today_is_understood() -> None:
    with pytest.raises(MachineError, match="more were asked for"), memory.explain_out_of_memory("to train"):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory.explain_out_of_memory("to train"):
        raise RuntimeError("shapes do not match")
