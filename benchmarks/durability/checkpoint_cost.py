"""Measures what durability costs on a real model: saving, the share of training time, and the way back to the first step.

Trains from `steps` for a few saves at the default interval, then resumes in a fresh process. The order of rows is timed alone,
for a million rows at its last step.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.data.prepared import PreparedRow
from luthier.errors import Interrupted
from luthier.model import loading
from luthier.model.device import matmul_flops_per_second, pick_device, pick_precision
from luthier.pipeline import defaults
from luthier.recipe import Train
from luthier.runs import manifest
from luthier.train import loop, order

ROWS, LENGTH = 2_000, 110  # of short chats
SAVES = 3


class Rows:
    """Rows of random tokens, a third of them learnt: the cost does not depend on what they say."""

    def __init__(self, number: int, vocabulary: int) -> None:
        generator = np.random.default_rng(0)
        self.lengths: list[int] = generator.integers(LENGTH // 2, LENGTH * 3 // 2, number).tolist()
        self._vocabulary = vocabulary

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> PreparedRow:
        length = self.lengths[number]
        ids = np.random.default_rng(number).integers(0, self._vocabulary, length).astype(np.int32)
        return PreparedRow(ids, np.arange(length) >= length * 2 // 3)

    def location(self, number: int) -> str:
        return f"row {number}"


def settings(rows: Rows, method: str) -> Train:
    """What a run on such rows would use."""
    precision, _ = pick_precision(pick_device())
    step = 1024
    epochs = 3
    values: dict[str, Any] = {
        "method": method, "epochs": epochs, "learning_rate": 1e-4, "warmup_steps": 5, "tokens_per_step": step,
        "tokens_per_batch": step, "precision": precision, "patience": 99, "max_steps": 10_000,
    }  # fmt: skip
    steps = order.Steps(
        rows.lengths, epochs=epochs, max_steps=None, seed=0, tokens_per_step=step, tokens_per_batch=step
    )
    named = {f"train.{key}": value for key, value in values.items()}
    speed = matmul_flops_per_second(precision, pick_device())
    every, _ = defaults.check_interval(named, steps=len(steps), products_per_second=speed)
    return Train(**(values | {"check_every": every}))


def train(folder: Path, name: str, method: str, *, saves: int) -> dict[str, Any]:
    """Train until the folder has `saves` more checkpoints; the events' times, and those on the way to the first step."""
    lm = loading.load(name)
    loaded = time.perf_counter()
    model = loading.add_adapters(lm.model, rank=16, alpha=32, seed=0) if method == "lora" else lm.model
    rows, dev = Rows(ROWS, lm.model.config.vocab_size), Rows(4, lm.model.config.vocab_size)
    learns = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    config = settings(rows, method)
    events: list[tuple[float, str, dict[str, Any]]] = []
    written = 0

    def record(kind: str, **fields: object) -> None:
        nonlocal written
        events.append((time.perf_counter(), kind, fields))
        written += kind == "checkpoint"

    with contextlib.suppress(Interrupted):
        loop.train(model, rows, dev, config, checkpoints=folder, record=record, stop=lambda: written >= saves)
    steps = [fields["tokens"] / fields["tokens_per_second"] for _, kind, fields in events if kind == "step"]
    first = next(at for at, kind, _ in events if kind == "step") - steps[0]
    return {
        "interval": config.check_every,
        "precision": config.precision,
        "learns": learns,
        "step": statistics.median(steps),
        "save": [fields["seconds"] for _, kind, fields in events if kind == "checkpoint"],
        "to first step": first - loaded,
        "resumed": [fields["step"] for _, kind, fields in events if kind == "resumed"],
        "bytes": sum(file.stat().st_size for file in manifest.folders(folder)[0].iterdir()),
    }


def order_seconds(rows: int, epochs: int) -> float:
    """Seconds from the lengths to the very last step of a long training."""
    lengths = np.random.default_rng(0).integers(50, 150, rows).tolist()
    first = order.Steps(lengths, epochs=1, max_steps=None, seed=0, tokens_per_step=16_384, tokens_per_batch=1024)
    last = len(first) * epochs
    start = time.perf_counter()
    order.Steps(lengths, epochs=epochs, max_steps=last, seed=0, tokens_per_step=16_384, tokens_per_batch=1024)[last - 1]
    return time.perf_counter() - start


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--model", default="smollm2-135m")
    words.add_argument("--method", choices=["full", "lora"], action="append", help="both when not given")
    words.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one when not given")
    words.add_argument("--part", nargs=2, metavar=("FOLDER", "SAVES"), help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.part:
        print(json.dumps(train(Path(asked.part[0]), asked.model, asked.method[0], saves=int(asked.part[1]))))
        return
    print(f"{asked.model}, {torch.get_num_threads()} threads, rows of about {LENGTH} tokens, 1,024 tokens a step\n")
    print(
        "| method | learns | checkpoint | save | step | default interval | share of training time | load to first step |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for method in asked.method or ["full", "lora"]:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            parts = [
                json.loads(
                    subprocess.run(
                        [sys.executable, __file__, "--model", asked.model, "--method", method, "--part", folder, str(saves)],
                        stdout=subprocess.PIPE, text=True, check=True,
                    ).stdout
                )
                for saves in (SAVES, 1)
            ]  # fmt: skip
        first, again = parts
        save = statistics.median(first["save"])
        share = save / (save + first["interval"] * first["step"])
        assert again["resumed"], "the second process did not resume"
        print(
            f"| {method}, {first['precision']} | {first['learns'] / 1e6:.1f} M | {first['bytes'] / 1e9:.2f} GB | "
            f"{save:.2f} s | "
            f"{first['step']:.2f} s | {first['interval']} steps | {100 * share:.1f} % | {again['to first step']:.1f} s |"
        )
    for rows, epochs in ((1_000_000, 3), (1_000_000, 20)):
        print(
            f"\nThe last step of {epochs} epochs of {rows:,} rows is worked out in {order_seconds(rows, epochs):.2f} s.",
            end="",
        )
    print()


if __name__ == "__main__":
    main()
