"""What is measured, the same way on all sides: time per step, the process's memory in three phases, held-out loss.

Imports the standard library only (torch inside the functions that need it), so every environment can use it.
"""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from task import Result, Row

if TYPE_CHECKING:
    import torch


class Meter:
    """A stopwatch over optimizer steps that also reads the memory's high-water mark of each phase.

    Linux keeps the mark (VmHWM) and lets a process set it back, so no peak between two samples is missed.
    """

    def __init__(self, *, steps: int, warmup: int, device: str = "cpu") -> None:
        """Call `start` before the first step and `step` after each; the first `warmup` steps do not count."""
        self.steps = steps
        self.warmup = warmup
        self.device = device
        self.times: list[float] = []
        self.tokens: list[int] = []
        self.aside: list[float] = []
        """Seconds after each step that are not the training's."""
        self.peaks: list[float] = []
        self.peak_device: float | None = None

    def phase(self) -> None:
        """A phase ends here: note its peak, in GB."""
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found, "no VmHWM in /proc/self/status: this benchmark needs Linux"
        self.peaks.append(int(found.group(1)) * 1024 / 1e9)
        Path("/proc/self/clear_refs").write_text("5")

    def start(self) -> None:
        self.phase()

    def step(self, tokens: int) -> None:
        """A step is done, which saw this many tokens that are not padding."""
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()
            self.peak_device = torch.cuda.max_memory_allocated() / 1e9
        self.times.append(time.perf_counter())
        self.tokens.append(tokens)
        self.aside.append(0.0)
        if len(self.times) == self.steps:
            self.phase()

    def result(self, arm: str, heldout_loss: float, versions: dict[str, str], setting: Mapping[str, object]) -> Result:
        """Speed from the end of the last warm-up step to the end of the last step. The last phase has ended before."""
        assert len(self.times) == self.steps > self.warmup >= 1, (
            f"{len(self.times)} of {self.steps} steps were measured"
        )
        counted = sum(self.tokens[self.warmup :])
        speed = counted / (self.times[-1] - self.times[self.warmup - 1] - sum(self.aside[self.warmup - 1 : -1]))
        return Result(
            arm, self.steps, sum(self.tokens), speed, *self.peaks, heldout_loss, versions, dict(setting),
            self.peak_device,
        )  # fmt: skip


def heldout_loss(model: "torch.nn.Module", rows: list[Row]) -> float:
    """Mean −log p per learnt token, in nats: fp32, one row at a time, plain forward pass, no padding."""
    import torch

    model.float().eval()
    device = next(model.parameters()).device
    total, learnt = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.ids], device=device)
            scores = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(scores, ids[0, 1:], reduction="none")
            wanted = torch.tensor(row.loss_mask[1:], device=device)
            total += float(losses[wanted].double().sum())
            learnt += int(wanted.sum())
    return total / learnt
