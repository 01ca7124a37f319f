"""The training loop: `train` is the rhythm, `_update` is the arithmetic.

What a step does depends on nothing but the recipe, the rows and the weights: the order is a pure function (`order`), dropout
is seeded by the step's number, and a checkpoint holds every number that the next update needs. So a run that was killed and
continued ends with the same weights, bit for bit, as one that was not.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from luthier.errors import CorruptedState, Interrupted, UserError
from luthier.model import allocator, attention, layers, memory, recomputation
from luthier.model.device import DTYPES
from luthier.model.head import CausalModel
from luthier.recipe import Train
from luthier.runs import durable, manifest
from luthier.train import checkpoint, nonfinite, objectives, order, sanity_check
from luthier.train.objectives import Measured, Objective, TokenRows
from luthier.train.optimizer import MasterOptimizer, learning_rate
from luthier.train.throughput import SAVED_PER_SECOND, STEPS_WATCHED, Pace

TIDIED = 2  # steps after which free memory goes back: batches of many sizes would leave ever more gaps


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
    first_loss: float | None = None
    """Dev loss before the first update; unknown where a run was begun without noting it."""

    def judge(self, loss: float) -> bool:
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
    ends: Collection[int] = (),
) -> Outcome:
    """Train until the steps are done or dev loss stops falling; continues from the newest good checkpoint.

    `settings` has every value set. `stop` is asked after each step; when it says yes, the step's checkpoint is written and
    `Interrupted` raised. `ends` are the tokens one of which ends what is learnt of a row, where there are such. Raises
    NonFiniteLoss before the update whose loss or gradient is not finite, and where the dev loss is not.
    """
    with allocator.MemoryPool().in_use():
        return _train(model, rows, dev, settings, checkpoints, record, stop, ends)


def _train(
    model: CausalModel,
    rows: TokenRows,
    dev: TokenRows,
    settings: Train,
    checkpoints: Path,
    record: Record,
    stop: Callable[[], bool],
    ends: Collection[int],
) -> Outcome:
    attention.install_attention(model)
    recomputation.replace_norms_and_mlps(model, DTYPES[settings.precision or "fp32"])
    peak = memory.Peak(model.device)
    settings, computed_once = _tried(model, rows, dev, ends, settings, record)
    optimizer = MasterOptimizer(model, settings)
    if settings.gradient_checkpointing:
        layers.enable_checkpointing(model)
    if settings.compile:
        layers.compile_layers(model)
    objective = objectives.resolve(settings.objective or "sft")(model, settings, checkpoints)
    rows, dev = (_seen(objective, *one, record, stop) for one in ((rows, "train"), (dev, "dev")))
    lengths = rows.lengths
    assert settings.check_every
    steps = order.Steps.of(lengths, settings, shared=objectives.shared_prefixes(rows), computed_once=computed_once)
    progress = _restore(optimizer, checkpoints, settings, record)
    room_needed = True
    pace = Pace(save=checkpoint.bytes_of(optimizer.state()) / SAVED_PER_SECOND)
    if not progress.step:
        pace.look = _check(model, optimizer, objective, dev, settings, progress, record)
    reason = "all steps done"
    model.train()
    while progress.step < len(steps):
        if progress.checks_without_best >= settings.patience:
            reason = f"no better for {settings.patience} dev checks"
            break
        start = time.perf_counter()
        step = steps[progress.step]
        update = _update(model, optimizer, objective, rows, step, settings, number=progress.step + 1, steps=len(steps))
        tokens = sum(lengths[row] for batch in step.batches for row in batch)
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
            tokens=tokens,
            tokens_per_second=tokens / seconds,
        )
        pace.step(tokens, seconds, update=update["update_seconds"])
        if progress.step == STEPS_WATCHED and pace.known:  # not where the training was continued before that
            checks = math.ceil(len(steps) / settings.check_every)
            record("forecast", steps=len(steps), **asdict(pace.forecast(steps.tokens, steps=len(steps), checks=checks)))
        due = progress.step % settings.check_every == 0 or progress.step == len(steps)
        if due:
            _check(model, optimizer, objective, dev, settings, progress, record)
        stopping = stop() and progress.step < len(steps)
        if due or stopping:
            _save(optimizer, progress, checkpoints, settings, record)
        if stopping:
            raise Interrupted(f"stopped after step {progress.step} of {len(steps)}; its checkpoint is saved.")
    layers.restore(model)
    record("trained", **asdict(progress), reason=reason, peak_bytes=peak.bytes())
    best = checkpoint.verify(manifest.path(checkpoints, progress.best_step))
    return Outcome(optimizer.weights_of(best.tensors()), progress, reason)


def _tried(
    model: CausalModel, rows: TokenRows, dev: TokenRows, ends: Collection[int], settings: Train, record: Record
) -> tuple[Train, bool]:
    """The settings after the self-test, which is told: a model that mixes rows gets one row to a batch.

    And whether what rows of a batch share is computed once.
    """
    longest = max(max(part.lengths, default=0) for part in (rows, dev))
    tried = sanity_check.run(model, rows, ends, longest=longest)
    record("selftest", **asdict(tried))
    if not tried.plain_head:
        told = "this kind of model makes its scores in a way of its own: those of all learnt tokens of a batch are kept at once"
        record("warning", message=f"{told}, which takes more memory.")
    if tried.apart and tried.together == longest:
        if not tried.shared:
            told = "attends in a way of its own, so a beginning that rows share is computed with each of them"
            record("warning", message=f"this kind of model {told}.")
        return settings, tried.shared
    told = "mixes rows that share a batch"
    if tried.apart:
        told = f"computes rows otherwise beside one of more than {tried.together:,} tokens, and there are such rows"
    record("warning", message=f"this kind of model {told}, so each row gets a batch of its own.")
    return settings.model_copy(update={"tokens_per_batch": 1}), False


def _seen(objective: Objective, rows: TokenRows, split: str, record: Record, stop: Callable[[], bool]) -> TokenRows:
    """The rows as the objective learns them; what it computes for that can be watched, and stopped."""

    def advance(done: int, of: int) -> None:
        record("reference", split=split, done=done, of=of)
        if stop() and done < of:
            told = f"stopped before the first step, with {done:,} of {of:,} {split} rows looked at; what was found is kept."
            raise Interrupted(told)

    return objective.see(rows, split, advance)


def _check(
    model: CausalModel,
    optimizer: MasterOptimizer,
    objective: Objective,
    dev: TokenRows,
    settings: Train,
    progress: Progress,
    record: Record,
) -> float:
    """Look at dev before the first step, or judge by it the step that was made; the seconds that the look took."""
    start = time.perf_counter()
    with optimizer.evaluating():
        found = look(model, objective, dev, settings.tokens_per_batch or 1)
    seconds = time.perf_counter() - start
    if not math.isfinite(found["loss"]):
        raise nonfinite.of_dev(model, objective, dev, settings, step=progress.step, loss=found["loss"])
    if progress.step:
        best, more = progress.judge(found["loss"]), {"first_loss": progress.first_loss}
    else:
        best, more, progress.first_loss = False, {}, found["loss"]
    record("dev", step=progress.step, best=best, **more, **found, seconds=seconds)
    return seconds


@torch.inference_mode()
def look(model: CausalModel, objective: Objective, rows: TokenRows, tokens_per_batch: int) -> dict[str, float]:
    """The mean loss over all rows, and what else the objective tells, without learning."""
    was_training = model.training
    model.eval()
    found = [objective.measure(model, rows, batch) for batch in order.by_length(rows.lengths, tokens_per_batch)]
    model.train(was_training)
    return _means(found)


def _means(found: Sequence[Measured]) -> dict[str, float]:
    """The loss and the other figures of several batches, each divided by what was counted in all of them."""
    count = max(1, sum(part.count for part in found))
    sums = {"loss": sum(part.total.double() for part in found)}
    sums |= {name: sum(part.figures[name].double() for part in found) for name in (found[0].figures if found else ())}
    return {name: float(total) / count for name, total in sums.items()}


def _update(
    model: CausalModel,
    optimizer: MasterOptimizer,
    objective: Objective,
    rows: TokenRows,
    step: order.Step,
    settings: Train,
    *,
    number: int,
    steps: int,
) -> dict[str, Any]:
    """One optimizer step: loss = sum over all batches ÷ count of the whole step (its learnt tokens, or its pairs)."""
    torch.manual_seed(_drawing(settings.seed, number))  # for models with dropout
    found: list[Measured] = []
    for batch in step.batches:
        measured = objective.measure(model, rows, batch)
        measured.total.backward()
        optimizer.accumulate()
        found.append(replace(measured, total=measured.total.detach()))
    means = _means(found)
    start = time.perf_counter()
    clip = optimizer.clip(sum(part.count for part in found), settings.clip_norm)
    if not (math.isfinite(means["loss"]) and math.isfinite(clip.norm)):
        raise nonfinite.of_step(model, objective, rows, step, settings, number=number, loss=means["loss"])
    assert settings.learning_rate is not None and settings.warmup_steps is not None
    rate = learning_rate(
        number, highest=settings.learning_rate, steps=steps, warmup=settings.warmup_steps, schedule=settings.schedule
    )
    optimizer.step(rate, clip.scale)
    if number % TIDIED == 0:
        allocator.give_back_free_memory()
    return {
        **means,
        "learning_rate": rate,
        "gradient_norm": clip.norm,
        "learnt": sum(part.loss_tokens for part in found),
        **_computed(found),
        "update_seconds": time.perf_counter() - start,
    }


def _computed(found: Sequence[Measured]) -> dict[str, int]:
    """The tokens that went through the model, where the objective tells them."""
    each = [part.computed for part in found]
    return {} if None in each else {"computed": sum(part or 0 for part in each)}


def _drawing(seed: int, step: int) -> int:
    """The seed of a step, whenever it is made. Mixed, since torch's generator on a processor takes 32 bits of it."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])


def _restore(optimizer: MasterOptimizer, checkpoints: Path, settings: Train, record: Record) -> Progress:
    """Take up the newest checkpoint that is whole, as is the best one before it; says aloud what was wrong with newer ones."""
    found, wrong = checkpoint.newest(
        checkpoints, companion=lambda one: int(one.state["progress"]["best_step"]) or one.step
    )
    if found is None:
        if wrong:
            told = "\n".join(wrong.values())
            raise CorruptedState(
                f"no checkpoint of this run is whole. Remove the folder to train again.\n{told}", where=str(checkpoints)
            )
        return Progress()
    if found.state["order"] != order.VERSION:
        raise UserError(
            "made by a Luthier with another data order; continue with that version.", where=str(found.folder)
        )
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
        raise UserError(
            f"made with other settings ({told}). Put them back, or start a new run with the new ones.",
            where=str(found.folder),
        )


def _require_room(optimizer: MasterOptimizer, checkpoints: Path, *, saves: int) -> None:
    """Stops now rather than after an hour, if the disk cannot hold the checkpoints to come and the model."""
    tensors = optimizer.state()
    wanted = min(saves, checkpoint.KEPT + 2) - len(manifest.folders(checkpoints))  # the best one, and one being written
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("weight/")}
    needed = max(0, wanted) * checkpoint.bytes_of(tensors) + checkpoint.bytes_of(weights)
    durable.require_space(checkpoints, needed, f"{max(0, wanted)} checkpoints to come and the model need")


def _save(optimizer: MasterOptimizer, progress: Progress, checkpoints: Path, settings: Train, record: Record) -> None:
    """Write a checkpoint; keep it, the one before it and the best one."""
    start = time.perf_counter()
    state = {"order": order.VERSION, "settings": settings.model_dump(mode="json"), "progress": asdict(progress)}
    checkpoint.save(checkpoints, progress.step, optimizer.state(), state)
    if problem := checkpoint.rotate(checkpoints, best=progress.best_step, verified=progress.step):
        record(
            "warning", message=f"the checkpoint just written does not read back, so the older ones are kept: {problem}"
        )
    record("checkpoint", step=progress.step, seconds=time.perf_counter() - start)
