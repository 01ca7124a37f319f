"""Time of a multiple-choice benchmark: ours inside lm-eval against lm-eval's own `hf` model, and the scores item by item.

    likelihood.py arc_easy_test.jsonl --write

First `hf` looks for its fastest batch size on a part of the file. Then both answer the whole, a block after the other in
turns, so that a slow minute of the machine falls on both.
"""

import argparse
import contextlib
import io
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from record import circumstances, write_section

from luthier.evaluate.benchmark import tasks
from luthier.evaluate.benchmark.model import HarnessModel
from luthier.model import loading

HEADING = "Likelihood speed"
Scores = dict[int, tuple[float, float]]


def load_task(file: Path) -> Any:
    """The file's task, as `luthier benchmark` makes it."""
    with contextlib.redirect_stderr(io.StringIO()):
        (task,) = tasks.load([str(file)]).values()
    return task


def asked(lm: LM, task: Any, numbers: Sequence[int]) -> tuple[float, Scores]:
    """Seconds for some of the items, from their texts to their scores; and acc and acc_norm of each."""
    quiet = contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO())
    with quiet[0], quiet[1], tasks.seeded([task]):
        start = time.perf_counter()
        output = evaluate(
            lm,
            {"tasks": {task.task_name: task}, "groups": {}},
            samples={task.task_name: list(numbers)},
            bootstrap_iters=0,
        )
        spent = time.perf_counter() - start
    assert output is not None
    return spent, {
        sample["doc_id"]: (sample["acc"], sample["acc_norm"]) for sample in output["samples"][task.task_name]
    }


def best_batch_size(
    folder: str, ours: LM, task: Any, numbers: Sequence[int], sizes: Sequence[str]
) -> tuple[str, list[str]]:
    """The batch size with which `hf` is fastest on these items, and a line for each that was tried."""
    seconds: dict[str, float] = {}
    lines = []
    for size in sizes:
        hf = HFLM(folder, device="cpu", batch_size=int(size) if size.isdigit() else size, max_batch_size=64)
        asked(hf, task, numbers[:4])
        mine, _ = asked(ours, task, numbers)
        seconds[size], _ = asked(hf, task, numbers)
        lines.append(f"| {size} | {len(numbers) / seconds[size]:.2f} | {seconds[size] / mine:.2f} × |")
        print(lines[-1], flush=True)
    return min(seconds, key=lambda size: seconds[size]), lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="likelihood_speed", description=__doc__)
    parser.add_argument("file", type=Path, help="questions in ARC's shape")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--limit", type=int, help="only the first items")
    parser.add_argument("--tried-on", type=int, default=64, help="items on which batch sizes are tried")
    parser.add_argument("--sizes", default="1,8,16,32,64,auto", help="batch sizes of hf to try")
    parser.add_argument("--blocks", type=int, default=8, help="in so many parts both answer in turns")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    given = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    lm = loading.load(given.model)
    ours = HarnessModel(lm, lambda done, of: None)
    task = load_task(given.file)
    count = min(len(task.test_docs()), given.limit or 1 << 30)
    spread = list(range(0, count, max(1, count // given.tried_on)))[: given.tried_on]
    asked(ours, task, spread[:4])
    best, tried = best_batch_size(str(lm.folder), ours, task, spread, given.sizes.split(","))
    hf = HFLM(str(lm.folder), device="cpu", batch_size=int(best) if best.isdigit() else best, max_batch_size=64)
    seconds, scores = {"ours": 0.0, "hf": 0.0}, {"ours": Scores(), "hf": Scores()}
    size = -(-count // given.blocks)
    for block, start in enumerate(range(0, count, size)):
        arms: list[tuple[str, LM]] = [("ours", ours), ("hf", hf)]
        for name, model in arms if block % 2 == 0 else reversed(arms):
            spent, found = asked(model, task, range(start, min(start + size, count)))
            seconds[name] += spent
            scores[name] |= found
        print(f"{min(start + size, count)} items: ratio {seconds['hf'] / seconds['ours']:.2f}", flush=True)
    text = report(given.file, count, best, tried, seconds, scores)
    print("\n" + text)
    if given.write:
        write_section(HEADING, text)


def report(
    file: Path, count: int, best: str, tried: Sequence[str], seconds: dict[str, float], scores: dict[str, Scores]
) -> str:
    """The table, and whether all items agree."""
    different = sum(scores["ours"][number] != scores["hf"][number] for number in scores["ours"])
    ratio = seconds["hf"] / seconds["ours"]
    lines = [
        f"`benchmarks/likelihood_speed {file.name}`, {circumstances(('torch', 'transformers', 'lm-eval'))}",
        "",
        f"SmolLM2-135M-Instruct in fp32 on {count:,} questions in ARC's shape, inside lm-eval: the model of "
        "`luthier benchmark`, "
        f"and lm-eval's own `hf` with the batch size that is its fastest ({best}). From texts to scores; loading is left out.",
        "",
        "| | questions/s | acc | acc_norm |",
        "|---|--:|--:|--:|",
    ]
    for name, label in (("ours", "Luthier"), ("hf", f"lm-eval hf, batch size {best}")):
        acc, norm = (sum(score[at] for score in scores[name].values()) / count for at in (0, 1))
        lines.append(f"| {label} | {count / seconds[name]:.2f} | {100 * acc:.3f} % | {100 * norm:.3f} % |")
    agree = "every item has the same two scores" if not different else f"{different} items have other scores"
    reached = "reached" if ratio >= 1 and not different else "missed"
    lines += [
        "",
        f"Luthier is faster by {ratio:.2f} ×; {agree} ({reached}: at least as fast, the same to the item).",
        "",
    ]
    lines += [
        "| hf's batch size, on a part of the file | questions/s | Luthier is faster by |",
        "|---|--:|--:|",
        *tried,
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
