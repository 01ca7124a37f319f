"""The training loop: `train` is the rhythm, `_update` is the arithmetic.

What a step does depends on nothing but the recipe, the rows and the weights: the order is a pure function (`order`), dropout
is seeded by the step's number, and a checkpoint holds every number that the next update needs. So a run that was killed and
continued ends with the same weights, bit for bit, as one that was not.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from luthier import durable
from luthier.errors import CorruptedState, Interrupted, Mistake
from luthier.model import attention, lean
from luthier.model.head import CausalModel, keeps_rows_apart, summed_loss
from luthier.model.packed import TokenRow, pack
from luthier.recipe import Train
from luthier.train import checkpoint, order
from luthier.train.optimizer import MasterAdamW, learning_rate


class TokenRows(Protocol):
    """Rows by number, with their lengths and where they came from."""

    @property
    def lengths(self) -> list[int]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> TokenRow: ...
    def place(self, number: int) -> str: ...


class Record(Protocol):
    """Takes an event: its kind and its fields."""

    def __call__(self, kind: str, **fields: object) -> None: ...


@dataclass
class Progress:
    """Where the training stands; part of every checkpoint."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    checks_without_best: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The best weights by name (fp32), and how the training went."""

    weights: dict[str, Tensor]
    progress: Progress
    reason: str


def train(
    model: CausalModel,
    rows: TokenRows,
    dev: TokenRows,
    settings: Train,
    *,
    checkpoints: Path,
    record: Record,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train until the steps are done or dev loss stops falling; continues from the newest good checkpoint.

    `settings` has every value set. `stop` is asked after each step; when it says yes, the step's checkpoint is written and
    `Interrupted` raised. Raises Interrupted before the update whose loss or gradient is not finite.
    """
    attention.use(model)
    lean.use(model)
    if not keeps_rows_apart(model, [rows[number] for number in range(min(3, len(rows)))]):
        record("warning", message="this kind of model mixes rows that share a batch, so each row gets one of its own.")
        settings = settings.model_copy(update={"tokens_per_batch": 1})
    optimizer = MasterAdamW(model, settings)
    assert settings.tokens_per_step and settings.tokens_per_batch and settings.check_every and settings.epochs
    steps = order.all_steps(
        rows.lengths,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        seed=settings.seed,
        tokens_per_step=settings.tokens_per_step,
        tokens_per_batch=settings.tokens_per_batch,
    )
    progress = _restore(optimizer, checkpoints, settings, record)
    room_needed = True
    if not progress.step:
        record("dev", step=0, loss=dev_loss(model, dev, settings.tokens_per_batch), best=False)
    reason = "all steps done"
    model.train()
    while progress.step < len(steps):
        if progress.checks_without_best >= settings.patience:
            reason = f"no better for {settings.patience} dev checks"
            break
        start = time.perf_counter()
        step = steps[progress.step]
        update = _update(model, optimizer, rows, step, settings, number=progress.step + 1, steps=len(steps))
        if room_needed:
            _require_room(optimizer, checkpoints, saves=math.ceil((len(steps) - progress.step) / settings.check_every))
            room_needed = False
        progress.step += 1
        progress.seconds += (seconds := time.perf_counter() - start)
        record(
            "step",
            step=progress.step,
            steps=len(steps),
            epoch=step.epoch,
            **update,
            tokens_per_second=update["tokens"] / seconds,
        )
        due = progress.step % settings.check_every == 0 or progress.step == len(steps)
        if due:
            loss = dev_loss(model, dev, settings.tokens_per_batch)
            best = loss < progress.best_loss
            if best:
                progress.best_loss, progress.best_step, progress.checks_without_best = loss, progress.step, 0
            else:
                progress.checks_without_best += 1
            record("dev", step=progress.step, loss=loss, best=best)
        stopping = stop() and progress.step < len(steps)
        if due or stopping:
            _save(optimizer, progress, checkpoints, settings, record)
        if stopping:
            raise Interrupted(f"stopped after step {progress.step} of {len(steps)}; its checkpoint is saved.")
    record(
        "trained", step=progress.step, best_step=progress.best_step, best_loss=progress.best_loss, seconds=progress.seconds,
        reason=reason,
    )  # fmt: skip
    return Outcome(_best_weights(checkpoints, progress), progress, reason)


@torch.inference_mode()
def dev_loss(model: CausalModel, rows: TokenRows, tokens_per_batch: int) -> float:
    """Mean −log p per learnt token over all rows, in nats."""
    was_training = model.training
    model.eval()
    total, learnt = 0.0, 0
    for batch in order.by_length(rows.lengths, tokens_per_batch):
        packed = pack([rows[number] for number in batch], model.device)
        total += summed_loss(model, packed).item()
        learnt += packed.learnt
    model.train(was_training)
    return total / max(1, learnt)


def _update(
    model: CausalModel,
    optimizer: MasterAdamW,
    rows: TokenRows,
    step: order.Step,
    settings: Train,
    *,
    number: int,
    steps: int,
) -> dict[str, Any]:
    """One optimizer step: loss = Σ over all batches of −log p ÷ learnt tokens of the whole step."""
    torch.manual_seed(
        (settings.seed << 32) + number
    )  # for models with dropout: a step draws the same whenever it is made
    batches = [pack([rows[row] for row in batch], model.device) for batch in step.batches]
    learnt = sum(batch.learnt for batch in batches)
    total = torch.zeros((), dtype=torch.float32, device=model.device)
    for batch in batches:
        loss = summed_loss(model, batch)
        loss.backward()
        optimizer.gather()
        total += loss.detach()
    mean = (total / learnt).item()
    norm = optimizer.finish(learnt, settings.clip_norm)
    if not (math.isfinite(mean) and math.isfinite(norm)):
        raise Interrupted(_not_finite(model, rows, step, number, mean))
    assert settings.learning_rate is not None and settings.warmup_steps is not None
    rate = learning_rate(
        number, highest=settings.learning_rate, steps=steps, warmup=settings.warmup_steps, schedule=settings.schedule
    )
    optimizer.step(rate)
    tokens_seen = sum(len(rows[row].ids) for batch in step.batches for row in batch)
    return {"loss": mean, "learning_rate": rate, "gradient_norm": norm, "tokens": tokens_seen, "learnt": learnt}


@torch.inference_mode()
def _not_finite(model: CausalModel, rows: TokenRows, step: order.Step, number: int, loss: float) -> str:
    """The message for a loss or gradient that is not a number, naming the rows whose own loss is not one."""
    members = [row for batch in step.batches for row in batch]
    guilty = [row for row in members if not math.isfinite(summed_loss(model, pack([rows[row]], model.device)).item())]
    what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not finite"
    which = "rows whose own loss is not finite" if guilty else "rows of this step"
    places = ", ".join(rows.place(row) for row in (guilty or members)[:8])
    return (
        f"{what} at step {number}; stopped before the update, so the weights are as they were. {which}: {places}. "
        "Look at these rows, or start anew with a lower train.learning_rate."
    )


def _restore(optimizer: MasterAdamW, checkpoints: Path, settings: Train, record: Record) -> Progress:
    """Take up the newest checkpoint that is whole, as is the best one before it; says aloud what was wrong with newer ones."""
    found, wrong = checkpoint.newest(checkpoints, needs=lambda one: int(one.state["progress"]["best_step"]) or one.step)
    if found is None:
        if wrong:
            told = "\n".join(wrong.values())
            raise CorruptedState(
                f"no checkpoint of this run is whole. Remove the folder to train again.\n{told}", where=str(checkpoints)
            )
        return Progress()
    if found.state["order"] != order.VERSION:
        raise Mistake("made by a Luthier with another data order; continue with that version.", where=str(found.folder))
    _same_settings(found, settings, record)
    for folder, problem in wrong.items():
        record(
            "warning", message=f"a damaged checkpoint is passed over, and step {found.step} taken instead: {problem}"
        )
        durable.remove(folder)
    optimizer.load(found.tensors())
    progress = Progress(**found.state["progress"])
    record("resumed", step=progress.step)
    return progress


def _same_settings(found: checkpoint.Checkpoint, settings: Train, record: Record) -> None:
    """Refuses other settings than the checkpoint was made with; the size of batches may change, and that is told."""
    before, now = Train.model_validate(found.state["settings"]).model_dump(), settings.model_dump()
    changes = {key: (before[key], value) for key, value in now.items() if before[key] != value}
    if changes.pop("tokens_per_batch", None):
        record(
            "warning", message="train.tokens_per_batch is another: the same result but for rounding, not bit for bit."
        )
    if changes:
        told = ", ".join(f"train.{key} was {old}, now {new}" for key, (old, new) in changes.items())
        raise Mistake(
            f"made with other settings ({told}). Put them back, or start a new run with the new ones.",
            where=str(found.folder),
        )


def _require_room(optimizer: MasterAdamW, checkpoints: Path, *, saves: int) -> None:
    """Stops now rather than after an hour, if the disk cannot hold the checkpoints to come and the model."""
    tensors = optimizer.state()
    wanted = min(saves, checkpoint.KEPT + 2) - len(
        checkpoint.folders(checkpoints)
    )  # the best one, and one being written
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("weight/")}
    needed = max(0, wanted) * checkpoint.size(tensors) + checkpoint.size(weights)
    durable.require_space(checkpoints, needed, f"{max(0, wanted)} checkpoints to come and the model need")


def _save(optimizer: MasterAdamW, progress: Progress, checkpoints: Path, settings: Train, record: Record) -> None:
    """Write a checkpoint; keep it, the one before it and the best one."""
    start = time.perf_counter()
    state = {"order": order.VERSION, "settings": settings.model_dump(mode="json"), "progress": asdict(progress)}
    checkpoint.save(checkpoints, progress.step, optimizer.state(), state)
    if problem := checkpoint.rotate(checkpoints, best=progress.best_step, sound=progress.step):
        record(
            "warning", message=f"the checkpoint just written does not read back, so the older ones are kept: {problem}"
        )
    record("checkpoint", step=progress.step, seconds=time.perf_counter() - start)


def _best_weights(checkpoints: Path, progress: Progress) -> dict[str, Tensor]:
    """The masters of the step with the lowest dev loss."""
    tensors = checkpoint.verify(checkpoint.path(checkpoints, progress.best_step)).tensors()
    return {name.removeprefix("weight/"): tensor for name, tensor in tensors.items() if name.startswith("weight/")}
