"""One training with Luthier's own loop, measured. Called by compare.py."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from meter import Meter, heldout_loss
from task import ALPHA, RANK, Result, Row, Task, main

from luthier import recipe
from luthier.model import loading, methods
from luthier.model.device import pick_precision
from luthier.train import loop, order


@dataclass(frozen=True)
class ArrayRow:
    ids: np.ndarray
    loss_mask: np.ndarray


class ArrayRows:
    """Rows as the loop wants them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [ArrayRow(np.array(row.ids), np.array(row.loss_mask)) for row in rows]

    @property
    def lengths(self) -> list[int]:
        return [len(row.ids) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> ArrayRow:
        return self.rows[number]

    def location(self, number: int) -> str:
        return f"row {number}"


def same_steps(lengths: list[int], *, steps: int, epochs: int, seed: int) -> int:
    """The smallest token budget per step with which these epochs take no more steps than TRL's batches of 8 do."""
    budget = epochs * sum(lengths) // steps
    while count_steps(lengths, budget, epochs=epochs, seed=seed) > steps:
        budget += 8
    return budget


def count_steps(lengths: list[int], budget: int, *, epochs: int, seed: int) -> int:
    """How many steps of this many tokens the epochs take."""
    tokens = {"tokens_per_step": budget, "tokens_per_batch": budget}
    return len(order.Steps(lengths, epochs=epochs, max_steps=None, seed=seed, **tokens))


def run(task: Task, after_step: Callable[[int], None] = lambda number: None) -> Result:
    """Train, and tell; `after_step` is called with each step's number once it has been timed, and its time does not count."""
    rows = task.read_rows()
    train = ArrayRows(rows.train)
    device = torch.device(task.device)
    wanted = task.epochs * -(-len(train) // 8)
    budget = task.tokens_per_step or same_steps(train.lengths, steps=wanted, epochs=task.epochs, seed=task.seed)
    steps = task.max_steps or count_steps(train.lengths, budget, epochs=task.epochs, seed=task.seed)
    precision, _ = pick_precision(device)
    settings = recipe.Train(
        method=task.method,
        epochs=task.epochs,
        max_steps=task.max_steps,
        learning_rate=task.rate,
        schedule="linear",
        warmup_steps=0,
        tokens_per_step=budget,
        tokens_per_batch=budget,
        check_every=steps,
        precision=precision,
        lora_rank=RANK,
        lora_alpha=ALPHA,
        seed=task.seed,
    )
    model = prepared(rows.folder, settings, device)
    meter = Meter(steps=steps, warmup=task.warmup, device=task.device)

    def record(kind: str, **fields: object) -> None:
        if kind == "step":
            meter.step(int(str(fields["tokens"])))
            after_step(len(meter.times))
            meter.aside[-1] = time.perf_counter() - meter.times[-1]

    with tempfile.TemporaryDirectory() as folder:
        meter.start()
        outcome = loop.train(model, train, ArrayRows(rows.dev), settings, checkpoints=Path(folder), record=record)
        meter.phase()
    del model
    result = prepared(rows.folder, settings, device)  # what a user gets: fp32 masters in a model as it was loaded
    for name, parameter in result.named_parameters():
        if name in outcome.weights:
            parameter.data = outcome.weights[name].to(device)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    setting: dict[str, object] = {"precision": precision, "tokens_per_step": budget}
    return meter.result(f"luthier {task.method}", heldout_loss(result, rows.dev), versions, setting)


def prepared(folder: str, settings: recipe.Train, device: torch.device) -> loading.CausalModel:
    """The base model with what its method adds."""
    assert settings.method
    return methods.resolve(settings.method).prepare(loading.load(folder, device=device).model, settings)


if __name__ == "__main__":
    main(run)
