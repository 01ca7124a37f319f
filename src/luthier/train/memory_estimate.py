"""What a training will need, before it starts: memory by part, disk, and what would make it fit.

Weights, masters, moments and gradients are counted; what the forward pass saves is measured on one layer of the model
(`ModelSpec.saved_activations`). Time is not told here: the first steps tell it (`pace`).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from luthier.model import methods
from luthier.model.device import DTYPES, Precision
from luthier.model.generate import CACHE_BYTES
from luthier.model.head import PIECE_BYTES, CausalModel, positions_at_once
from luthier.model.memory import GENERAL_ADVICE, rss
from luthier.model.spec import ModelSpec
from luthier.recipe import Train
from luthier.runs.durable import format_bytes
from luthier.train import checkpoint, optimizer

MASTER = 4  # bytes of a master weight, and of a weight in the model that is saved
FOUR_BITS = 0.5 + (1 + 4 / 256) / 64  # bytes of a weight in NF4: 8 bits of scale for each 64, fp32 for 256 of these
MOMENTS = {"adamw": 8.0, "adamw-8bit": 2 * (1 + 4 / 256)}  # bytes for each weight that learns; others: see `_moments`
UPDATED = optimizer.BLOCK * 2 * MASTER  # fp32 masters and gradients of the weights that are updated together
SPARE = 0.9  # of the available memory may be planned with: the rest is for what no plan knows
HELD_BACK = 0.8  # of what comes and goes in a step: batches differ in size, so the C library's heap has gaps
LEAST_BATCH = 128  # tokens below which a smaller batch saves hardly anything

Change = Mapping[str, Any]
"""Settings of `train` and the values that they would have instead."""


@dataclass(frozen=True)
class Load:
    """The largest batch of a training, and how many batches a step has."""

    lengths: tuple[int, ...]
    batches: int
    mixture: tuple[int, ...] = field(default=(), compare=False)
    """A batch as large with rows of all lengths, where they differ: it needs some padding, which one of like rows does not."""

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @classmethod
    def of(cls, lengths: Sequence[int], settings: Train) -> "Load":
        """The worst that can come: the longest rows in one batch, or rows as unlike as they are; none begins like another.

        Rows that begin alike need less, so this is an upper bound.
        """
        budget = settings.tokens_per_batch or 1
        ordered = sorted(lengths, reverse=True)
        stride = math.ceil(sum(ordered) / budget)  # as many rows as fill a batch on average
        mixture = _first(ordered[:: max(1, stride)], budget) if len(set(ordered)) > 1 else ()
        batches = math.ceil((settings.tokens_per_step or budget) / budget)
        return cls(_first(ordered, budget), batches, mixture)


def _first(lengths: Sequence[int], budget: int) -> tuple[int, ...]:
    """The first rows, as many as have so many tokens together; one at least."""
    ends = [end for end in itertools.accumulate(lengths) if end <= budget]
    return tuple(lengths[: max(1, len(ends))])


@dataclass(frozen=True)
class Memory:
    """Bytes at the worst moment of a training, by part; `answering` is what the questions before and after it take."""

    parts: dict[str, int]
    answering: int

    @property
    def training(self) -> int:
        return sum(self.parts.values())


def memory(spec: ModelSpec, settings: Train, load: Load, device: torch.device) -> Memory:
    """Memory of a run that starts from this process: on a GPU what torch takes of it, else all of the process."""
    precision: Precision = settings.precision or "fp32"
    number = DTYPES[precision].itemsize
    learns = learning(spec, settings)
    whole = learns == spec.parameters
    gradients = number * learns
    matter = {"method", "lora_rank", "lora_alpha", "precision", "gradient_checkpointing"}
    shape = Train(**settings.model_dump(include=matter))
    kept = max(_kept(spec, lengths, shape) for lengths in (load.lengths, load.mixture) if lengths)
    head = _head(spec, load.tokens, number, learns=whole)
    summed = {1: 0, 2: gradients}.get(load.batches, MASTER * learns)  # over the batches before the last one
    at_once = settings.optimizer not in optimizer.OPTIMIZERS and number < MASTER
    updated = 2 * MASTER * learns if at_once else 0 if summed else UPDATED
    coming = max(gradients, updated) - kept - head
    on_processor = device.type == "cpu"
    program = rss() if on_processor else 0
    gaps = round(HELD_BACK * (kept + head + summed + max(0, coming))) if on_processor else 0
    parts = {
        "the program": program,
        "weights to compute with": _computing(spec, settings, number, whole=whole),
        "master weights": _masters(learns, number, whole=whole),
        "optimizer": _moments(spec, settings, learns),
        "gradients, summed": summed,
        "forward pass": kept,
        "output head": head,
        "gradients, beyond the forward pass": max(0, coming),
        "gaps in the heap": gaps,
    }
    return Memory({name: bytes for name, bytes in parts.items() if bytes}, answering(spec, settings, device))


def answering(spec: ModelSpec, settings: Train, device: torch.device) -> int:
    """Bytes while questions are answered in fp32: the weights, and the most that keys and values may take."""
    weights = _in_four_bits(spec, MASTER) if settings.method == "qlora" else MASTER * spec.parameters
    return (rss() if device.type == "cpu" else 0) + weights + CACHE_BYTES


def disk(spec: ModelSpec, settings: Train) -> dict[str, int]:
    """Bytes that a run leaves on the disk, checkpoints at their most numerous."""
    learns = learning(spec, settings)
    one = MASTER * learns + _moments(spec, settings, learns)
    checks = math.ceil((settings.max_steps or 1) / (settings.check_every or 1))
    kept = min(checks, checkpoint.KEPT + 2)  # the newest, the best, and the one that is being written
    return {f"checkpoints: {kept} of {format_bytes(one)}": kept * one, "the model": MASTER * learns}


def learning(spec: ModelSpec, settings: Train) -> int:
    """How many weights learn. Of a method of the user's own it is not known; all is the most that it can be."""
    if settings.method in ("lora", "dora", "qlora"):
        return spec.adapter_parameters(settings.lora_rank, magnitudes=settings.method == "dora")
    return spec.parameters


def ways_to_fit(settings: Train) -> Iterator[Change]:
    """Changes that save memory, the smallest first; each holds all those before it that it can be combined with."""
    taken: dict[str, Any] = {}
    tokens = settings.tokens_per_batch or 0
    while tokens > LEAST_BATCH:
        tokens //= 2
        taken = {**taken, "tokens_per_batch": tokens}
        yield taken
    if not settings.gradient_checkpointing:
        taken = {**taken, "gradient_checkpointing": True}
        yield taken
    if settings.method == "full":
        yield {**taken, "optimizer": "adafactor"}
        yield {"method": "lora"}
        yield {**taken, "method": "lora"}
    if settings.method in ("full", "lora", "dora"):
        yield {**taken, "method": "qlora"}


def advice(settings: Train) -> str:
    """What to change where a training with these settings ran out of memory, the smallest change first."""
    changes = []
    if settings.tokens_per_batch and settings.tokens_per_batch > 64:
        changes.append(
            f"continue with train.tokens_per_batch={settings.tokens_per_batch // 2} (it is {settings.tokens_per_batch:,}; "
            "the result is the same but for rounding)"
        )
    if settings.max_tokens and settings.max_tokens > 256:
        changes.append(f"start anew with train.max_tokens={settings.max_tokens // 2}, which drops longer rows")
    if settings.method == "full":
        changes.append("start anew with train.method=lora, which keeps optimizer state for few weights")
    return ", or ".join([*changes, GENERAL_ADVICE])


@lru_cache(maxsize=64)
def _kept(spec: ModelSpec, lengths: tuple[int, ...], settings: Train) -> int:
    """What a forward pass keeps, with the adapters of the method if it has some; only settings that matter are set."""
    precision: Precision = settings.precision or "fp32"
    method = methods.METHODS.get(settings.method or "full", methods.METHODS["full"])

    def prepare(model: CausalModel) -> CausalModel:
        prepared = method.prepare(model, settings)
        for weight in prepared.parameters():
            if weight.requires_grad and not method.keep_fp32:
                weight.data = weight.data.to(DTYPES[precision])
        return prepared

    checkpointing = bool(settings.gradient_checkpointing)
    return spec.saved_activations(lengths, precision, checkpointing=checkpointing, prepare=prepare)


def _computing(spec: ModelSpec, settings: Train, number: int, *, whole: bool) -> int:
    """Weights in the number format of the products; in fp32 those that learn are their own masters."""
    if whole:
        return number * spec.parameters if number < MASTER else 0
    adapters = number * learning(spec, settings)
    if settings.method == "qlora":
        return _in_four_bits(spec, number) + adapters
    return number * spec.parameters + adapters


def _masters(learns: int, number: int, *, whole: bool) -> int:
    """Beside weights in bf16 the bits that these lack (`masters`); in fp32 all, unless they are counted as adapters."""
    return (MASTER - number) * learns if number < MASTER else MASTER * learns if whole else 0


def _in_four_bits(spec: ModelSpec, number: int) -> int:
    """The linear layers in 4 bits and all else in numbers of so many bytes."""
    packed = sum(rows * columns for rows, columns in spec.adapted_shapes)
    return round(FOUR_BITS * packed) + number * (spec.parameters - packed)


def _moments(spec: ModelSpec, settings: Train, learns: int) -> int:
    """What the optimizer remembers; of one of the user's own as much as AdamW does."""
    if settings.optimizer != "adafactor":
        return round(MOMENTS.get(settings.optimizer, MOMENTS["adamw"]) * learns)
    if learns == spec.parameters:
        return 4 * sum(math.prod(shape[:-1]) + shape[-1] for shape in spec.matrix_shapes)
    rank = settings.lora_rank
    return 4 * sum(rows + columns + 2 * rank for rows, columns in spec.adapted_shapes)


def _head(spec: ModelSpec, tokens: int, number: int, *, learns: bool) -> int:
    """A block of scores, which become their gradients, pieces of it in fp32 (`model/head.py`); the gradient of its weights.

    A model that must make its scores itself keeps those of all tokens: its own, and in fp32 as they are, as probabilities, and
    as gradients.
    """
    row = spec.vocab_size * number
    if not spec.plain_head:
        return tokens * (row + 3 * MASTER * spec.vocab_size) + (
            number * spec.vocab_size * spec.hidden_size if learns else 0
        )
    block = positions_at_once(row)
    work = min(block, tokens) * row + 3 * min(PIECE_BYTES, tokens * spec.vocab_size * MASTER)
    weights = spec.vocab_size * spec.hidden_size
    return work + (number * weights + (MASTER * weights if tokens > block else 0) if learns else 0)
