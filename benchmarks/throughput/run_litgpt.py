"""One full fine-tuning with LitGPT's own loop, measured. Called by compare.py with the Python of benchmarks/.venv-litgpt.

The model is converted by LitGPT's script, the loop is `litgpt.finetune.full.fit`, the rows are ours. Its batches are padded by
LitGPT's own function. The held-out loss comes from LitGPT's forward pass in fp32, by the function that all sides use.
"""

import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning  # type: ignore[import-not-found]
import torch
from litgpt.args import EvalArgs, TrainArgs  # type: ignore[import-not-found]
from litgpt.data.base import get_sft_collate_fn  # type: ignore[import-not-found]
from litgpt.finetune import full  # type: ignore[import-not-found]
from litgpt.model import GPT, Config  # type: ignore[import-not-found]
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint  # type: ignore[import-not-found]
from litgpt.utils import load_checkpoint  # type: ignore[import-not-found]
from meter import Meter, heldout_loss
from task import Result, Row, Task, main
from torch import nn
from torch.utils.data import DataLoader

SETTINGS: dict[str, dict[str, Any]] = {
    # LitGPT's own default micro-batch of 1 row, eight of them to a step: nothing is padded
    "default": {"micro_batch_size": 1},
    "batches-of-8": {"micro_batch_size": 8},
}


class TimedLoader(DataLoader):  # type: ignore[type-arg]
    """Tells the meter that a step is done when the loop comes for the first batch of the next one, or has ended."""

    meter: Meter
    batches_per_step: int
    pending = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for number, batch in enumerate(super().__iter__(), start=1):
            self.pending += int(batch["token_counts"]["raw"].sum())
            yield batch
            if number % self.batches_per_step == 0:
                self.step()

    def step(self) -> None:
        self.meter.step(self.pending)
        self.pending = 0


class Plain(nn.Module):
    """LitGPT's model with the face that `heldout_loss` expects."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.inner(input_ids))


def converted(folder: str, to: Path) -> Path:
    """LitGPT's form of a Hugging Face folder of SmolLM2-135M."""
    shutil.copytree(folder, to)
    convert_hf_checkpoint(to, model_name="SmolLM2-135M-Instruct")
    return to


def sample(row: Row) -> dict[str, Any]:
    """A row as LitGPT's data sets give it."""
    ids = torch.tensor(row.ids)
    labels = torch.where(torch.tensor(row.loss_mask), ids, -100)
    return {"input_ids": ids, "labels": labels, "token_counts": {"raw": len(ids), "raw_plus_prompt_template": len(ids)}}


def run(task: Task) -> Result:
    rows = task.read_rows()
    micro = SETTINGS[task.setting]["micro_batch_size"]
    steps = task.max_steps or task.epochs * len(rows.train) // 8
    meter = Meter(steps=steps, warmup=task.warmup)
    train = TrainArgs(
        global_batch_size=8,
        micro_batch_size=micro,
        max_steps=steps,
        epochs=task.epochs,
        lr_warmup_steps=0,
        save_interval=None,
    )
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = converted(rows.folder, Path(temporary) / "model")
        fabric = lightning.Fabric(devices=1, accelerator="cpu", precision="bf16-mixed")  # LitGPT's default for training
        fabric.launch()
        fabric.seed_everything(task.seed)
        model = fabric.setup(GPT(Config.from_file(checkpoint / "model_config.yaml")))
        optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=task.rate, weight_decay=0.0))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        load_checkpoint(fabric, model, checkpoint / "lit_model.pth")
        collate = get_sft_collate_fn()
        loader = TimedLoader([sample(row) for row in rows.train], batch_size=micro, shuffle=True, collate_fn=collate)
        loader.meter, loader.batches_per_step = meter, 8 // micro
        meter.start()
        full.fit(
            fabric=fabric,
            state={"model": model, "optimizer": optimizer, "scheduler": scheduler, "iter_num": 0, "step_count": 0},
            train_dataloader=loader,
            val_dataloader=DataLoader([sample(row) for row in rows.dev], batch_size=micro, collate_fn=collate),
            devices=1,
            resume=False,
            checkpoint_dir=checkpoint,
            out_dir=Path(temporary) / "out",
            train=train,
            eval=EvalArgs(interval=steps + 1, max_iters=2),
            data=None,
        )
        loader.step()  # the loop ends without coming for another batch
        meter.phase()
    versions = {name: version(name) for name in ("torch", "litgpt", "lightning")}
    plain = Plain(unwrapped(model))
    return meter.result(f"litgpt {task.setting}", heldout_loss(plain, rows.dev), versions, SETTINGS[task.setting])


def unwrapped(model: Any) -> nn.Module:
    """The model without fabric's autocast around its forward pass."""
    inner: nn.Module = model._forward_module
    return inner


if __name__ == "__main__":
    main(run)
