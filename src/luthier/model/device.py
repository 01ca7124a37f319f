"""Where and in which number format to compute: measured, not looked up."""

import time
from typing import Literal

import torch

Precision = Literal["bf16", "fp32"]
TRIALS = 15
DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}


def pick_device() -> torch.device:
    """The accelerator if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(device: torch.device) -> tuple[Precision, str]:
    """The number format for training, with the reason: bf16 where its matrix products are at least 1.3 times as fast."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
        return ("bf16", "the GPU computes bf16 natively") if fast else ("fp32", "the GPU has no native bf16")
    seconds = dict.fromkeys(DTYPES, float("inf"))
    for _ in range(TRIALS):  # in turns, and the best of each, so that a busy moment misleads neither
        for name, dtype in DTYPES.items():
            seconds[name] = min(seconds[name], _time_product(dtype))
    ratio = seconds["fp32"] / seconds["bf16"]
    choice: Precision = "bf16" if ratio >= 1.3 else "fp32"
    return choice, f"matrix products in bf16 run {ratio:.1f} times as fast as in fp32 here"


def products_per_second(precision: Precision, device: torch.device) -> float:
    """Floating-point operations per second of large matrix products, by a timing of some milliseconds."""
    size = 1024 if device.type == "cpu" else 8192
    left = torch.ones(size, size, dtype=DTYPES[precision], device=device)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        (left @ left)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _time_product(dtype: torch.dtype, *, size: int = 1024) -> float:
    """Seconds of one product of two square matrices."""
    left = torch.ones(size, size, dtype=dtype)
    start = time.perf_counter()
    left @ left
    return time.perf_counter() - start
