"""Memory of a training is reused while it runs, given back afterwards, and shared with no other training."""

import platform
import subprocess
import sys
import threading

import pytest
import torch

from luthier.model import allocator
from luthier.model.allocator import MemoryPool

HEAP = """
import resource
import torch
from luthier.model import allocator, memory

def pages_of_some_tensors():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(10_000_000, dtype=torch.uint8) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = memory.rss()
with allocator.MemoryPool().in_use():
    pages_of_some_tensors()
    print(min(pages_of_some_tensors() for _ in range(4)), memory.rss() - before)
print(memory.rss() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep memory")
def test_memory_is_reused_inside_and_given_back_afterwards() -> None:
    told = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True).stdout
    pages, held, left = (int(word) for word in told.split())
    assert pages < 1_000 and held > 60_000_000 > left


def address(rows: int) -> int:
    return allocator.buffer(rows, 3, torch.float32, torch.device("cpu")).data_ptr()


def test_a_pool_s_buffer_is_the_same_until_a_larger_one_is_needed_and_gone_at_the_end() -> None:
    pool = MemoryPool()
    with pool.in_use():
        first = address(80)
        assert address(70) == first == address(80)
        assert allocator.buffer(200, 3, torch.float32, torch.device("cpu")).shape == (200, 3)
        assert address(80) == address(200)
    assert not pool._buffers
    one, other = (allocator.buffer(80, 3, torch.float32, torch.device("cpu")) for _ in range(2))
    assert one.data_ptr() != other.data_ptr()  # without a pool each is a new one


def test_a_training_inside_another_has_buffers_of_its_own() -> None:
    with MemoryPool().in_use():
        outer = address(80)
        with MemoryPool().in_use():
            assert address(80) != outer
        assert address(80) == outer


def test_each_thread_s_training_has_a_pool_of_its_own_and_leaves_the_other_s_thresholds() -> None:
    """Two trainings shared the buffer of the head, and the first to end switched off what the other had asked for."""
    inside, over = threading.Barrier(2), threading.Event()
    found: dict[str, torch.Tensor] = {}

    def train(name: str, number: float) -> None:
        with MemoryPool().in_use():
            inside.wait(10)
            found[name] = allocator.buffer(50, 3, torch.float32, torch.device("cpu")).fill_(number)
            inside.wait(10)
            if name == "second":
                over.wait(10)
                found["again"] = allocator.buffer(50, 3, torch.float32, torch.device("cpu"))

    threads = [threading.Thread(target=train, args=each) for each in (("first", 1.0), ("second", 2.0))]
    for thread in threads:
        thread.start()
    threads[0].join()
    requests = allocator._MALLOC.requests
    assert [request.trimmed for request in requests] == [allocator._NEVER]
    over.set()
    threads[1].join()
    assert found["first"].eq(1).all() and found["again"].eq(2).all()
    assert found["again"].data_ptr() == found["second"].data_ptr() and not requests
