"""One training with TRL's SFTTrainer, measured. Called by compare.py with the Python of benchmarks/.venv-trl."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
import trl  # type: ignore[import-not-found]
from datasets import Dataset  # type: ignore[import-not-found]
from meter import Learn, Meter, Result, heldout_loss, read_rows
from transformers import TrainerCallback

SETTINGS: dict[str, dict[str, Any]] = {
    # SFTConfig's own defaults on a CPU: bf16 autocast over fp32 weights, gradient checkpointing, random order
    "default": {},
    "plain": {"gradient_checkpointing": False},
    "grouped": {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"},
    "packed": {"gradient_checkpointing": False, "packing": True, "max_length": 1024, "per_device_train_batch_size": 1},
    "eager": {"gradient_checkpointing": False, "model_init_kwargs": {"attn_implementation": "eager"}},
    "compiled": {"gradient_checkpointing": False, "torch_compile": True},
    # weights and Adam's moments in bf16, without fp32 masters: small updates are rounded away
    "bf16-weights": {"gradient_checkpointing": False, "model_init_kwargs": {"dtype": "bfloat16"}},
}


class CountingTrainer(trl.SFTTrainer):  # type: ignore[misc]
    """Adds up the tokens that are not padding; everything else is TRL's."""

    seen = 0

    def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        self.seen += int((inputs["attention_mask"] if "attention_mask" in inputs else inputs["input_ids"] >= 0).sum())
        return super().training_step(model, inputs, *rest, **named)


class Stopwatch(TrainerCallback):
    """Tells the meter when a step is done."""

    def __init__(self) -> None:
        self.meter: Meter | None = None
        self.trainer: CountingTrainer | None = None
        self.counted = 0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        assert self.meter is not None and self.trainer is not None
        self.meter.step(self.trainer.seen - self.counted)
        self.counted = self.trainer.seen


def run(
    rows_file: Path, learn: Learn, name: str, *, epochs: int, max_steps: int | None, rate: float, warmup: int, seed: int
) -> Result:
    rows = read_rows(rows_file, learn)
    records = [
        {
            "input_ids": row.ids,
            "labels": [token if learnt else -100 for token, learnt in zip(row.ids, row.learn, strict=True)],
        }
        for row in rows.train
    ]
    with tempfile.TemporaryDirectory() as folder:
        values: dict[str, Any] = {
            "per_device_train_batch_size": 8,
            "num_train_epochs": epochs,
            "max_steps": max_steps or -1,
            "learning_rate": rate,
            "seed": seed,
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
            **SETTINGS[name],
        }
        stopwatch = Stopwatch()
        trainer = CountingTrainer(
            model=rows.folder,
            args=trl.SFTConfig(output_dir=folder, **values),
            train_dataset=Dataset.from_list(records),
            callbacks=[stopwatch],
        )
        batches = len(trainer.get_train_dataloader())
        meter = Meter(steps=max_steps or epochs * batches, warmup=warmup)
        stopwatch.meter, stopwatch.trainer = meter, trainer
        meter.start()
        trainer.train()
        meter.phase()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
    # accelerate put an autocast to bf16 around the model's forward pass; the held-out loss is measured without it
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return meter.result(f"trl {name}", heldout_loss(model, rows.dev), versions, SETTINGS[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--setting", choices=SETTINGS, default="default")
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
        given.setting,
        epochs=given.epochs,
        max_steps=given.max_steps,
        rate=given.rate,
        warmup=given.warmup,
        seed=given.seed,
    )
    result.write(given.result)


if __name__ == "__main__":
    main()
