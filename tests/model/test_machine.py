"""What is measured of the machine is measured once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from luthier.model import device, machine

CPU = torch.device("cpu")


def forget() -> None:
    """As in another process."""
    machine._precision_here.cache_clear()
    machine._flops_here.cache_clear()
    machine.onednn_is_faster.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own cache folder, and a machine that says something else whenever it is asked."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    forget()
    answers = iter([("bf16", "1.4 times"), ("fp32", "1.2 times"), ("bf16", "1.5 times")])
    monkeypatch.setattr(device, "pick_precision", lambda where: next(answers))
    speeds = iter([1e11, 2e11, 3e11])
    monkeypatch.setattr(device, "matmul_flops_per_second", lambda precision, where: next(speeds))
    yield tmp_path / "cache"
    forget()


def test_a_timing_is_made_once_and_kept_for_other_processes(cache: Path) -> None:
    assert machine.precision(CPU) == ("bf16", "1.4 times")
    forget()
    assert machine.precision(CPU) == ("bf16", "1.4 times")
    assert [machine.matmul_flops_per_second(number, CPU) for number in ("bf16", "fp32", "bf16")] == [1e11, 2e11, 1e11]
    assert sorted(path.name for path in cache.iterdir()) == ["machine.json"]


@pytest.mark.parametrize("faster", [True, False])
def test_the_library_of_products_is_chosen_once(cache: Path, monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    answers = iter([faster, not faster])
    monkeypatch.setattr(device, "onednn_is_faster", lambda: next(answers))
    assert machine.onednn_is_faster() is faster
    forget()
    assert machine.onednn_is_faster() is faster


def test_another_limit_on_the_processor_is_another_machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert machine.precision(CPU)[0] == "bf16"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert machine.precision(CPU)[0] == "fp32"


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_file_is_measured_anew(cache: Path, content: str) -> None:
    cache.mkdir()
    (cache / "machine.json").write_text(content)
    assert machine.precision(CPU) == ("bf16", "1.4 times")
    forget()
    assert machine.precision(CPU) == ("bf16", "1.4 times")


def test_where_nothing_can_be_written_the_process_remembers(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert machine.precision(CPU) == machine.precision(CPU) == ("bf16", "1.4 times")
