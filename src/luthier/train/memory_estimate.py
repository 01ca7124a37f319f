"""An estimate of what a training takes, before it starts: memory by part, disk, and what would make it fit.

Weights, masters, moments and gradients are counted; saved activations are measured on one and two layers of the model
(`ModelSpec.saved_activations`). Time is estimated by the first steps (`throughput`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from luthier.model import methods
from luthier.model.causal import CausalModel
from luthier.model.device import DTYPES, Precision
from luthier.model.generate import CACHE_BYTES
from luthier.model.head import PIECE_BYTES, positions_at_once
from luthier.model.memory import GENERAL_ADVICE, rss
from luthier.model.spec import MEASURED, ModelSpec, first_rows
from luthier.recipe import Train
from luthier.runs.durable import format_bytes
from luthier.train import checkpoint, optimizer

MASTER = 4  # bytes of a master weight, and of a weight in the model that is saved
FOUR_BITS = 0.5 + (1 + 4 / 256) / 64  # bytes of a weight in NF4: 8 bits of scale for each 64, fp32 for 256 of these
MOMENTS = {"adamw": 8.0, "adamw-8bit": 2 * (1 + 4 / 256), "muon": 8.0}
"""Bytes of optimizer state per trainable weight; for others see `_optimizer_bytes`."""
UPDATE_BLOCK = optimizer.BLOCK * 2 * MASTER  # fp32 masters and gradients of the weights that are updated together
SPARE = 0.9  # of the available memory is planned with: the rest is for what no estimate knows
HEAP_GAPS = 0.8  # of what comes and goes in a step: batches differ in size, so the C library's heap has gaps
SMALLEST_BATCH = 128  # tokens below which a smaller batch saves hardly anything

Change = Mapping[str, Any]
"""Settings of `train` and the values that they would have instead."""


@dataclass(frozen=True)
class LargestBatch:
    """The rows of a training's largest batch by their lengths, and how many batches a step has."""

    lengths: tuple[int, ...]
    batches_per_step: int
    mixture: tuple[int, ...] = field(default=(), compare=False)
    """A batch as large with rows of all lengths, where they differ: it needs some padding, which one of like rows does not."""

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @classmethod
    def of(cls, lengths: Sequence[int] | np.ndarray, settings: Train) -> "LargestBatch":
        """The longest rows in one batch, and for comparison rows of all lengths in another; none begins like another.

        An upper bound where rows begin alike, since those need less.
        """
        budget = settings.tokens_per_batch or 1
        ordered = np.sort(np.asarray(lengths, np.int64))[::-1]
        stride = math.ceil(int(ordered.sum()) / budget)  # as many rows as fill a batch on average
        mixture = first_rows(ordered[:: max(1, stride)][:budget].tolist(), budget) if np.ptp(ordered) else ()
        batches_per_step = math.ceil((settings.tokens_per_step or budget) / budget)
        return cls(first_rows(ordered[:budget].tolist(), budget), batches_per_step, mixture)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training, by part; `answering` is what the questions before and after it take."""

    parts: dict[str, int]
    answering: int

    @property
    def training(self) -> int:
        return sum(self.parts.values())

    def fits(self, available: float) -> bool:
        """Whether the training fits into so many bytes, by this estimate."""
        return self.training <= available


def estimate_ranks(
    spec: ModelSpec,
    settings: Train,
    lengths: Sequence[int] | np.ndarray,
    device: torch.device,
    *,
    processes: int = 1,
    shards: bool = False,
) -> list[MemoryEstimate]:
    """The memory of each process, by rank. They share the rows of a step; with `shards` the weights and their state too."""
    if processes == 1:
        return [estimate_memory(spec, settings, LargestBatch.of(lengths, settings), device)]
    assert settings.tokens_per_step and settings.tokens_per_batch
    share = math.ceil(settings.tokens_per_step / processes)
    most = share + int(max(lengths))  # rows are dealt out whole
    own = settings.model_copy(
        update={"tokens_per_step": share, "tokens_per_batch": min(settings.tokens_per_batch, most)}
    )
    batch = LargestBatch.of(lengths, own)
    if not shards:
        return [estimate_memory(spec, own, batch, device, summed_over_processes=True)] * processes
    other = _in_shards(spec, own, batch, device, processes)
    assembled = 2 * MASTER * spec.parameters + (MASTER + round(MOMENTS["adamw"])) * spec.parameters // processes
    beyond = max(0, assembled + other.parts.get("the program", 0) - other.training)
    if device.type != "cpu" or not beyond:  # it is put together in the memory of the processor
        return [other] * processes
    first = MemoryEstimate({**other.parts, "the tuned model, beyond all that": beyond}, other.answering)
    return [first, *[other] * (processes - 1)]


def _in_shards(
    spec: ModelSpec, settings: Train, batch: LargestBatch, device: torch.device, processes: int
) -> MemoryEstimate:
    """Of a process that keeps its part of weights, gradients and moments, and puts a layer together while it computes."""
    itemsize, part = DTYPES[settings.precision or "fp32"].itemsize, math.ceil(spec.parameters / processes)
    head = _head_bytes(spec, batch.tokens, itemsize, trainable=False)
    saved = _saved_in_batch(spec, batch, settings)
    outside = (
        spec.embedding_parameters + spec.vocab_size * spec.hidden_size
    )  # embeddings and head, together all the while
    layer = max(0, spec.parameters - outside) // spec.num_layers
    on_processor = device.type == "cpu"
    parts = {
        "the program": rss() if on_processor else 0,
        "master weights, a part": MASTER * part,
        "optimizer, a part": _optimizer_bytes(spec, settings, part),
        "gradients, a part": MASTER * part,
        "layers that are put together": 2 * itemsize * (outside + 2 * layer),  # one is fetched ahead; their gradients
        "forward pass": saved,
        "output head": head,
        "gaps in the heap": round(HEAP_GAPS * (saved + head)) if on_processor else 0,
    }
    whole = parts["the program"] + MASTER * spec.parameters
    parts["the whole model as it is read, beyond all that"] = max(0, whole - sum(parts.values()))
    return MemoryEstimate(
        {name: bytes for name, bytes in parts.items() if bytes}, answering_bytes(spec, settings, device)
    )


def estimate_memory(
    spec: ModelSpec,
    settings: Train,
    batch: LargestBatch,
    device: torch.device,
    *,
    summed_over_processes: bool = False,
) -> MemoryEstimate:
    """Memory of a run that starts from this process: on a GPU what torch takes of it, else all of the process.

    Gradients that are summed over processes are fp32 then, beside those of one micro-batch in the model's dtype.
    """
    precision: Precision = settings.precision or "fp32"
    itemsize = DTYPES[precision].itemsize
    trainable = trainable_parameters(spec, settings)
    all_trainable = trainable == spec.parameters

    # While gradients are computed: what the forward pass saved, the head, and the sums of the batches before the last one.
    saved = _saved_in_batch(spec, batch, settings)
    head = _head_bytes(spec, batch.tokens, itemsize, trainable=all_trainable)
    gradients = itemsize * trainable
    accumulated = {1: 0, 2: gradients}.get(batch.batches_per_step, MASTER * trainable)

    # After that, and in the place of it: all gradients, and the fp32 numbers of the weights that are updated together.
    at_once = settings.optimizer not in optimizer.OPTIMIZERS and itemsize < MASTER
    updated = 2 * MASTER * trainable if at_once else 0 if accumulated else UPDATE_BLOCK
    summed = MASTER * trainable if summed_over_processes and itemsize < MASTER and not accumulated else 0
    beyond = max(0, max(gradients + summed, updated) - saved - head)

    on_processor = device.type == "cpu"
    gaps = round(HEAP_GAPS * (saved + head + accumulated + beyond)) if on_processor else 0
    parts = {
        "the program": rss() if on_processor else 0,
        "weights to compute with": _compute_weights(spec, settings, itemsize, all_trainable=all_trainable),
        "master weights": _master_bytes(trainable, itemsize, all_trainable=all_trainable),
        "optimizer": _optimizer_bytes(spec, settings, trainable),
        "gradients, summed": accumulated,
        "forward pass": saved,
        "output head": head,
        "gradients, beyond the forward pass": beyond,
        "gaps in the heap": gaps,
    }
    return MemoryEstimate(
        {name: bytes for name, bytes in parts.items() if bytes}, answering_bytes(spec, settings, device)
    )


def answering_bytes(spec: ModelSpec, settings: Train, device: torch.device) -> int:
    """Bytes while questions are answered in fp32: the weights, and the most that keys and values may take."""
    weights = _in_four_bits(spec, MASTER) if settings.method == "qlora" else MASTER * spec.parameters
    return (rss() if device.type == "cpu" else 0) + weights + CACHE_BYTES


def estimate_disk(spec: ModelSpec, settings: Train) -> dict[str, int]:
    """Bytes that a run leaves on the disk, checkpoints at their most numerous."""
    trainable = trainable_parameters(spec, settings)
    one = MASTER * trainable + _optimizer_bytes(spec, settings, trainable)
    checks = math.ceil((settings.max_steps or 1) / (settings.check_every or 1))
    most = min(checks, checkpoint.MOST_AT_ONCE)
    return {f"checkpoints: {most} of {format_bytes(one)}": most * one, "the model": MASTER * trainable}


def trainable_parameters(spec: ModelSpec, settings: Train) -> int:
    """How many weights are trained. Of a method of the user's own it is not known; all is the most that it can be."""
    if settings.method in ("lora", "dora", "qlora"):
        return spec.adapter_parameters(settings.lora_rank, magnitudes=settings.method == "dora")
    return spec.parameters


def ways_to_fit(settings: Train) -> Iterator[Change]:
    """Changes that save memory, the smallest first; each includes all those before it that it can be combined with."""
    combined: dict[str, Any] = {}
    tokens = settings.tokens_per_batch or 0
    while tokens > SMALLEST_BATCH:
        tokens //= 2
        combined = {**combined, "tokens_per_batch": tokens}
        yield combined
    if not settings.gradient_checkpointing:
        combined = {**combined, "gradient_checkpointing": True}
        yield combined
    if settings.method == "full":
        yield {**combined, "optimizer": "adafactor"}
        yield {"method": "lora"}
        yield {**combined, "method": "lora"}
    if settings.method in ("full", "lora", "dora"):
        yield {**combined, "method": "qlora"}


def advice(settings: Train) -> str:
    """What to change where a training with these settings ran out of memory, the smallest change first."""
    changes = []
    if settings.tokens_per_batch and settings.tokens_per_batch > 64:
        changes.append(
            f"continue with train.tokens_per_batch={settings.tokens_per_batch // 2} (it is {settings.tokens_per_batch:,}; "
            "the result is the same but for rounding)"
        )
    if settings.max_tokens and settings.max_tokens > 256:
        changes.append(
            f"start anew with train.max_tokens={settings.max_tokens // 2}, with which longer conversations lose turns"
        )
    if settings.method == "full":
        changes.append("start anew with train.method=lora, which keeps optimizer state for few weights")
    return ", or ".join([*changes, GENERAL_ADVICE])


def _saved_in_batch(spec: ModelSpec, batch: LargestBatch, settings: Train) -> int:
    """Bytes that the forward pass of the largest batch saves."""
    relevant = {"method", "lora_rank", "lora_alpha", "precision", "gradient_checkpointing"}
    shape = Train(**settings.model_dump(include=relevant))
    return max(_saved_at_any_length(spec, lengths, shape) for lengths in (batch.lengths, batch.mixture) if lengths)


def _saved_at_any_length(spec: ModelSpec, lengths: tuple[int, ...], settings: Train) -> int:
    """The same where a row is longer than what can be run in a moment: from two shorter rows.

    The second tells what grows with the square of a row's length, as scores of attention do where they are kept.
    """
    if max(lengths) <= MEASURED:
        return _saved_activations(spec, lengths, settings)
    half, whole = (_saved_activations(spec, (tokens,), settings) for tokens in (MEASURED // 2, MEASURED))
    square = 2 * max(0, whole - 2 * half) / MEASURED**2
    return round(sum(length * (whole / MEASURED + square * (length - MEASURED)) for length in lengths))


@lru_cache(maxsize=64)
def _saved_activations(spec: ModelSpec, lengths: tuple[int, ...], settings: Train) -> int:
    """Bytes that a forward pass saves, with the method's adapters if it has some; only relevant settings are set."""
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


def _compute_weights(spec: ModelSpec, settings: Train, itemsize: int, *, all_trainable: bool) -> int:
    """Bytes of the weights in the dtype that the model computes in; in fp32 trainable ones are their own masters."""
    if all_trainable:
        return itemsize * spec.parameters if itemsize < MASTER else 0
    adapters = itemsize * trainable_parameters(spec, settings)
    if settings.method == "qlora":
        return _in_four_bits(spec, itemsize) + adapters
    return itemsize * spec.parameters + adapters


def _master_bytes(trainable: int, itemsize: int, *, all_trainable: bool) -> int:
    """Beside weights in bf16 their low bits (`master_weights`); in fp32 all, unless they are counted as adapters."""
    return (MASTER - itemsize) * trainable if itemsize < MASTER else MASTER * trainable if all_trainable else 0


def _in_four_bits(spec: ModelSpec, itemsize: int) -> int:
    """Bytes of the weights with linear layers in 4 bits, and all else in numbers of so many bytes."""
    packed = sum(rows * columns for rows, columns in spec.adapted_shapes)
    return round(FOUR_BITS * packed) + itemsize * (spec.parameters - packed)


def _optimizer_bytes(spec: ModelSpec, settings: Train, trainable: int) -> int:
    """State of the optimizer; of one of the user's own as much as AdamW has."""
    if settings.optimizer == "muon" and trainable == spec.parameters:
        return round(MOMENTS["muon"] * trainable) - 4 * sum(rows * columns for rows, columns in spec.adapted_shapes)
    if settings.optimizer != "adafactor":
        return round(MOMENTS.get(settings.optimizer, MOMENTS["adamw"]) * trainable)
    if trainable == spec.parameters:
        return 4 * sum(math.prod(shape[:-1]) + shape[-1] for shape in spec.matrix_shapes)
    rank = settings.lora_rank
    return 4 * sum(rows + columns + 2 * rank for rows, columns in spec.adapted_shapes)


def _head_bytes(spec: ModelSpec, tokens: int, itemsize: int, *, trainable: bool) -> int:
    """A block of logits, which become their gradients, pieces of it in fp32 (`model/head.py`); the gradient of its weights.

    A model that must compute its logits itself keeps those of all tokens: its own, and in fp32 as they are, as probabilities,
    and as gradients.
    """
    row = spec.vocab_size * itemsize
    if not spec.plain_head:
        return tokens * (row + 3 * MASTER * spec.vocab_size) + (
            itemsize * spec.vocab_size * spec.hidden_size if trainable else 0
        )
    block = positions_at_once(row)
    work = min(block, tokens) * row + 3 * min(PIECE_BYTES, tokens * spec.vocab_size * MASTER)
    weights = spec.vocab_size * spec.hidden_size
    return work + (itemsize * weights + (MASTER * weights if tokens > block else 0) if trainable else 0)
