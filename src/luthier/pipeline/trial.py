"""A few real steps of a training that begins at random weights, in a folder that is thrown away."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from luthier.model import device, fresh, memory
from luthier.recipe import Train
from luthier.runs import durable
from luthier.train import loop, memory_estimate
from luthier.train.rows import TokenRows, first_rows
from luthier.train.throughput import STEPS_MEASURED, Throughput

STEP_TOKENS = 8192
"""Tokens of a step that is tried, at most."""
DEV_TOKENS = 256


def tokens_per_second(config: PreTrainedConfig, rows: TokenRows, settings: Train, *, beside: Path) -> float:
    """Training tokens a second of a model with this configuration, the first step left out."""
    tokens = min(settings.tokens_per_step or STEP_TOKENS, STEP_TOKENS)
    few = first_rows(rows, range(len(rows)), tokens=STEPS_MEASURED * tokens)
    dev = first_rows(rows, range(len(rows)), tokens=DEV_TOKENS)
    short = settings.model_copy(
        update={"max_steps": STEPS_MEASURED, "check_every": STEPS_MEASURED, "tokens_per_step": tokens}
    )
    throughput = Throughput()

    def record(kind: str, **fields: Any) -> None:
        if kind == "step":
            seconds = fields["tokens"] / fields["tokens_per_second"]
            throughput.add_step(fields["tokens"], seconds, update=fields["update_seconds"])

    with durable.scratch_folder(beside) as folder:
        durable.make_folders(folder / "checkpoints")
        with memory.explain_out_of_memory("to try three steps", memory_estimate.advice(settings)):
            model = fresh.build(config, settings.seed, device.pick_device())
            loop.train(model, few, dev, short, checkpoints=folder / "checkpoints", record=record)
    whole = settings.tokens_per_step or tokens
    return whole / (throughput.seconds_per_token * whole + throughput.seconds_per_update)
