"""How near training comes to what this machine's bf16 matrix products allow, and where the rest of the time goes.

Called by compare.py. In one process: a training with products between its steps, so that both have the machine at the same
times, then a few steps under torch's profiler. A token takes 6 operations for each parameter to train (Kaplan et al. 2020,
section 2.1); attention's own products are left out.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import breakdown
import run_luthier
import torch
from task import Task
from torch import Tensor, nn
from torch.nn.functional import linear

from luthier.model import loading

SQUARES = (1024, 2048, 4096)
TRIALS = 2


@dataclass(frozen=True)
class Limit:
    """Products in operations per second, training in tokens per second; the shares are of what the products allow.

    Each product's speed is the median over the pauses between steps of the faster of two.
    """

    squares: dict[str, float]
    shapes: float
    tokens_per_second: float
    parameters: int
    share_of_squares: float
    share_of_shapes: float
    seconds: breakdown.Breakdown
    versions: dict[str, str]


def best(run: Callable[[], Tensor], trials: int = TRIALS) -> float:
    """Seconds of the fastest of some trials, after one that does not count."""
    run()
    found = float("inf")
    for _ in range(trials):
        start = time.perf_counter()
        run()
        found = min(found, time.perf_counter() - start)
    return found


def square(size: int) -> float:
    """Operations per second of a product of two square matrices."""
    left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / best(lambda: left @ right)


def model_shapes(weights: dict[tuple[int, int], int], tokens: int) -> float:
    """Operations per second of the three products that each of these matrices needs in a step, all together.

    Forward, the gradient of what came in, and the gradient of the weight, as torch's own linear layer asks for them.
    """
    work = seconds = 0.0
    for (outputs, inputs), count in weights.items():
        weight = torch.randn(outputs, inputs, dtype=torch.bfloat16)
        states = torch.randn(tokens, inputs, dtype=torch.bfloat16)
        grad = torch.randn(tokens, outputs, dtype=torch.bfloat16)
        took = best(lambda states=states, weight=weight: linear(states, weight))  # type: ignore[misc]
        took += best(lambda grad=grad, weight=weight: grad @ weight)  # type: ignore[misc]
        took += best(lambda grad=grad, states=states: grad.T @ states)  # type: ignore[misc]
        work += count * 6 * tokens * outputs * inputs
        seconds += count * took
    return work / seconds


def run(task: Task) -> Limit:
    model = loading.load(task.read_rows().folder, device=torch.device("cpu")).model
    parameters = sum(weight.numel() for weight in model.parameters())
    vocabulary = int(model.config.vocab_size)
    weights = Counter(tuple(module.weight.shape) for module in model.modules() if isinstance(module, nn.Linear))
    del model
    assert task.tokens_per_step
    tokens, shapes = task.tokens_per_step, dict(weights)
    paused: dict[int, list[float]] = {size: [] for size in (SQUARES[:1] if task.smoke else SQUARES)}
    shaped_each: list[float] = []

    def between_steps(number: int) -> None:
        if number >= task.warmup:
            for size, speeds in paused.items():
                speeds.append(square(size))
            shaped_each.append(model_shapes(shapes, tokens))  # type: ignore[arg-type]

    trained = run_luthier.run(task, between_steps)
    squares, shaped = {str(size): median(speeds) for size, speeds in paused.items()}, median(shaped_each)
    needed = 6 * parameters * trained.tokens_per_second
    return Limit(
        squares,
        shaped,
        trained.tokens_per_second,
        parameters,
        needed / max(squares.values()),
        needed / shaped,
        profiled(task, vocabulary),
        trained.versions,
    )


def profiled(task: Task, vocabulary: int) -> breakdown.Breakdown:
    """A training again, the steps after its warm-up under the profiler."""
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True)
    times: list[float] = []
    steps = task.warmup + (1 if task.smoke else 3)

    def after_step(number: int) -> None:
        if number == task.warmup:
            profiler.start()
            times.append(time.perf_counter())
        if number == steps:
            times.append(time.perf_counter())
            profiler.stop()

    run_luthier.run(replace(task, max_steps=steps), after_step)
    start, end = times
    return breakdown.read(
        profiler.events() or [], vocabulary=vocabulary, wall_seconds=end - start, steps=steps - task.warmup
    )


if __name__ == "__main__":
    asked, told = (Path(argument) for argument in sys.argv[1:])
    found = run(Task(**json.loads(asked.read_text(encoding="utf-8"))))
    told.write_text(json.dumps(asdict(found)), encoding="utf-8")
