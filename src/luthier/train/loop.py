"""The training loop: `train` is the story, `_Training.run` the rhythm, `_Training.update` the arithmetic.

What a step does depends on nothing but the recipe, the rows and the weights: the order is a pure function (`order`), dropout
is seeded by the step's number, and a checkpoint holds every number that the next update needs. So a run that was killed and
continued ends with the same weights, bit for bit, as one that was not.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from luthier.errors import CorruptedState, Interrupted, UserError
from luthier.model import allocator, attention, layers, memory, recomputation
from luthier.model.causal import CausalModel
from luthier.model.device import DTYPES
from luthier.recipe import Train
from luthier.runs import durable, manifest
from luthier.train import checkpoint, nonfinite, objectives, order, sanity_check
from luthier.train.objectives import Measured, Objective
from luthier.train.optimizer import MasterOptimizer, learning_rate
from luthier.train.rows import TokenRows, shared_prefixes
from luthier.train.throughput import SAVE_BYTES_PER_SECOND, STEPS_MEASURED, Throughput

TRIM_EVERY = 2  # steps after which free memory goes back: batches of many sizes would leave ever more gaps


class Record(Protocol):
    """Records an event: its kind and its fields."""

    def __call__(self, kind: str, **fields: object) -> None: ...


@dataclass
class Progress:
    """How far the training has come; part of every checkpoint."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    checks_without_best: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    """Dev loss before the first update; unknown where a run was begun without noting it."""

    def note_loss(self, loss: float) -> bool:
        """Note the dev loss after a step; whether it is the lowest so far."""
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.checks_without_best = loss, self.step, 0
            return True
        self.checks_without_best += 1
        return False


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
    end_tokens: Collection[int] = (),
) -> Outcome:
    """Train until the steps are done or dev loss stops falling; continues from the newest good checkpoint.

    `settings` has every value set. `stop` is called after each step; when it returns True, the step's checkpoint is written
    and `Interrupted` raised. Each row's loss tokens end with one of `end_tokens`, where there are such. The model's modules are
    replaced by ours that save less memory, and its weights change. Raises NonFiniteLoss before the update whose loss or
    gradient is not finite, and where the dev loss is not.
    """
    with allocator.MemoryPool().in_use():
        # The model: with modules that save less, and checked on its first rows before its weights are put into the dtype.
        attention.install_attention(model)
        recomputation.replace_norms_and_mlps(model, DTYPES[settings.precision or "fp32"])
        peak = memory.Peak(model.device)
        settings, share_prefixes = _check_sanity(model, rows, dev, end_tokens, settings, record)
        optimizer = MasterOptimizer(model, settings)
        if settings.gradient_checkpointing:
            layers.enable_checkpointing(model)
        if settings.compile:
            layers.compile_layers(model)

        # The rows, as the objective needs them; what it computes of the model's own likelihoods comes before the first update.
        objective = objectives.resolve(settings.objective or "sft")(model, settings, checkpoints)
        rows, dev = (_prepare_rows(objective, *split, record, stop) for split in ((rows, "train"), (dev, "dev")))
        lengths = rows.lengths
        steps = order.Steps.of(lengths, settings, shared=shared_prefixes(rows), computed_once=share_prefixes)

        # The steps, from the newest checkpoint on.
        progress = _restore(optimizer, checkpoints, settings, record)
        training = _Training(
            model, optimizer, objective, rows, lengths, dev, steps, settings, checkpoints, record, progress
        )
        reason = training.run(stop)

        # The best weights.
        layers.restore(model)
        record("trained", **asdict(progress), reason=reason, peak_bytes=peak.bytes())
        best = checkpoint.verify(manifest.path(checkpoints, progress.best_step))
        return Outcome(optimizer.weights_of(best.tensors()), progress, reason)


def _check_sanity(
    model: CausalModel, rows: TokenRows, dev: TokenRows, end_tokens: Collection[int], settings: Train, record: Record
) -> tuple[Train, bool]:
    """The settings after the sanity check, which is recorded: a model that mixes rows gets one row to a batch.

    And whether a prefix that rows of a batch share is computed once.
    """
    longest = max(max(split.lengths, default=0) for split in (rows, dev))
    checked = sanity_check.run(model, rows, end_tokens, longest=longest)
    record("selftest", **checked.fields())
    if not checked.plain_head:
        message = "this model computes its logits in its own way, so the logits of all loss tokens of a batch are kept"
        record("warning", message=f"{message}, which takes more memory.")
    if checked.rows_apart and checked.longest_packed == longest:
        if not checked.prefixes_shared:
            message = "has its own attention, so a prefix shared by several rows is computed once per row"
            record("warning", message=f"this model {message}.")
        return settings, checked.prefixes_shared
    message = "mixes rows that share a batch"
    if checked.rows_apart:
        longer = f"a row of more than {checked.longest_packed:,} tokens, and this data has such rows"
        message = f"gives other results for rows that share a batch with {longer}"
    record("warning", message=f"this model {message}, so each row gets a batch of its own.")
    return settings.model_copy(update={"tokens_per_batch": 1}), False


def _prepare_rows(
    objective: Objective, rows: TokenRows, split: str, record: Record, stop: Callable[[], bool]
) -> TokenRows:
    """The rows of a split as the objective needs them; what it computes for that is recorded, and can be stopped."""

    def advance(done: int, of: int) -> None:
        record("reference", split=split, done=done, of=of)
        if stop() and done < of:
            raise Interrupted(
                f"stopped before the first step, with {done:,} of {of:,} {split} rows computed; the finished rows are kept."
            )

    return objective.prepare_rows(rows, split, advance)


@dataclass
class _Training:
    """What the steps of one training share, and how far it has come."""

    model: CausalModel
    optimizer: MasterOptimizer
    objective: Objective
    rows: TokenRows
    lengths: Sequence[int]
    """Tokens of each row."""
    dev: TokenRows
    steps: order.Steps
    settings: Train
    checkpoints: Path
    record: Record
    progress: Progress
    throughput: Throughput = field(default_factory=Throughput)

    def run(self, stop: Callable[[], bool]) -> str:
        """Make the steps that are left; why there are no more."""
        assert self.settings.check_every
        self.throughput.save_seconds = checkpoint.bytes_of(self.optimizer.state()) / SAVE_BYTES_PER_SECOND
        if not self.progress.step:
            self.throughput.validation_seconds = self.validate()
        first = self.progress.step
        self.model.train()
        while self.progress.step < len(self.steps):
            if self.progress.checks_without_best >= self.settings.patience:
                return f"no lower dev loss in {self.settings.patience} dev checks"
            self.make_step(check_space=self.progress.step == first)
            self.record_forecast_if_known()
            due = self.progress.step % self.settings.check_every == 0 or self.progress.step == len(self.steps)
            if due:
                self.validate()
            stopping = stop() and self.progress.step < len(self.steps)
            if due or stopping:
                self.save()
            if stopping:
                raise Interrupted(
                    f"stopped after step {self.progress.step} of {len(self.steps)}; its checkpoint is saved."
                )
        return "all steps done"

    def make_step(self, *, check_space: bool) -> None:
        """Make the next step and record it; with `check_space`, stop where the disk cannot hold what is to come."""
        start = time.perf_counter()
        step = self.steps[self.progress.step]
        update = self.update(step, number=self.progress.step + 1)
        tokens = sum(self.lengths[row] for batch in step.batches for row in batch)
        if check_space:
            self.require_space()
        seconds = time.perf_counter() - start
        self.progress.step += 1
        self.progress.seconds += seconds
        self.throughput.add_step(tokens, seconds, update=update["update_seconds"])
        self.record(
            "step", step=self.progress.step, steps=len(self.steps), epoch=step.epoch, **update,
            tokens=tokens, tokens_per_second=tokens / seconds,
        )  # fmt: skip

    def update(self, step: order.Step, *, number: int) -> dict[str, Any]:
        """One optimizer step: loss = sum over its micro-batches ÷ count of the step (of loss tokens, pairs or answers)."""
        settings, found = self.settings, []
        members = [row for batch in step.batches for row in batch]
        objective = objectives.of_step(self.objective, self.model, self.rows, members)
        torch.manual_seed(_dropout_seed(settings.seed, number))
        for batch in step.batches:
            measured = objective.measure(self.model, self.rows, batch)
            measured.total.backward()
            self.optimizer.accumulate()
            found.append(replace(measured, total=measured.total.detach()))
        means = _means(found)
        start = time.perf_counter()
        clip = self.optimizer.clip(sum(part.count for part in found), settings.clip_norm)
        if not (math.isfinite(means["loss"]) and math.isfinite(clip.norm)):
            raise nonfinite.of_step(self.model, objective, self.rows, step, settings, number=number, loss=means["loss"])
        assert settings.learning_rate is not None and settings.warmup_steps is not None
        rate = learning_rate(
            number, highest=settings.learning_rate, steps=len(self.steps), warmup=settings.warmup_steps,
            schedule=settings.schedule,
        )  # fmt: skip
        self.optimizer.step(rate, clip.scale)
        if number % TRIM_EVERY == 0:
            allocator.give_back_free_memory()
        return {
            **means,
            "learning_rate": rate,
            "gradient_norm": clip.norm,
            "learnt": sum(part.loss_tokens for part in found),
            **_computed_tokens(found),
            "update_seconds": time.perf_counter() - start,
        }

    def record_forecast_if_known(self) -> None:
        """After the first few steps, how long the training will take; not where it was continued among them."""
        if self.progress.step != STEPS_MEASURED or not self.throughput.is_known:
            return
        assert self.settings.check_every
        checks = math.ceil(len(self.steps) / self.settings.check_every)
        forecast = self.throughput.forecast(self.steps.tokens, steps=len(self.steps), checks=checks)
        self.record("forecast", steps=len(self.steps), **forecast.fields())

    def validate(self) -> float:
        """Record the loss on dev, before the first step or after the last one made; the seconds that this took."""
        start, progress = time.perf_counter(), self.progress
        with self.optimizer.evaluating():
            found = evaluate(self.model, self.objective, self.dev, self.settings.tokens_per_batch or 1)
        seconds = time.perf_counter() - start
        if not math.isfinite(found["loss"]):
            raise nonfinite.of_dev(
                self.model, self.objective, self.dev, self.settings, step=progress.step, loss=found["loss"]
            )
        if progress.step:
            best, more = progress.note_loss(found["loss"]), {"first_loss": progress.first_loss}
        else:
            best, more, progress.first_loss = False, {}, found["loss"]
        self.record("dev", step=progress.step, best=best, **more, **found, seconds=seconds)
        return seconds

    def require_space(self) -> None:
        """Stops now rather than after an hour, if the disk cannot hold the checkpoints to come and the model."""
        assert self.settings.check_every
        tensors = self.optimizer.state()
        saves = math.ceil((len(self.steps) - self.progress.step) / self.settings.check_every)
        checkpoints = max(0, min(saves, checkpoint.MOST_AT_ONCE) - len(manifest.folders(self.checkpoints)))
        weights = {name: tensor for name, tensor in tensors.items() if name.startswith("weight/")}
        needed = checkpoints * checkpoint.bytes_of(tensors) + checkpoint.bytes_of(weights)
        durable.require_space(self.checkpoints, needed, f"{checkpoints} checkpoints to come and the model need")

    def save(self) -> None:
        """Write a checkpoint; keep it, the one before it and the best one."""
        start, step = time.perf_counter(), self.progress.step
        settings = self.settings.model_dump(mode="json")
        state = {"order": order.VERSION, "settings": settings, "progress": asdict(self.progress)}
        checkpoint.save(self.checkpoints, step, self.optimizer.state(), state)
        if problem := checkpoint.rotate(self.checkpoints, best=self.progress.best_step, verified=step):
            message = f"the new checkpoint cannot be read back, so older checkpoints are kept: {problem}"
            self.record("warning", message=message)
        self.record("checkpoint", step=step, seconds=time.perf_counter() - start)


@torch.inference_mode()
def evaluate(model: CausalModel, objective: Objective, rows: TokenRows, tokens_per_batch: int) -> dict[str, float]:
    """The mean loss over all rows and the objective's other figures, in evaluation mode and without gradients."""
    was_training = model.training
    model.eval()
    objective = objectives.of_step(objective, model, rows, range(len(rows)))
    found = [objective.measure(model, rows, batch) for batch in order.by_length(rows.lengths, tokens_per_batch)]
    model.train(was_training)
    return _means(found)


def _means(found: Sequence[Measured]) -> dict[str, float]:
    """The loss and the other figures of several batches, each divided by what was counted in all of them."""
    count = max(1, sum(part.count for part in found))
    sums = {"loss": sum(part.total.double() for part in found)}
    sums |= {name: sum(part.figures[name].double() for part in found) for name in (found[0].figures if found else ())}
    return {name: float(total) / count for name, total in sums.items()}


def _computed_tokens(found: Sequence[Measured]) -> dict[str, int]:
    """The tokens that went through the model, where the objective says so."""
    each = [part.computed for part in found]
    return {} if None in each else {"computed": sum(part or 0 for part in each)}


def _dropout_seed(seed: int, step: int) -> int:
    """The seed of a step, whenever it is made. Mixed, since torch's generator on a processor takes 32 bits of it."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])


def _restore(optimizer: MasterOptimizer, checkpoints: Path, settings: Train, record: Record) -> Progress:
    """Load the newest checkpoint that is whole, as is the best one before it; what is wrong with newer ones is a warning."""
    found, wrong = checkpoint.newest(
        checkpoints, companion=lambda found: int(found.state["progress"]["best_step"]) or found.step
    )
    if found is None:
        if wrong:
            problems = "\n".join(wrong.values())
            raise CorruptedState(
                f"no checkpoint of this run is intact. Remove the folder to train again.\n{problems}",
                where=str(checkpoints),
            )
        return Progress()
    if found.state["order"] != order.VERSION:
        raise UserError(
            "made by a Luthier with another data order; continue with that version.", where=str(found.folder)
        )
    _require_same_settings(found, settings, record)
    for folder, problem in wrong.items():
        message = f"skipped a damaged checkpoint and continued from step {found.step}: {problem}"
        record("warning", message=message)
        durable.remove(folder)
    optimizer.load(found.tensors())
    progress = Progress(**found.state["progress"])
    record("resumed", step=progress.step)
    return progress


def _require_same_settings(found: checkpoint.Checkpoint, settings: Train, record: Record) -> None:
    """Refuses other settings than the checkpoint was made with; the size of batches may change, with a warning."""
    before, now = Train.model_validate(found.state["settings"]).model_dump(), settings.model_dump()
    changes = {key: (before[key], value) for key, value in now.items() if before[key] != value}
    if changes.pop("tokens_per_batch", None):
        message = "train.tokens_per_batch has changed: the result is the same up to rounding, but not bit for bit."
        record("warning", message=message)
    if changes:
        listed = ", ".join(f"train.{key} was {old}, now {new}" for key, (old, new) in changes.items())
        raise UserError(
            f"made with other settings ({listed}). Put them back, or start a new run with the new ones.",
            where=str(found.folder),
        )
