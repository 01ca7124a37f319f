"""One training with TRL's SFTTrainer, measured. Called by compare.py with the Python of benchmarks/.venv-trl."""

import tempfile
from importlib.metadata import version
from typing import Any

import torch
import trl  # type: ignore[import-not-found]
from datasets import Dataset  # type: ignore[import-not-found]
from meter import Meter, heldout_loss
from peft import LoraConfig
from task import ALPHA, RANK, Result, Task, main
from transformers import TrainerCallback

PLAIN: dict[str, Any] = {"gradient_checkpointing": False}
GROUPED: dict[str, Any] = PLAIN | {"train_sampling_strategy": "group_by_length"}
# weights and, where all learn, Adam's moments in bf16, without fp32 masters: small updates are rounded away
BF16: dict[str, Any] = {"model_init_kwargs": {"dtype": "bfloat16"}}
# without autocast: where bf16 is emulated, the defaults do not end in 20 minutes
FP32: dict[str, Any] = {"bf16": False}
SETTINGS: dict[str, dict[str, Any]] = {
    # SFTConfig's own defaults on a CPU: bf16 autocast over fp32 weights, gradient checkpointing, random order
    "default": {},
    "plain": PLAIN,
    # the rows in the order in which ours takes them: what is left of a difference in loss is not the order's
    "our-order": PLAIN | {"train_sampling_strategy": "sequential"},
    "grouped": GROUPED,
    "packed": PLAIN | {"packing": True, "max_length": 1024, "per_device_train_batch_size": 1},
    "eager": PLAIN | {"model_init_kwargs": {"attn_implementation": "eager"}},
    "compiled": PLAIN | {"torch_compile": True},
    "bf16-weights": PLAIN | BF16,
    "grouped-bf16": GROUPED | BF16,
    "fp32": FP32,
    "fp32-our-order": FP32 | PLAIN | {"train_sampling_strategy": "sequential"},
    "fp32-grouped": FP32 | GROUPED,
    "fp32-packed": FP32 | PLAIN | {"packing": True, "max_length": 1024, "per_device_train_batch_size": 1},
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


def run(task: Task, side: str = "trl", **model: Any) -> Result:
    """Train, and tell. `model` is what the trainer gets in place of the folder's model, where `side` prepares its own."""
    torch.manual_seed(task.seed)  # adapters get their first values before the trainer sets its seed
    rows = task.read_rows()
    train = [rows.train[number] for number in task.order()] if task.setting.endswith("our-order") else rows.train
    records = [
        {
            "input_ids": row.ids,
            "labels": [token if learnt else -100 for token, learnt in zip(row.ids, row.loss_mask, strict=True)],
        }
        for row in train
    ]
    with tempfile.TemporaryDirectory() as folder:
        values: dict[str, Any] = {
            "per_device_train_batch_size": 8,
            "num_train_epochs": task.epochs,
            "max_steps": task.max_steps or -1,
            "learning_rate": task.rate,
            "seed": task.seed,
            "use_cpu": task.device == "cpu",
            "max_length": max(1024, *(len(row.ids) for row in train)),
            "disable_tqdm": True,
            "report_to": "none",
            **SETTINGS[task.setting],
        }
        adapters = LoraConfig(
            r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        if task.method == "lora" and not model:
            model = {"peft_config": adapters}
        stopwatch = Stopwatch()
        trainer = CountingTrainer(
            **{"model": rows.folder, **model},
            args=trl.SFTConfig(output_dir=folder, **values),
            train_dataset=Dataset.from_list(records),
            callbacks=[stopwatch],
        )
        batches = len(trainer.get_train_dataloader())
        meter = Meter(steps=task.max_steps or task.epochs * batches, warmup=task.warmup, device=task.device)
        stopwatch.meter, stopwatch.trainer = meter, trainer
        meter.start()
        trainer.train()
        meter.phase()
    # accelerate put an autocast to bf16 around the model's forward pass; the held-out loss is measured without it
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    return meter.result(f"{side} {task.setting}", heldout_loss(model, rows.dev), versions, SETTINGS[task.setting])


if __name__ == "__main__":
    main(run)
