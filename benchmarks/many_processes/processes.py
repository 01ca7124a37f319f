"""Tokens per second of one process with all threads, of several, and of several in shards, on the same rows."""

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from luthier import pipeline
from luthier import recipe as recipes
from luthier.errors import Interrupted
from luthier.model import tuned
from luthier.runs import Run
from luthier.train import launch, worker

WORDS = [
    "the",
    "parcel",
    "was",
    "sent",
    "on",
    "monday",
    "and",
    "has",
    "not",
    "come",
    "please",
    "tell",
    "me",
    "where",
    "it",
    "is",
]


def prepare(folder: Path, model: str, steps: int, more: list[str]) -> Path:
    """A run up to its training: rows of about 130 tokens, the default step."""
    chance = random.Random(0)
    rows = [
        {
            "question": f"{number}: {' '.join(chance.choices(WORDS, k=90))}",
            "answer": " ".join(chance.choices(WORDS, k=25)),
        }
        for number in range(200)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        f"model={model}", f"train.max_steps={steps}", f"train.check_every={steps}", "evaluate.arms=zero-shot,fine-tuned",
        "evaluate.guards=[]", "evaluate.max_new_tokens=1", "data.test_items=2", "data.dev_items=2", "train.method=full", *more,
    ]  # fmt: skip
    with contextlib.suppress(Interrupted):
        pipeline.run(recipes.load(None, words, data=folder / "data.jsonl"), folder / "run", until_training=True)
    return folder / "run"


def measure(prepared: Path, size: int, *, shards: bool) -> dict[str, Any]:
    """Tokens per second (the median of the steps but the first), and the seconds of all steps and of the checkpoint."""
    folder = prepared.with_name("trial")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder)
    current = Run(folder)
    current.update(shards=shards)
    with current.lock(), launch.processes(folder, size) as world:
        base = tuned.starting_model(current, recipes.load(folder / "recipe.toml"))
        worker.tune(current, base, record=current.record, stop=lambda: False, world=world)
    steps = [event["tokens_per_second"] for event in current.events("step")]
    return {
        "speed": statistics.median(steps[1:]),
        "saving": sum(event["seconds"] for event in current.events("checkpoint")),
        "loss": current.events("step")[-1]["loss"],
        "peaks": current.events("trained")[-1].get("peak_bytes_by_rank", [current.events("trained")[-1]["peak_bytes"]]),
        "step_seconds": current.events("trained")[-1]["seconds"] / len(steps),
        "check_every": recipes.load(folder / "recipe.toml").train.check_every,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=torch.cuda.device_count() or 2)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("settings", nargs="*", help="of the recipe, such as train.precision=fp32")
    asked = parser.parse_args()
    if asked.processes < 2:
        parser.exit(0, "Skipped: this machine has one GPU, and NCCL lets no two processes share one.\n")
    with tempfile.TemporaryDirectory() as temporary:
        prepared = prepare(Path(temporary), asked.model, asked.steps, asked.settings)
        alone = measure(prepared, 1, shards=False)
        several = measure(prepared, asked.processes, shards=False)
        shards = measure(prepared, asked.processes, shards=True)
    kind = "GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} threads in all, {os.cpu_count()} cores"
    print(f"{asked.model}, {asked.steps} steps, {kind}, torch {torch.__version__}\n")
    print("| | tokens/s | ratio | memory by rank | checkpoint | last loss |\n|---|--:|--:|--:|--:|--:|")
    for name, found in (
        ("one process", alone),
        (f"{asked.processes} processes", several),
        ("the same in shards", shards),
    ):
        memory = ", ".join(f"{peak / 1e9:.2f} GB" for peak in found["peaks"] if peak)
        ratio = found["speed"] / alone["speed"]
        print(
            f"| {name} | {found['speed']:,.0f} | {ratio:.2f} × | {memory} | {found['saving']:.1f} s | {found['loss']:.4f} |"
        )
    print(f"\nA step takes {shards['step_seconds']:.1f} s in shards, its checkpoint {shards['saving']:.1f} s.")


if __name__ == "__main__":
    main()
