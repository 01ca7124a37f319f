"""How far a training has come, and how it takes up the newest whole checkpoint."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from luthier.errors import CorruptedState, UserError
from luthier.recipe import Train
from luthier.runs import durable, manifest
from luthier.train import checkpoint, order, sharding
from luthier.train.optimizer import MasterOptimizer
from luthier.train.world import World


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


def restore(optimizer: MasterOptimizer, checkpoints: Path, settings: Train, record: Record, world: World) -> Progress:
    """Load the newest checkpoint that is whole, as is the best one before it; what is wrong with newer ones is a warning.

    Where there are several processes, the first one chooses it for all.
    """
    if not world.is_first:
        step = world.exchange(None)[0]
        chosen = checkpoint.verify(manifest.path(checkpoints, step)) if step else None
        if chosen is None:
            return Progress()
        _load(optimizer, chosen)
        return Progress(**chosen.state["progress"])
    found = _newest(checkpoints, settings, record, world.size)
    world.exchange(found.step if found else 0)
    if found is None:
        return Progress()
    _load(optimizer, found)
    progress = Progress(**found.state["progress"])
    record("resumed", step=progress.step)
    return progress


def _load(optimizer: MasterOptimizer, found: checkpoint.Checkpoint) -> None:
    """Take up a checkpoint: of shards each process its own part, where the weights are spread over several."""
    if not optimizer.is_sharded:
        optimizer.load(found.tensors())
        return
    if not found.is_sharded:
        raise UserError(
            "this run was trained with whole weights in each process so far. Go on without --shard, or start a new run.",
            where=str(found.folder),
        )
    weights = {name: master.parameter for name, master in optimizer.masters.items()}
    tensors = sharding.with_shards(optimizer.state(), weights)
    optimizer.load(sharding.load(found, {name: tensor.clone() for name, tensor in tensors.items()}))


def _newest(checkpoints: Path, settings: Train, record: Record, processes: int) -> checkpoint.Checkpoint | None:
    """What the first process does, which alone puts a damaged checkpoint away."""
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
        return None
    if found.state["order"] != order.VERSION:
        raise UserError(
            "made by a Luthier with another data order; continue with that version.", where=str(found.folder)
        )
    _require_same_settings(found, settings, record)
    if (before := int(found.state.get("processes", 1))) != processes:
        message = (
            f"trained by {_count_processes(before)}, now by {_count_processes(processes)}: the rows and their order stay, "
            "but the result is the same up to rounding only, and not bit for bit."
        )
        record("warning", message=message)
    for folder, problem in wrong.items():
        message = f"skipped a damaged checkpoint and continued from step {found.step}: {problem}"
        record("warning", message=message)
        durable.remove(folder)
    return found


def _count_processes(number: int) -> str:
    return f"{number:,} process{'' if number == 1 else 'es'}"


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
