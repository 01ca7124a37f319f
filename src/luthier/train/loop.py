"""The training loop: `train` is the story, `_Training.run` the rhythm, `_Training.update` the arithmetic.

What a step does depends on nothing but the recipe, the rows and the weights: the order is a pure function (`order`), dropout
is seeded by the step's number, and a checkpoint holds every number that the next update needs. So a run that was killed and
continued ends with the same weights, bit for bit, as one that was not.

Where several processes train together (`world`), each of them runs this loop over its share of every step's rows, with the sums
of all: so all make the same updates, and the first one alone writes.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from luthier.errors import Interrupted
from luthier.model import allocator, attention, layers, memory, recomputation
from luthier.model.causal import CausalModel
from luthier.model.device import DTYPES
from luthier.recipe import Train
from luthier.runs import durable, manifest
from luthier.train import checkpoint, nonfinite, objectives, order, sanity_check, sharding
from luthier.train.master_weights import fingerprint
from luthier.train.objectives import Measured, Objective
from luthier.train.optimizer import MasterOptimizer, learning_rate
from luthier.train.progress import Progress, Record, restore
from luthier.train.rows import TokenRows, shared_prefixes
from luthier.train.throughput import SAVE_BYTES_PER_SECOND, STEPS_MEASURED, Throughput
from luthier.train.world import ALONE, ProcessLost, World

TRIM_EVERY = 2  # steps after which free memory goes back: batches of many sizes would leave ever more gaps


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
    world: World = ALONE,
    record_rows: bool = False,
    shards: bool = False,
) -> Outcome:
    """Train until the steps are done or dev loss stops falling; continues from the newest good checkpoint.

    `settings` has every value set. `stop` is called after each step; when it returns True, the step's checkpoint is written
    and `Interrupted` raised. Each row's loss tokens end with one of `end_tokens`, where there are such. The model's modules are
    replaced by ours that save less memory, and its weights change. Raises NonFiniteLoss before the update whose loss or
    gradient is not finite, and where the dev loss is not.

    In a `world` of several processes each calls this with the same of everything, but `record`, which is heard in the first one
    alone; only that one's outcome has weights. Raises ProcessLost in all others when one of them is gone. With `record_rows`
    each step's event names its rows; with `shards` each process keeps its part of the weights only.
    """
    with allocator.MemoryPool().in_use():
        # The model: with modules that save less, and checked on its first rows before its weights are put into the dtype.
        attention.install_attention(model)
        recomputation.replace_norms_and_mlps(model, DTYPES[settings.precision or "fp32"])
        peak = memory.Peak(model.device)
        settings, share_prefixes = _check_sanity(model, rows, dev, end_tokens, settings, record)
        if shards:
            sharding.shard(model, settings, world)
        optimizer = MasterOptimizer(model, settings)
        if settings.gradient_checkpointing:
            layers.enable_checkpointing(model)
        if settings.compile:
            layers.compile_layers(model)

        # The rows, as the objective needs them; what it computes of the model's own likelihoods comes before the first update.
        objective = objectives.resolve(settings.objective or "sft")(model, settings, checkpoints)
        with world.first_alone("reference"):
            rows, dev = (_prepare_rows(objective, *split, record, stop) for split in ((rows, "train"), (dev, "dev")))
        lengths = rows.lengths
        steps = order.Steps.of(
            lengths,
            settings,
            shared=shared_prefixes(rows),
            computed_once=share_prefixes,
            share=(world.rank, world.size),
            in_step=shards,
        )

        # The steps, from the newest checkpoint on.
        progress = restore(optimizer, checkpoints, settings, record, world)
        training = _Training(
            model, optimizer, objective, rows, lengths, dev, steps, settings, checkpoints, record, progress, world,
            record_rows,
        )  # fmt: skip
        reason = training.run(stop)

        # The best weights.
        layers.restore(model)
        peaks = world.exchange(peak.bytes())
        more = {"processes": world.size, "peak_bytes_by_rank": peaks} if world.size > 1 else {}
        record("trained", **asdict(progress), reason=reason, peak_bytes=peaks[0], **more)
        if not world.is_first:
            return Outcome({}, progress, reason)
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
    world: World
    record_rows: bool
    is_checked: bool = True
    """Whether the dev check of the last step is made, where one is due: a checkpoint without it would go on otherwise."""
    throughput: Throughput = field(default_factory=Throughput)

    def run(self, stop: Callable[[], bool]) -> str:
        """Make the steps that are left; why there are no more. Where another process is lost, the last step made is saved."""
        try:
            return self.make_steps(stop)
        except ProcessLost as lost:
            step = self.progress.step
            if not (self.world.is_first and step and self.is_checked) or self.optimizer.is_sharded:
                raise
            if not manifest.path(self.checkpoints, step).exists():
                self.write_checkpoint()
            raise ProcessLost(
                f"{lost} The other processes have stopped; the checkpoint of step {step} is saved."
            ) from lost

    def make_steps(self, stop: Callable[[], bool]) -> str:
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
            self.is_checked = not due
            if due:
                self.validate()
                self.is_checked = True
            stopping = self.world.agree(stop()) and self.progress.step < len(self.steps)
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
        tokens = sum(self.lengths[row] for row in step.rows)
        if check_space and self.world.is_first:
            self.require_space()
        seconds = time.perf_counter() - start
        self.progress.step += 1
        self.progress.seconds += seconds
        self.throughput.add_step(tokens, seconds, update=update["update_seconds"])
        self.record(
            "step", step=self.progress.step, steps=len(self.steps), epoch=step.epoch, **update,
            tokens=tokens, tokens_per_second=tokens / seconds, **({"rows": step.rows} if self.record_rows else {}),
        )  # fmt: skip

    def update(self, step: order.Step, *, number: int) -> dict[str, Any]:
        """One optimizer step: loss = sum over its micro-batches ÷ count of the step (of loss tokens, pairs or answers)."""
        settings, found = self.settings, []
        objective = objectives.of_step(self.objective, self.model, self.rows, step.rows)
        torch.manual_seed(_dropout_seed(settings.seed, number, self.world.rank))
        for batch in step.batches:
            self.world.expect_all()
            measured = objective.measure(self.model, self.rows, batch or step.rows[:1])
            (measured.total if batch else 0 * measured.total).backward()
            self.optimizer.accumulate()
            if not batch:  # in step with processes that have one more
                continue
            found.append(replace(measured, total=measured.total.detach()))
        sums = self.world.total(_sums(found))
        means = _means(sums)
        start = time.perf_counter()
        self.optimizer.total_gradients(self.world)
        clip = self.optimizer.clip(int(sums["count"]), settings.clip_norm)
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
            "learnt": int(sums["loss_tokens"]),
            **({"computed": int(sums["computed"])} if "computed" in sums else {}),
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
            found = evaluate(self.model, self.objective, self.dev, self.settings.tokens_per_batch or 1, self.world)
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
        """Write a checkpoint, once for all processes, whose weights have to be the same."""
        if self.optimizer.is_sharded:
            self.write_shards()
            return
        if self.world.size > 1:
            self.world.expect_same({"weights": fingerprint(self.optimizer.masters.values())})
        if self.world.is_first:
            self.write_checkpoint()
        self.world.wait()

    def write_shards(self) -> None:
        """Write a checkpoint of which each process has a part."""
        start, step = time.perf_counter(), self.progress.step
        weights = {name: master.parameter for name, master in self.optimizer.masters.items()}
        tensors = sharding.with_shards(self.optimizer.state(), weights)
        sharding.save(self.checkpoints, step, tensors, self.state(), self.world)
        if self.world.is_first:
            self.rotate(start)
        self.world.wait()

    def state(self) -> dict[str, object]:
        """What a checkpoint says of the training besides its tensors."""
        settings, processes = self.settings.model_dump(mode="json"), self.world.size
        return {
            "order": order.VERSION, "settings": settings, "progress": asdict(self.progress), "processes": processes,
            "shards": self.optimizer.is_sharded,
        }  # fmt: skip

    def write_checkpoint(self) -> None:
        """Write a checkpoint; keep it, the one before it and the best one."""
        start = time.perf_counter()
        checkpoint.save(self.checkpoints, self.progress.step, self.optimizer.state(), self.state())
        self.rotate(start)

    def rotate(self, start: float) -> None:
        """Remove checkpoints that are not kept beside the new one, whose writing began at `start`, and record it."""
        step = self.progress.step
        if problem := checkpoint.rotate(self.checkpoints, best=self.progress.best_step, verified=step):
            message = f"the new checkpoint cannot be read back, so older checkpoints are kept: {problem}"
            self.record("warning", message=message)
        self.record("checkpoint", step=step, seconds=time.perf_counter() - start)


@torch.no_grad()
def evaluate(
    model: CausalModel, objective: Objective, rows: TokenRows, tokens_per_batch: int, world: World = ALONE
) -> dict[str, float]:
    """The mean loss over all rows and the objective's other figures, in evaluation mode and without gradients."""
    was_training = model.training
    model.eval()
    objective = objectives.of_step(objective, model, rows, range(len(rows)))
    batches = order.by_length(rows.lengths, tokens_per_batch)
    own = batches[world.rank :: world.size]
    found = [objective.measure(model, rows, batch) for batch in own]
    if sharding.is_sharded(model) and len(own) < -(-len(batches) // world.size):
        objective.measure(model, rows, batches[0])  # in step with processes that have one more
    model.train(was_training)
    return _means(world.total(_sums(found)))


def _sums(found: Sequence[Measured]) -> dict[str, float]:
    """What several batches have together: the loss, the other figures, and the counts; `computed` where all tell it."""
    sums = {"count": float(sum(part.count for part in found))}
    sums["loss"] = float(sum(part.total.double() for part in found))
    sums |= {
        name: float(sum(part.figures[name].double() for part in found)) for name in (found[0].figures if found else ())
    }
    sums["loss_tokens"] = float(sum(part.loss_tokens for part in found))
    each = [part.computed for part in found]
    return sums if None in each else sums | {"computed": float(sum(part or 0 for part in each))}


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    """The loss and the other figures, each divided by what was counted."""
    count = max(1.0, sums["count"])
    return {name: value / count for name, value in sums.items() if name not in ("count", "loss_tokens", "computed")}


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step, whenever it is made. Mixed, since torch's generator on a processor takes 32 bits of it."""
    entropy = (seed, step, rank) if rank else (seed, step)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
