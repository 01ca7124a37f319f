"""On which device and in which dtype to compute: measured, not looked up."""

import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["bf16", "fp32"]
DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
SMALL, LARGE = 256, 1024
"""Rows of the square matrices of a timed matmul: a small one shows emulation in milliseconds, a large one the speed."""
EMULATED = 0.25
"""bf16 below this share of fp32's speed is emulated; a large matmul, 2 s of processor time there, would say the same."""
WORTH_IT = 1.3
TRIALS = 15
TRIAL_SECONDS = 0.12
"""Processor time for the trials of one size."""
LONG_ENOUGH = 0.002
"""Seconds of a matmul that shows how fast larger ones would be."""
ROWS = 32
"""Of the states that a linear layer is timed with: a batch that is written, or a short prompt."""


def pick_device() -> torch.device:
    """The accelerator if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(device: torch.device) -> tuple[Precision, str]:
    """The precision of training, with the reason: bf16 where its matmuls are at least 1.3 times as fast."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
        return ("bf16", "the GPU computes bf16 natively") if fast else ("fp32", "the GPU has no native bf16")
    ratio = _bf16_speed()
    if ratio >= 1:
        reason = f"matrix multiplication in bf16 is {ratio:.1f} times as fast as in fp32 here"
    else:
        reason = f"matrix multiplication in bf16 takes {1 / ratio:.1f} times as long as in fp32 here"
    return "bf16" if ratio >= WORTH_IT else "fp32", reason


def matmul_flops_per_second(precision: Precision, device: torch.device) -> float:
    """Floating-point operations per second of large matmuls, timed for some milliseconds."""
    if device.type != "cpu":
        return 2 * 8192**3 / min(_time_matmul(DTYPES[precision], 8192, device) for _ in range(5))
    size = SMALL // 2
    while True:
        _time_matmul(DTYPES[precision], size)  # the first makes the kernel
        seconds = min(_time_matmul(DTYPES[precision], size) for _ in range(3))
        if seconds > LONG_ENOUGH or size == LARGE:
            break
        size *= 2
    return 2 * size**3 / seconds


def _bf16_speed() -> float:
    """How many times as fast as in fp32 the processor multiplies matrices in bf16, known in 0.3 s whatever the answer."""
    ratio = _compare(SMALL)
    return ratio if ratio < EMULATED else _compare(LARGE)


def _compare(size: int) -> float:
    """The speed of bf16 in matmuls of this size as a multiple of fp32's."""
    start = time.process_time()
    seconds = dict.fromkeys(DTYPES, float("inf"))
    for dtype in DTYPES.values():
        _time_matmul(dtype, size)  # the first makes the kernel
    for _ in range(TRIALS):  # in turns, and the best of each, so that a busy moment misleads neither
        for name, dtype in DTYPES.items():
            seconds[name] = min(seconds[name], _time_matmul(dtype, size))
        if time.process_time() - start > TRIAL_SECONDS:
            break
    return seconds["fp32"] / seconds["bf16"]


def onednn_is_faster() -> bool:
    """Whether oneDNN computes a linear layer in fp32 on this processor clearly faster than what torch itself takes."""
    if not torch.backends.mkldnn.is_available():
        return False
    own = onednn = float("inf")
    for trial in range(TRIALS + 1):  # in turns, as above; the first makes the kernels
        seconds = _time_linear(nn.functional.linear), _time_linear(_by_onednn)
        if trial:
            own, onednn = min(own, seconds[0]), min(onednn, seconds[1])
    return own >= WORTH_IT * onednn


@torch.inference_mode()
def _time_linear(linear: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Seconds of a linear layer in fp32 on a few states."""
    states, weight = torch.ones(ROWS, LARGE), torch.ones(LARGE, LARGE)
    start = time.perf_counter()
    linear(states, weight)
    return time.perf_counter() - start


def _by_onednn(states: Tensor, weight: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, None, "none", [], "")
    return product


def _time_matmul(dtype: torch.dtype, size: int, device: torch.device | None = None) -> float:
    """Seconds of one matmul of two square matrices."""
    left = torch.ones(size, size, dtype=dtype, device=device)
    start = time.perf_counter()
    (left @ left)[0, 0].item()  # waits for a GPU
    return time.perf_counter() - start
