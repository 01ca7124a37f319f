"""Where the time of a few steps goes, by torch's profiler: each operator's own time, put into one of a few kinds.

What an operator is for is read from its name, the shapes that it got and what called it, and not from names in our sources.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

KINDS = (
    "products of the layers",
    "products of the head",
    "attention",
    "softmax of the head",
    "norms and element-wise",
    "copies and casts",
    "optimizer",
    "outside operators",
)
PRODUCTS = {"mm", "addmm", "linear", "matmul", "mkldnn_linear", "_addmm_activation"}
BATCHED = {"bmm", "baddbmm"}
ADDING = {"addmm", "baddbmm"}  # to what comes first
COUNTED = {"mm", "bmm", *ADDING}  # what the others call
COPIES = {
    "copy_", "_to_copy", "to", "clone", "contiguous", "cat", "stack", "index_select", "index_copy_", "index", "gather",
    "scatter_add_", "fill_", "zero_", "zeros", "new_zeros", "empty", "empty_like", "empty_strided", "new_empty", "as_strided",
    "view", "reshape", "transpose", "t", "slice", "select", "split", "expand", "embedding", "embedding_dense_backward",
    "index_add_", "permute", "detach", "resize_",
}  # fmt: skip


@dataclass(frozen=True)
class Breakdown:
    """Shares of the time by kind, adding up to 1; floating-point operations per second inside products; largest operators."""

    shares: dict[str, float]
    products_per_second: dict[str, float]
    largest: list[tuple[str, str, float]]
    seconds_per_step: float


def kind_of(name: str, shapes: Iterable[Any], callers: Iterable[str], vocabulary: int) -> str:
    """The kind of an operator that got inputs of these shapes and was called by these."""
    word = name.removeprefix("aten::")
    if "optimizer.step" in " ".join((name, *callers)).lower() or "adam" in word:
        return "optimizer"
    whole_vocabulary = any(vocabulary in shape for shape in shapes if isinstance(shape, (list, tuple)))
    if word in PRODUCTS:
        return "products of the head" if whole_vocabulary else "products of the layers"
    if word in BATCHED or "attention" in word:
        return "attention"
    if "softmax" in word and not whole_vocabulary:
        return "attention"
    if word in COPIES:
        return "copies and casts"
    return "softmax of the head" if whole_vocabulary else "norms and element-wise"


def operations(name: str, shapes: list[Any]) -> int:
    """Floating-point operations of a matrix product, from the shapes of its inputs; 0 of anything else."""
    word = name.removeprefix("aten::")
    first = 1 if word in ADDING else 0
    factors = shapes[first : first + 2]  # a place for the result may follow
    if word not in COUNTED or len(factors) < 2:
        return 0
    left, right = factors
    return int(2 * prod(left) * right[-1])


def read(events: Iterable[Any], *, vocabulary: int, wall_seconds: float, steps: int) -> Breakdown:
    """What the profiler's events say about steps that took this long together."""
    seconds: Counter[str] = Counter()
    work: Counter[str] = Counter()
    by_operator: defaultdict[tuple[str, str], float] = defaultdict(float)
    for event in events:
        callers, parent = [], event.cpu_parent
        while parent is not None:
            callers.append(parent.name)
            parent = parent.cpu_parent
        shapes = list(event.input_shapes or [])
        own = event.self_cpu_time_total / 1e6
        operator = event.name.startswith("aten::")
        kind = kind_of(event.name, shapes, callers, vocabulary)
        if not operator and kind != "optimizer":
            kind = "outside operators"  # what autograd and Python do between operators
        seconds[kind] += own
        by_operator[event.name, kind] += own
        work[kind] += operations(event.name, shapes)
    seconds["outside operators"] += max(0.0, wall_seconds - sum(seconds.values()))
    whole = sum(seconds.values())
    largest = sorted(by_operator.items(), key=lambda item: -item[1])[:12]
    return Breakdown(
        {kind: seconds[kind] / whole for kind in KINDS},
        {kind: work[kind] / seconds[kind] for kind in KINDS if work[kind] and seconds[kind]},
        [(name, kind, own / whole) for (name, kind), own in largest],
        wall_seconds / steps,
    )
