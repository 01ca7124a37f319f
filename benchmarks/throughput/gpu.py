"""Ours and TRL on a CUDA GPU, each training in a process of its own; the trainings are those of the comparison on processors.

See benchmarks/train_on_gpu.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench import Bench, Failed, alternate, find_best
from environments import Unavailable, last_line
from page import settings_table
from random_model import SHAPES, TINY, Shape, make_model, make_rows
from targets import memory, speed
from task import Task

from luthier.errors import UserError
from luthier.model.reference import find_folder

NO_GPU = 4  # exit code
SETTINGS = [
    "default",
    "our-order",
    "bf16-weights",
    "packed",
]  # TRL's; our-order: its defaults, no gradient checkpointing
# dense bf16 operations per second from the makers' data sheets, by a part of the name that torch gives
DATA_SHEETS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}


def operations_per_token(parameters: int, shape: Shape, length: int) -> int:
    """Of a training step: 6 a parameter, and attention's own (Chowdhery et al. 2022, appendix B)."""
    return 6 * parameters + 12 * shape.layers * shape.width * length


def products_per_second(device: str, size: int) -> float:
    """Operations per second of large bf16 products here: the fastest of some."""
    left = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    fastest = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        (left @ left)[0, 0].item()  # waits for a GPU
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


def require(device: str) -> str:
    """The device's name; ends the program where there is none."""
    if device == "cpu":
        return "processor"
    if not torch.cuda.is_available():
        print(
            "there is no CUDA GPU here, or this torch cannot use it "
            f"(torch {torch.__version__}). To see that the script works: --device cpu --tiny",
            file=sys.stderr,
        )
        sys.exit(NO_GPU)
    return torch.cuda.get_device_name()


def report(bench: Bench, name: str, shape: Shape, parameters: int, length: int) -> list[str]:
    """Train and tell: Markdown."""
    needed = operations_per_token(parameters, shape, length)
    here = products_per_second(bench.task.device, 1024 if bench.task.device == "cpu" else 8192)
    sheet = next((peak for part, peak in DATA_SHEETS.items() if part in name), None)
    method, tokens = bench.task.method, bench.task.tokens_per_step
    search = find_best(bench, "trl", SETTINGS, method=method)
    found = alternate(bench, [f"luthier {method}", search.best], search.tried, method=method)
    lines = [
        f"{name}; {parameters:,} parameters, {method}, rows of {length:,} tokens, {tokens:,} tokens a step. Large bf16 "
        f"products: {here / 1e12:.1f} TFLOP/s measured, {f'{sheet / 1e12:.0f}' if sheet else 'unknown'} on the data sheet.",
        "",
        "| arm | tokens/s | × TRL's best | utilisation of measured products | of the data sheet's | peak GB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for arm, many in found.items():
        work = speed(many) * needed
        lines.append(
            f"| {arm} | {speed(many):.0f} | {speed(many) / speed(found[search.best]):.2f} | {100 * work / here:.1f} % "
            f"| {f'{100 * work / sheet:.1f} %' if sheet else '–'} | {memory(many):.2f} |"
        )
    failed = [f"`trl {setting}` gave no result: {reason}" for setting, reason in search.failed.items()]
    return [*lines, "", *settings_table(search.tried), "", *failed]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train_on_gpu", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="1b", help="about how many parameters")
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=12, help="steps of each training, 8 rows each")
    parser.add_argument("--warmup", type=int, default=3, help="first steps that are not timed")
    parser.add_argument("--repeats", type=int, default=3, help="processes per arm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model, rows and steps too small to measure anything")
    given = parser.parse_args()
    if given.tiny:
        given.length, given.steps, given.warmup, given.repeats = 32, 3, 1, 1
    if not 1 <= given.warmup < given.steps:
        parser.error("--warmup has to be at least 1 and less than --steps")
    return given


def main() -> None:
    given = arguments()
    name = require(given.device)
    shape = TINY if given.tiny else SHAPES[given.shape]
    print(f"{name}: ours and {len(SETTINGS)} settings of TRL, about 20 minutes with 1 billion parameters", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder, file = Path(temporary) / "model", Path(temporary) / "rows.json"
        parameters = make_model(shape, folder, tokenizer=find_folder("smollm2-135m"), seed=given.seed)
        make_rows(file, folder, rows=8 * given.steps, length=given.length, seed=given.seed)
        task = Task(
            str(file),
            method=given.method,
            max_steps=given.steps,
            rate=1e-4,
            warmup=given.warmup,
            seed=given.seed,
            tokens_per_step=8 * given.length,
            device=given.device,
        )
        bench = Bench(Path(temporary), task, given.repeats)
        print("\n" + "\n".join(report(bench, name, shape, parameters, given.length)))


if __name__ == "__main__":
    try:
        main()
    except (Failed, Unavailable, UserError) as problem:
        sys.exit(last_line(str(problem)))
