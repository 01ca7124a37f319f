"""What one measured training is asked for, and what it tells: the two files between compare.py and the process that trains.

Imports the standard library only, so every environment can use it.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

Learn = Literal["all", "answers"]
Method = Literal["full", "lora"]
RANK, ALPHA = 16, 32  # of LoRA's adapters, beside every linear layer of the blocks, without dropout


class Row(NamedTuple):
    """Token ids and which of them are learnt."""

    ids: list[int]
    loss_mask: list[bool]


@dataclass(frozen=True)
class Rows:
    """What `records.py` wrote, with one choice of what is learnt."""

    folder: str
    train: list[Row]
    dev: list[Row]


@dataclass(frozen=True)
class Task:
    """One training. `rows` is a file of `records.py`."""

    rows: str
    setting: str = "default"
    learn: Learn = "all"
    method: Method = "full"
    epochs: int = 1
    max_steps: int | None = None
    rate: float = 1e-4
    warmup: int = 2
    seed: int = 0
    tokens_per_step: int | None = None
    device: str = "cpu"
    smoke: bool = False  # as little as shows that it works

    def read_rows(self) -> Rows:
        """The rows; `all` learns every token but the first, `answers` the answer and the token that ends it."""
        content = json.loads(Path(self.rows).read_text(encoding="utf-8"))
        train, dev = (
            [
                Row(row["ids"], row["answer"] if self.learn == "answers" else [True] * len(row["ids"]))
                for row in content[part]
            ]
            for part in ("train", "dev")
        )
        return Rows(content["folder"], train, dev)

    def order(self) -> list[int]:
        """The order in which ours takes the rows with this seed."""
        order: list[int] = json.loads(Path(self.rows).read_text(encoding="utf-8"))["orders"][self.seed]
        return order


@dataclass(frozen=True)
class Result:
    """One measured training. Memory is in GB."""

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
    peak_device: float | None = None

    @property
    def peak(self) -> float:
        """Largest resident memory of the whole process: what getrusage calls ru_maxrss. On a GPU, the most it held there."""
        return self.peak_device or max(self.peak_loading, self.peak_training, self.peak_finishing)


def main(run: Callable[[Task], Result]) -> None:
    """The whole of a process that trains: `python run_SIDE.py TASK.json RESULT.json`."""
    task, result = (Path(argument) for argument in sys.argv[1:])
    found = run(Task(**json.loads(task.read_text(encoding="utf-8"))))
    result.write_text(json.dumps(asdict(found)), encoding="utf-8")
