"""The number format is chosen by timing products, and a processor that emulates bf16 is never asked for a large one."""

import pytest
import torch

from luthier.model import device

CPU = torch.device("cpu")


def timed(monkeypatch: pytest.MonkeyPatch, bf16: float) -> list[tuple[torch.dtype, int]]:
    """Products take the seconds of a processor with 100 GFLOP/s in fp32 and `bf16` times that; lists what was tried."""
    tried: list[tuple[torch.dtype, int]] = []

    def seconds(dtype: torch.dtype, size: int, device: torch.device | None = None) -> float:
        tried.append((dtype, size))
        return 2 * size**3 / (1e11 * (bf16 if dtype == torch.bfloat16 else 1))

    monkeypatch.setattr(device, "_time_matmul", seconds)
    return tried


@pytest.mark.parametrize(
    ("speed", "choice", "told"),
    [
        (3.0, "bf16", "matrix multiplication in bf16 is 3.0 times as fast as in fp32 here"),
        (1.2, "fp32", "matrix multiplication in bf16 is 1.2 times as fast as in fp32 here"),
        (0.8, "fp32", "matrix multiplication in bf16 takes 1.2 times as long as in fp32 here"),
        (0.01, "fp32", "matrix multiplication in bf16 takes 100.0 times as long as in fp32 here"),
    ],
)
def test_bf16_is_chosen_where_it_is_faster_and_the_reason_is_a_true_sentence(
    monkeypatch: pytest.MonkeyPatch, speed: float, choice: str, told: str
) -> None:
    timed(monkeypatch, speed)
    assert device.pick_precision(CPU) == (choice, told)


def test_where_bf16_is_emulated_only_small_products_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = timed(monkeypatch, 0.01)
    device.pick_precision(CPU)
    assert {size for _, size in tried} == {device.SMALL}
    assert len(tried) <= 2 + 2 * device.TRIALS


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_speed_is_told_by_the_smallest_product_that_takes_a_while(
    monkeypatch: pytest.MonkeyPatch, precision: device.Precision
) -> None:
    tried = timed(monkeypatch, 0.01)
    speed = device.matmul_flops_per_second(precision, CPU)
    assert speed == pytest.approx(1e11 if precision == "fp32" else 1e9)
    assert max(size for _, size in tried) == (512 if precision == "fp32" else 128)


def test_the_chosen_format_is_one_that_this_machine_computes_in() -> None:
    choice, reason = device.pick_precision(CPU)
    assert choice in device.DTYPES and "as in fp32 here" in reason


@pytest.mark.parametrize(("own", "onednn", "faster"), [(3.0, 1.0, True), (1.2, 1.0, False), (1.0, 3.0, False)])
def test_onednn_is_taken_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, own: float, onednn: float, faster: bool
) -> None:
    seconds = {torch.nn.functional.linear: own, device._by_onednn: onednn}
    monkeypatch.setattr(device, "_time_linear", lambda linear: seconds[linear])
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert device.onednn_is_faster() is faster


def test_a_torch_without_onednn_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert device.onednn_is_faster() is False
