"""One training with Luthier's own loop, measured. Called by compare.py."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from meter import Learn, Meter, Result, Row, heldout_loss, read_rows

from luthier import recipe
from luthier.model import loading
from luthier.model.device import pick_precision
from luthier.train import loop, order


@dataclass(frozen=True)
class ArrayRow:
    ids: np.ndarray
    learn: np.ndarray


class ArrayRows:
    """Rows as the loop wants them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [ArrayRow(np.array(row.ids), np.array(row.learn)) for row in rows]

    @property
    def lengths(self) -> list[int]:
        return [len(row.ids) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> ArrayRow:
        return self.rows[number]

    def place(self, number: int) -> str:
        return f"row {number}"


def same_steps(lengths: list[int], *, steps: int, epochs: int, seed: int) -> int:
    """The smallest token budget per step with which these epochs take no more steps than TRL's batches of 8 do."""
    budget = epochs * sum(lengths) // steps
    while True:
        made = order.Steps(
            lengths, epochs=epochs, max_steps=None, seed=seed, tokens_per_step=budget, tokens_per_batch=budget
        )
        if len(made) <= steps:
            return budget
        budget += 8


def run(
    rows_file: Path, learn: Learn, *, epochs: int, max_steps: int | None, rate: float, warmup: int, seed: int
) -> Result:
    rows = read_rows(rows_file, learn)
    train = ArrayRows(rows.train)
    steps = epochs * -(-len(train) // 8)
    budget = same_steps(train.lengths, steps=steps, epochs=epochs, seed=seed)
    steps = max_steps or len(
        order.Steps(
            train.lengths, epochs=epochs, max_steps=None, seed=seed, tokens_per_step=budget, tokens_per_batch=budget
        )
    )
    precision, _ = pick_precision(torch.device("cpu"))
    settings = recipe.Train(
        epochs=epochs,
        max_steps=max_steps,
        learning_rate=rate,
        schedule="linear",
        warmup_steps=0,
        tokens_per_step=budget,
        tokens_per_batch=budget,
        check_every=steps,
        precision=precision,
        seed=seed,
    )
    model = loading.load(rows.folder, device=torch.device("cpu")).model
    meter = Meter(steps=steps, warmup=warmup)

    def record(kind: str, **fields: object) -> None:
        if kind == "step":
            meter.step(int(str(fields["tokens"])))

    with tempfile.TemporaryDirectory() as folder:
        meter.start()
        outcome = loop.train(model, train, ArrayRows(rows.dev), settings, checkpoints=Path(folder), record=record)
        meter.phase()
    for name, parameter in model.named_parameters():
        parameter.data = outcome.weights[name]
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    setting: dict[str, object] = {"precision": precision, "tokens_per_step": budget}
    return meter.result("luthier", heldout_loss(model, rows.dev), versions, setting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--learn", choices=["all", "answers"], default="all")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    result = run(
        given.rows,
        given.learn,
        epochs=given.epochs,
        max_steps=given.max_steps,
        rate=given.rate,
        warmup=given.warmup,
        seed=given.seed,
    )
    result.write(given.result)


if __name__ == "__main__":
    main()
