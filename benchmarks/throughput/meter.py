"""What is measured, the same way on both sides: time per step, the process's memory in three phases, held-out loss.

Imports the standard library only (torch inside the one function that needs it), so either environment can use it.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

Learn = Literal["all", "answers"]


class Row(NamedTuple):
    """Token ids and which of them are learnt."""

    ids: list[int]
    learn: list[bool]


@dataclass(frozen=True)
class Rows:
    """What `records.py` wrote, with one choice of what is learnt."""

    folder: str
    train: list[Row]
    dev: list[Row]


def read_rows(file: Path, learn: Learn) -> Rows:
    """The rows; `all` learns every token but the first, `answers` the answer and the token that ends it."""
    content = json.loads(file.read_text(encoding="utf-8"))
    train, dev = (
        [Row(row["ids"], row["answer"] if learn == "answers" else [True] * len(row["ids"])) for row in content[part]]
        for part in ("train", "dev")
    )
    return Rows(content["folder"], train, dev)


@dataclass(frozen=True)
class Result:
    """One measured training."""

    arm: str
    steps: int
    tokens: int
    tokens_per_second: float
    peak_loading: float
    peak_training: float
    peak_finishing: float
    heldout_loss: float
    versions: dict[str, str]
    setting: dict[str, object] = field(default_factory=dict)

    @property
    def peak(self) -> float:
        """Largest resident memory of the whole process, in GB: what getrusage calls ru_maxrss."""
        return max(self.peak_loading, self.peak_training, self.peak_finishing)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> "Result":
        return cls(**json.loads(file.read_text(encoding="utf-8")))


class Meter:
    """A stopwatch over optimizer steps that also reads the memory's high-water mark of each phase.

    Linux keeps the mark (VmHWM) and lets a process set it back, so no peak between two samples is missed.
    """

    def __init__(self, *, steps: int, warmup: int) -> None:
        """Call `start` before the first step and `step` after each; the first `warmup` steps do not count."""
        self.steps = steps
        self.warmup = warmup
        self.times: list[float] = []
        self.tokens: list[int] = []
        self.peaks: list[float] = []

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
        self.times.append(time.perf_counter())
        self.tokens.append(tokens)
        if len(self.times) == self.steps:
            self.phase()

    def result(self, arm: str, heldout_loss: float, versions: dict[str, str], setting: Mapping[str, object]) -> Result:
        """Speed from the end of the last warm-up step to the end of the last step. The last phase has ended before."""
        assert len(self.times) == self.steps > self.warmup >= 1, (
            f"{len(self.times)} of {self.steps} steps were measured"
        )
        counted = sum(self.tokens[self.warmup :])
        speed = counted / (self.times[-1] - self.times[self.warmup - 1])
        loading, training, finishing = self.peaks
        return Result(
            arm,
            self.steps,
            sum(self.tokens),
            speed,
            loading,
            training,
            finishing,
            heldout_loss,
            versions,
            dict(setting),
        )


def heldout_loss(model: "torch.nn.Module", rows: list[Row]) -> float:
    """Mean −log p per learnt token, in nats: fp32, one row at a time, plain transformers forward, no padding."""
    import torch

    model.float().eval()
    total, learnt = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.ids])
            scores = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(scores, ids[0, 1:], reduction="none")
            wanted = torch.tensor(row.learn[1:])
            total += float(losses[wanted].double().sum())
            learnt += int(wanted.sum())
    return total / learnt
