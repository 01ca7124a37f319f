"""Tokens and time saved where prefixes that rows of a batch share are computed once: the same batches, both ways in turn.

Rows, steps and batches are those of `luthier run` with default settings. The time is that of the processor in the forward and
the backward pass, in one thread, so that others on the machine disturb it little.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import circumstances, write_section

from luthier.data.prefixes import SHARED_AT_LEAST
from luthier.model import attention, loading, recomputation
from luthier.model.allocator import MemoryPool
from luthier.model.head import summed_loss
from luthier.model.packed import Packed, pack
from luthier.pipeline import prepare
from luthier.recipe import Recipe
from luthier.train.order import Steps

MODEL = "smollm2-135m"
HEADING = "Shared prefixes"
CPU = torch.device("cpu")


@dataclass
class Row:
    ids: np.ndarray
    loss_mask: np.ndarray


def batches(file: Path) -> list[list[Row]]:
    """The batches of the first epoch; where the rows are pairs, each with both answers."""
    train: dict[str, Any] = {"objective": "dpo"} if "preferences" in file.name else {}
    made = prepare(Recipe.model_validate({"data": {"path": str(file)}, "model": MODEL, "train": train}))
    encoded = [row for _, row in made.rows["train"]]
    groups = [
        [Row(np.array(one.ids), np.array(one.loss_mask)) for one in (row, row.rejected) if one is not None]
        for row in encoded
    ]
    settings = made.recipe.train
    assert settings.tokens_per_step and settings.tokens_per_batch
    steps = Steps(
        [sum(len(row.ids) for row in group) for group in groups], epochs=1, max_steps=None, seed=settings.seed,
        tokens_per_step=settings.tokens_per_step, tokens_per_batch=settings.tokens_per_batch,
    )  # fmt: skip
    return [[row for number in batch for row in groups[number]] for step in steps for batch in step.batches]


def packed(rows: Sequence[Row]) -> tuple[Packed, Packed]:
    """A batch with shared prefixes, and with whole rows."""
    return pack(rows, CPU, share_at_least=SHARED_AT_LEAST), pack(rows, CPU)


def ratios(model: Any, found: Sequence[Sequence[Row]]) -> Iterator[float]:
    """The time of a batch with shared prefixes as a share of its time with whole rows."""

    def seconds(batch: Packed) -> float:
        model.zero_grad(set_to_none=True)
        start = time.process_time()
        summed_loss(model, batch).backward()
        return time.process_time() - start

    for number, rows in enumerate(found):
        shared, whole = packed(rows)
        if number % 2:
            first = seconds(shared)
            yield first / seconds(whole)
        else:
            first = seconds(whole)
            yield seconds(shared) / first


def main() -> None:
    words = argparse.ArgumentParser(prog="prefix_sharing", description=__doc__)
    words.add_argument("files", nargs="+", type=Path, help="data files; pairs where a name has `preferences` in it")
    words.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    words.add_argument(
        "--pairs", type=int, default=6, help="batches that are timed both ways, per file; 0: count tokens only"
    )
    words.add_argument(
        "--write", action="store_true", help="rewrite the part of benchmarks/RESULTS.md for this precision"
    )
    asked = words.parse_args()
    torch.set_num_threads(1)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[asked.precision]
    model = loading.load(MODEL).model.to(dtype)
    attention.install_attention(model)
    recomputation.replace_norms_and_mlps(model, dtype)
    model.train()
    lines = ["| data | tokens computed | time, median | lowest | highest |", "|---|--:|--:|--:|--:|"]
    with MemoryPool().in_use():
        for file in asked.files:
            found = batches(file)
            both = [packed(rows) for rows in found]
            share = sum(len(one.tokens) for one, _ in both) / sum(len(whole.tokens) for _, whole in both)
            every = max(1, len(found) // max(1, asked.pairs))
            times = sorted(ratios(model, list(islice(found, 0, None, every))[: asked.pairs]))
            told = [f"{time:.2f} ×" for time in (statistics.median(times), times[0], times[-1])] if times else ["–"] * 3
            lines.append(f"| {file.name} | {share:.1%} | {' | '.join(told)} |")
            print(lines[-1], flush=True)
    head = (
        f"`benchmarks/prefix_sharing --precision {asked.precision} --pairs {asked.pairs}`, "
        f"{circumstances(['torch', 'transformers'])} {torch.backends.cpu.get_cpu_capability()}.\n\n"
        f"{MODEL} in {asked.precision}, all weights: forward and backward pass of a batch whose rows share prefixes, "
        "against the same batch with whole rows.\n\n"
    )
    text = head + "\n".join(lines)
    print(text)
    if asked.write:
        write_section(f"{HEADING}, {asked.precision}", text)


if __name__ == "__main__":
    main()
