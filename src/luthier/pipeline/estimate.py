"""What a training will need, before it starts: does it fit, how long will it take, and what would make it fit.

Sizes come from the model's configuration, memory from counting and from one layer of the model, time from three steps that are
really made, on the user's rows, in a folder that is thrown away.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from luthier.data.dataset import Progress
from luthier.data.prepared import Prepared
from luthier.model import device, loading, memory, methods
from luthier.model.reference import ModelReference
from luthier.model.spec import ModelSpec
from luthier.pipeline import defaults, opening, preparation
from luthier.pipeline.preparation import Preparation
from luthier.recipe import Recipe, Train
from luthier.runs import durable
from luthier.train import launch, loop, memory_estimate, sharding
from luthier.train.memory_estimate import LargestBatch, MemoryEstimate
from luthier.train.order import Steps
from luthier.train.rows import first_rows
from luthier.train.throughput import STEPS_MEASURED, Forecast, Throughput

ASSUMED_ROW = 128  # tokens of a row where no data is named
ASSUMED_STEP = 1024  # tokens of a step then
TRIAL_BATCHES = 2  # of a step, where it has as many: then gradients are summed as they will be, and time goes by tokens
TRIAL_DEV_BATCHES = 2  # batches of dev tokens in the three steps; the time of a whole validation follows from them


@dataclass(frozen=True)
class Alternative:
    """Something else that could be done with the model, and the memory for it (bytes)."""

    name: str
    needed: int


@dataclass(frozen=True)
class Trial:
    """What three steps showed: the time of the whole training, tokens per second, and the highest memory in use (bytes)."""

    forecast: Forecast
    tokens_per_second: float
    peak: int | None


@dataclass(frozen=True)
class Estimate:
    """All that is known of a training before it starts; memory and disk in bytes."""

    model: str
    spec: ModelSpec
    train: Train
    batch: LargestBatch
    ranks: list[MemoryEstimate]
    """Of each process that trains."""
    needed: int
    """Of all of them where they share the machine's memory, of the largest where each has a GPU."""
    available: int
    disk: dict[str, int]
    free: int
    alternatives: list[Alternative]
    remedies: list[tuple[memory_estimate.Change, int]]
    """Where it does not fit: changes that save memory, the smallest first, up to the first that is enough."""
    shards: bool = False
    in_shards: int | None = None
    """What is needed with --shard, where several processes could train so and do not."""
    preparation: Preparation | None = None
    trial: Trial | None = None

    @property
    def memory(self) -> MemoryEstimate:
        """Of the first process."""
        return self.ranks[0]

    @property
    def answering(self) -> int:
        """While questions are answered: by all processes where each holds the whole model, else by the first alone."""
        together = self.needed == sum(rank.training for rank in self.ranks) and not self.shards
        return self.memory.answering * (len(self.ranks) if together else 1)

    @property
    def fits(self) -> bool:
        """Whether the training fits into the memory."""
        return self.needed <= self.available


def training(
    asked: Recipe,
    *,
    memory_bytes: int | None = None,
    processes: int = 1,
    shards: bool = False,
    try_steps: bool = True,
    progress: Progress | None = None,
) -> Estimate:
    """The estimate for this recipe; without data, for rows of 128 tokens.

    `memory_bytes` asks about a GPU with so much memory instead of this machine, or about as many as there are `processes`. No
    steps are tried then, nor for several processes, nor where the training does not fit or the model's weights are not here.
    """
    if not memory_bytes:
        launch.expect_devices(processes)
    made = preparation.prepare(asked, progress=progress) if asked.data.path is not None else None
    spec = made.model.spec if made else ModelReference.of(asked.model, weights=False).spec
    where = torch.device("cuda") if memory_bytes else device.pick_device()
    train = made.recipe.train if made else _assumed(asked.train, spec, "bf16" if memory_bytes else None)
    if shards and processes > 1:
        sharding.check(train)
    lengths = made.rows["train"].number("length") if made else np.full(ASSUMED_STEP, ASSUMED_ROW)
    crew = _Crew(spec, lengths, where, processes, shards)
    available = memory_bytes or memory.available(where)
    ranks, needed = crew.ranks(train), crew.needed(train)
    fits = needed <= available
    whole = processes > 1 and not shards and sharding.is_possible(train)
    found = Estimate(
        model=asked.model,
        spec=spec,
        train=train,
        batch=LargestBatch.of(lengths, train),
        ranks=ranks,
        needed=needed,
        available=available,
        disk=memory_estimate.estimate_disk(spec, train),
        free=durable.free_space(opening.default_folder(asked)),
        alternatives=list(_alternatives(crew, train)),
        remedies=[] if fits else list(_remedies(crew, train, available)),
        shards=shards,
        in_shards=replace(crew, shards=True).needed(train) if whole else None,
        preparation=made,
    )
    if made and try_steps and fits and not memory_bytes and processes == 1:
        return replace(found, trial=_try_three_steps(asked, made))
    return found


@dataclass(frozen=True)
class _Crew:
    """The processes that would train, on what rows, and where."""

    spec: ModelSpec
    lengths: np.ndarray
    where: torch.device
    processes: int
    shards: bool

    def ranks(self, train: Train) -> list[MemoryEstimate]:
        """The memory of each process with these settings."""
        shards = self.shards and sharding.is_possible(train)
        return memory_estimate.estimate_ranks(
            self.spec, train, self.lengths, self.where, processes=self.processes, shards=shards
        )

    def needed(self, train: Train) -> int:
        """The memory that has to be there: processes share the machine's, and each has a GPU of its own."""
        each = [rank.training for rank in self.ranks(train)]
        return max(each) if self.where.type == "cuda" else sum(each)


def _assumed(asked: Train, spec: ModelSpec, precision: device.Precision | None) -> Train:
    """The settings without data; by default in the dtype that a run here would take."""
    small = spec.parameters <= defaults.FULL_TUNING_UP_TO
    step = asked.tokens_per_step or ASSUMED_STEP
    return asked.model_copy(
        update={
            "method": asked.method or ("full" if small else "lora"),
            "precision": asked.precision or precision or device.pick_precision(device.pick_device())[0],
            "tokens_per_step": step,
            "tokens_per_batch": asked.tokens_per_batch or min(ASSUMED_STEP, step),
        }
    )


def _alternatives(crew: _Crew, train: Train) -> Iterator[Alternative]:
    """Training by each method, and answering in either dtype."""
    for method in ("full", "lora", "qlora"):
        yield Alternative(f"train, {method}", crew.needed(train.model_copy(update={"method": method})))
    full = train.model_copy(update={"method": "full"})
    answering = memory_estimate.answering_bytes(crew.spec, full, crew.where)
    yield Alternative("answer in fp32, as Luthier does", answering)
    yield Alternative("answer in bf16, elsewhere", answering - 2 * crew.spec.parameters)


def _remedies(crew: _Crew, train: Train, available: int) -> Iterator[tuple[memory_estimate.Change, int]]:
    least = crew.needed(train)
    for change in memory_estimate.ways_to_fit(train):
        needed = crew.needed(train.model_copy(update=dict(change)))
        if needed < least:  # smaller batches are more of them, and their gradients have to be summed
            least = needed
            yield change, needed
        if needed <= available:
            return


def _try_three_steps(asked: Recipe, made: Preparation) -> Trial:
    """Three small steps and a checkpoint as the run will make them, in a folder beside its own."""
    settings = made.recipe.train
    assert settings.tokens_per_step and settings.tokens_per_batch and settings.check_every
    tokens = min(settings.tokens_per_step, TRIAL_BATCHES * settings.tokens_per_batch)
    changes = {"max_steps": STEPS_MEASURED, "check_every": STEPS_MEASURED, "tokens_per_step": tokens}
    short = settings.model_copy(update=changes)
    events: list[dict[str, Any]] = []
    with durable.scratch_folder(opening.default_folder(asked).parent) as folder:
        # The first rows of the training and some of dev
        durable.make_folders(folder / "checkpoints")
        for split in ("train", "dev"):
            made.rows[split].write(folder / f"{split}.arrow")
        rows, dev = (Prepared(folder / f"{split}.arrow") for split in ("train", "dev"))
        steps = Steps.of(rows.lengths, settings, shared=rows.shared_prefixes)
        first = (row for step in steps for batch in step.batches for row in batch)
        trial_rows = first_rows(rows, first, tokens=STEPS_MEASURED * tokens)
        trial_dev = first_rows(dev, range(len(dev)), tokens=TRIAL_DEV_BATCHES * settings.tokens_per_batch)

        # Three steps on them
        with memory.explain_out_of_memory("to try three steps", memory_estimate.advice(settings)):
            method = methods.resolve(settings.method or "full")
            lm = loading.load(
                made.model, quantised=method.quantised, merged=made.model.is_adapter,
                variables=made.recipe.chat.variables, today=made.recipe.chat.date,
            )  # fmt: skip
            loop.train(
                method.prepare(lm.model, short), trial_rows, trial_dev, short,
                checkpoints=folder / "checkpoints", record=lambda kind, **fields: events.append({"kind": kind, **fields}),
                end_tokens=() if rows.documents else lm.template.stop_ids,
            )  # fmt: skip

    # What they say of all the steps
    last = {event["kind"]: event for event in events}
    share = sum(trial_dev.lengths) / sum(dev.lengths)
    throughput = Throughput(
        validation_seconds=last["dev"]["seconds"] / share, save_seconds=last["checkpoint"]["seconds"]
    )
    for event in events:
        if event["kind"] == "step":
            seconds = event["tokens"] / event["tokens_per_second"]
            throughput.add_step(event["tokens"], seconds, update=event["update_seconds"])
    checks = math.ceil(len(steps) / settings.check_every)
    forecast = throughput.forecast(steps.tokens, steps=len(steps), checks=checks)
    return Trial(forecast, steps.tokens / forecast.steps, last["trained"]["peak_bytes"])
