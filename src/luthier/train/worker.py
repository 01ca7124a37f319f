"""Train a run's model, in one process or as one of several: all that it takes is in the run folder.

    torchrun --nnodes 2 --nproc-per-node 4 … -m luthier.train.worker RUN

trains a run that `luthier run … --until-training` has prepared; `luthier resume RUN` then asks the tuned model.
"""

import hashlib
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from luthier import recipe as recipes
from luthier.data.prepared import Prepared
from luthier.errors import UserError
from luthier.model import identity, loading, memory, methods, tuned
from luthier.model.loading import LanguageModel
from luthier.runs import Run, durable
from luthier.runs.signals import stopping
from luthier.train import launch, loop, memory_estimate, sharding
from luthier.train.progress import Record
from luthier.train.world import World

PACKAGES = ("luthier", "torch", "transformers", "peft")
DONE = "trained; `luthier resume` asks the tuned model and gives the verdict."


def tune(current: Run, base: LanguageModel, *, record: Record, stop: Callable[[], bool], world: World) -> None:
    """Tune the base model, whose weights change; the first process saves the best checkpoint as the run's model."""
    settings = recipes.load(current.folder / "recipe.toml").train
    with memory.explain_out_of_memory("to train", memory_estimate.advice(settings)), world.explained():
        shards = bool(current.metadata.get("shards")) and world.size > 1
        if shards:
            sharding.check(settings)
        if world.size > 1:
            world.expect_same(_inputs(current))
        model = methods.resolve(settings.method or "full").prepare(base.model, settings)
        rows, dev = (Prepared(current.folder / "data" / f"{name}.arrow") for name in ("train", "dev"))
        outcome = loop.train(
            model, rows, dev, settings, checkpoints=current.folder / "checkpoints", record=record, stop=stop,
            end_tokens=() if rows.documents else base.template.stop_ids, world=world,
            record_rows=bool(current.metadata.get("record_rows")), shards=shards,
        )  # fmt: skip
        if world.is_first:
            if shards:  # the model in memory has a part of each weight
                model = loading.load(base.reference, device=torch.device("cpu")).model
            loading.save(model, base.tokenizer, base.template, current.folder / "model", outcome.weights)
        world.wait()


def _inputs(current: Run) -> dict[str, str | None]:
    """What has to be the same in all processes: versions, recipe and data; the weights are compared at every checkpoint."""
    found: dict[str, str | None] = {f"version {name}": version(name) for name in PACKAGES}
    found["recipe.toml"] = hashlib.sha256((current.folder / "recipe.toml").read_bytes()).hexdigest()
    for name in ("data/train.arrow", "data/dev.arrow"):
        found[name] = durable.digest(current.folder / name)
    return found


def main() -> None:
    """One process of a training, of which the environment says which one it is; exit codes as of `luthier`."""
    sys.path.append(str(Path.cwd()))
    if len(sys.argv) != 2:
        raise SystemExit("luthier.train.worker: expected RUN, the folder of a prepared run.")
    folder = Path(sys.argv[1])
    try:
        with launch.of_environment() as world, launch.noting_failure(world):
            _train(folder, world)
    except UserError as error:
        print(f"luthier: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _train(folder: Path, world: World) -> None:
    """Train as the first process or as another one."""
    if world.is_first:
        _train_as_first(folder, world)
        return
    with stopping(lambda: None) as stopped:
        current = Run(folder)
        base = tuned.starting_model(current, recipes.load(folder / "recipe.toml"))
        tuned.expect_same_base(current, base)
        tune(current, base, record=_unheard, stop=stopped, world=world)


def _train_as_first(folder: Path, world: World) -> None:
    """Train a prepared run with its lock held; it stays one that goes on, with `luthier resume`."""
    current = Run(folder)
    with current.lock(), stopping(lambda: current.record("stopping")) as stopped:
        current.update(state="running", reason=None)
        reason = DONE
        try:
            base = tuned.starting_model(current, recipes.load(folder / "recipe.toml"))
            tuned.expect_same_base(current, base)
            current.expect_whole("data")
            if not (folder / "model").is_dir():
                tune(current, base, record=current.record, stop=stopped, world=world)
            current.record_checksums([folder / "model"])
            hashes = {**current.metadata["hashes"], "model": identity.fingerprint(folder / "model")}
            current.update(hashes=hashes)
        except BaseException as error:
            reason = str(error) or type(error).__name__
            raise
        finally:
            current.update(state="interrupted", reason=reason)
    print(f"Trained. Continue with: luthier resume {folder}")


def _unheard(kind: str, **fields: object) -> None:
    """Events are recorded by the first process alone."""


if __name__ == "__main__":
    main()
