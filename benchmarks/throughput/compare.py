"""Measures the parts that are asked for and rewrites what RESULTS.md says about them. See benchmarks/train_throughput.

full      full fine-tuning, every token learnt, against TRL's best setting
answers   the same with the answers learnt
lora      LoRA beside all linear layers, against TRL with peft at its best
full-fp32, lora-fp32   the same where bf16 is slow: TRL without autocast to it
memory    peak memory by tokens of a batch, and by records
limit     what bf16 matrix products allow, and where a step's time goes
peers     LitGPT, and Unsloth's backend for processors
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import page
from bench import LOSS_NOISE, SMALL, Bench, Failed, Search, alternate, find_best
from environments import Unavailable
from task import Learn, Method, Result, Task

from luthier.model.device import Precision, pick_device, pick_precision

# our-order is TRL's defaults without gradient checkpointing, the rows in the order in which ours takes them
TRL = ["default", "our-order", "grouped", "packed", "bf16-weights"]
TRL_ANSWERS = ["default", "grouped"]
TRL_LORA = [*TRL, "grouped-bf16"]
TRL_FP32 = ["fp32", "fp32-our-order", "fp32-grouped", "fp32-packed"]
PEERS = {"litgpt": ["default", "batches-of-8"], "unsloth": ["default", "fp32-grouped"]}
LORA_RATE = 1e-3  # adapters start at 0 and take about ten times the rate of all weights


@dataclass(frozen=True)
class Part:
    """What measures it, and about how many minutes that takes on two cores with three repeats."""

    measure: Callable[[Bench], dict[str, Any]]
    minutes: int
    precision: Precision = "bf16"
    """On which kind of processor it is measured when no part is named: where bf16 is fast, or where it is not."""


def against_trl(
    bench: Bench, arms: list[str], names: list[str], *, learn: Learn = "all", method: Method = "full", rate: float
) -> dict[str, Any]:
    """TRL's best setting of these, then our arms, that one and TRL in our order, in alternation."""
    search = find_best(bench, "trl", names, learn=learn, method=method, rate=rate)
    order = "trl fp32-our-order" if "fp32-our-order" in names else "trl our-order"
    every = list(dict.fromkeys([*arms, search.best, order]))
    found = alternate(bench, every, search.tried, learn=learn, method=method, rate=rate)
    return {"found": found, "search": search, "order": order, "rate": rate, "loss_noise": LOSS_NOISE}


def records(bench: Bench) -> dict[str, int]:
    """What `records.py` is to make for the trainings that are compared."""
    seed = {"seed": bench.task.seed}
    return seed | ({"train": 16, "dev": 2, "length": 32} if bench.task.smoke else {"train": 96, "dev": 32})


def full(bench: Bench) -> dict[str, Any]:
    return against_trl(bench, ["luthier full"], TRL, rate=bench.task.rate)


def answers(bench: Bench) -> dict[str, Any]:
    return against_trl(bench, ["luthier full"], TRL_ANSWERS, learn="answers", rate=bench.task.rate)


def lora(bench: Bench) -> dict[str, Any]:
    return against_trl(bench, ["luthier lora", "luthier full"], TRL_LORA, method="lora", rate=LORA_RATE)


def full_fp32(bench: Bench) -> dict[str, Any]:
    return against_trl(bench, ["luthier full"], TRL_FP32, rate=bench.task.rate)


def lora_fp32(bench: Bench) -> dict[str, Any]:
    return against_trl(bench, ["luthier lora", "luthier full"], TRL_FP32, method="lora", rate=LORA_RATE)


def memory(bench: Bench) -> dict[str, Any]:
    """Two steps of each: the peak is reached in the second, when the optimizer has its moments."""
    few, many = (bench.rows(f"rows-{number}", train=number, dev=8) for number in (96, 960))

    def peak(tokens: int, rows: str) -> Result:
        return bench.run("luthier full", rows=rows, tokens_per_step=tokens, max_steps=2, warmup=1)

    tokens = [64, 128, 256] if bench.task.smoke else [512, 1024, 2048, 4096]
    budgets = {budget: peak(budget, few) for budget in tokens}
    return {"budgets": budgets, "records": {96: budgets[tokens[1]], 960: peak(tokens[1], many)}, "tokens": tokens[1]}


def limit(bench: Bench) -> dict[str, Any]:
    lengths: dict[int, Any] = {}
    for length in (128, 512):
        rows = bench.rows(f"rows-of-{length}", train=8 * 1024 // length, dev=2, length=length)
        task = replace(bench.task, rows=rows, tokens_per_step=1024, max_steps=2 if bench.task.smoke else 8)
        lengths[length] = bench.ask("run_limit.py", task)
        print(
            f"  rows of {length}: {lengths[length]['tokens_per_second']:.0f} tokens/s, "
            f"{100 * lengths[length]['share_of_squares']:.0f} % of what large products allow, "
            f"{100 * lengths[length]['share_of_shapes']:.0f} % of what those of the model's shapes do",
            flush=True,
        )
    return {"lengths": lengths}


def peers(bench: Bench) -> dict[str, Any]:
    """Each peer's settings once, and ours once; one that cannot be had here is named with the reason."""
    # LitGPT knows the measures of the small model only
    bench = replace(bench, model=SMALL)
    bench.task = replace(bench.task, rows=bench.rows("rows-of-the-small-model", **records(bench)))
    searches: dict[str, Search] = {}
    missing: dict[str, str] = {}
    for side, names in PEERS.items():
        try:
            searches[side] = find_best(bench, side, names)
        except (Failed, Unavailable) as problem:
            missing[side] = f"{side} was not measured: {problem}"
            print(f"  {missing[side]}", flush=True)
    found = {"luthier full": [bench.run("luthier full")]}
    found |= {one.arm: [one] for search in searches.values() for one in search.tried}
    return {"found": found, "searches": searches, "missing": missing}


PARTS = {
    "full": Part(full, 13),
    "answers": Part(answers, 9),
    "lora": Part(lora, 14),
    "full-fp32": Part(full_fp32, 20, "fp32"),
    "lora-fp32": Part(lora_fp32, 22, "fp32"),
    "memory": Part(memory, 2),
    "limit": Part(limit, 3),
    "peers": Part(peers, 6),
}


def versions(found: Any) -> dict[str, str]:
    """The versions that the part's results tell, gathered."""
    if isinstance(found, dict):
        own = {key: str(value) for key, value in found.get("versions", {}).items()}
        return own | {name: text for value in found.values() for name, text in versions(value).items()}
    return {name: text for one in found for name, text in versions(one).items()} if isinstance(found, list) else {}


def measure(
    names: list[str], bench: Bench, measured: dict[str, Any], load: float, save: Callable[[], None]
) -> list[str]:
    """Measure the parts in turn, saving after each; the names of those that failed."""
    failed: list[str] = []
    for name in names:
        print(f"\n{name}: about {PARTS[name].minutes} minutes", flush=True)
        start = time.perf_counter()
        try:
            found = page.plain(PARTS[name].measure(bench))
        except (Failed, Unavailable) as problem:
            print(f"{name} failed: {problem}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        # in peers each side has its own versions of the same packages
        told = {} if name == "peers" else versions(found)
        software = "".join(f", {package} {version}" for package, version in sorted(told.items()))
        measured[name] = {"when": page.circumstances(load), "versions": software, **found}
        save()
        print(f"{name}: done in {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="train_throughput", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be given several times")
    parser.add_argument("--smoke", action="store_true", help="two steps of everything, on a tiny model; writes nothing")
    parser.add_argument("--repeats", type=int, default=3, help="processes per arm")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the 96 records (about 11,000 tokens each)")
    parser.add_argument("--rate", type=float, default=1e-4, help="highest learning rate where all weights learn")
    parser.add_argument("--warmup", type=int, default=2, help="first steps of each process that are not timed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    here, reason = pick_precision(pick_device())
    names = [name for name, part in PARTS.items() if (name in given.part if given.part else part.precision == here)]
    print(f"{reason}: the parts for {here}" if not given.part else reason, flush=True)
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"the load average is {load:.1f}: other processes will spoil the timings", file=sys.stderr)
    print(f"{', '.join(names)}: about {sum(PARTS[name].minutes for name in names)} minutes in all", flush=True)
    measured = {} if given.smoke else page.load()

    def save() -> None:
        if not given.smoke:
            page.save(measured)

    with tempfile.TemporaryDirectory() as folder:
        steps, warmup = (2, 1) if given.smoke else (None, given.warmup)
        task = Task(
            "", epochs=given.epochs, max_steps=steps, rate=given.rate, warmup=warmup, seed=given.seed, smoke=given.smoke
        )
        bench = Bench(Path(folder), task, 1 if given.smoke else given.repeats)
        if given.smoke:
            bench.use_tiny_model()
        bench.task = replace(task, rows=bench.rows("rows", **records(bench)))
        failed = measure(names, bench, measured, load, save)
    print("\n" + page.section(measured))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
