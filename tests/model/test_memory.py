"""Memory that runs out is told with numbers and with what to change, and nothing else is taken for it."""

import platform
import subprocess
import sys
import threading

import pytest
import torch

from luthier.errors import MachineError
from luthier.model import memory
from luthier.recipe import Train

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
    with pytest.raises(MachineError) as caught, memory.errors("to train"):
        raise error
    assert words in str(caught.value) and "name a smaller model" in str(caught.value)


def test_what_torch_says_today_is_understood() -> None:
    with pytest.raises(MachineError, match="more were asked for"), memory.errors("to train"):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory.errors("to train"):
        raise RuntimeError("shapes do not match")


def test_the_smallest_change_comes_first() -> None:
    told = memory.to_train_with_less(Train(tokens_per_batch=1024, max_tokens=2048, method="full"))
    wanted = ["train.tokens_per_batch=512", "train.max_tokens=1024", "train.method=lora", "name a smaller model"]
    assert sorted(wanted, key=told.index) == wanted
    assert "lora" not in memory.to_train_with_less(Train(tokens_per_batch=1024, method="lora"))


HEAP = """
import resource
import torch
from luthier.model import memory

def pages_of_some_tensors():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(10_000_000, dtype=torch.uint8) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = memory.held()
with memory.reused():
    pages_of_some_tensors()
    print(min(pages_of_some_tensors() for _ in range(4)), memory.held() - before)
print(memory.held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep memory")
def test_memory_is_reused_inside_and_given_back_afterwards() -> None:
    told = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True).stdout
    pages, held, left = (int(word) for word in told.split())
    assert pages < 1_000 and held > 60_000_000 > left


def test_a_place_is_the_same_until_a_larger_one_is_needed_and_gone_at_the_end() -> None:
    def address(rows: int) -> int:
        return memory.place(rows, 3, torch.float32, torch.device("cpu")).data_ptr()

    with memory.reused():
        first = address(80)
        assert address(70) == first == address(80)
        assert memory.place(200, 3, torch.float32, torch.device("cpu")).shape == (200, 3)
        assert address(80) == address(200)
    assert memory._places.get() is None


def test_each_thread_s_training_has_places_of_its_own_and_leaves_the_other_s_settings() -> None:
    """Two trainings shared the buffer of the head, and the first to end switched off what the other had asked for."""
    inside, over = threading.Barrier(2), threading.Event()
    found: dict[str, torch.Tensor] = {}

    def train(name: str, number: float) -> None:
        with memory.reused():
            inside.wait(10)
            found[name] = memory.place(50, 3, torch.float32, torch.device("cpu")).fill_(number)
            inside.wait(10)
            if name == "second":
                over.wait(10)
                found["again"] = memory.place(50, 3, torch.float32, torch.device("cpu"))

    threads = [threading.Thread(target=train, args=each) for each in (("first", 1.0), ("second", 2.0))]
    for thread in threads:
        thread.start()
    threads[0].join()
    assert [request.trimmed for request in memory._requests] == [memory._NEVER]
    over.set()
    threads[1].join()
    assert found["first"].eq(1).all() and found["again"].eq(2).all()
    assert found["again"].data_ptr() == found["second"].data_ptr() and not memory._requests
