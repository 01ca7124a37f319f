"""Trainings, each in a process of its own: one, the best of several settings, and several arms in alternation."""

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from environments import HERE, last_line, prepare, python, variables
from task import Result, Task

LONGEST = 1200  # seconds that a process may take
LOSS_NOISE = 1.05  # one training's held-out loss differs by up to 4 % from another's by the order of its rows alone


SMALL = "smollm2-135m"


class Failed(Exception):
    """A process ended without a result; says why in one line."""


@dataclass
class Bench:
    """What all trainings of one invocation have in common. An arm is a side and its setting: "trl grouped"."""

    folder: Path
    task: Task
    repeats: int
    model: str = SMALL
    prepared: set[str] = field(default_factory=set)

    def rows(self, name: str, **wanted: int) -> str:
        """A file of rows as `records.py` writes them, made on first use."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            options = [part for key, value in wanted.items() for part in (f"--{key}", str(value))]
            self._start("luthier", "records.py", str(file), "--model", self.model, *options)
        return str(file)

    def use_tiny_model(self) -> None:
        """Let all rows be made for a model that is too small to measure anything."""
        self.model = str(self.folder / "tiny")
        self._start("luthier", "random_model.py", self.model)

    def ask(self, script: str, task: Task) -> dict[str, Any]:
        """What a script of ours that takes a task's file and a result's tells."""
        side = script.removeprefix("run_").removesuffix(".py")
        side = side if side in ("trl", "litgpt", "unsloth") else "luthier"
        with tempfile.TemporaryDirectory() as folder:
            asked, told = Path(folder) / "task.json", Path(folder) / "result.json"
            asked.write_text(json.dumps(asdict(task)), encoding="utf-8")
            self._start(side, script, str(asked), str(told))
            found: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
        return found

    def run(self, arm: str, **changes: Any) -> Result:
        """Train once. Raises Failed, or Unavailable where the side's environment cannot be had."""
        side, setting = arm.split()
        if side not in self.prepared:
            prepare(side)
            self.prepared.add(side)
        if side == "luthier":
            changes["method"] = setting
        task = replace(self.task, setting=setting, **changes)
        start = time.perf_counter()
        found = Result(**self.ask(f"run_{side}.py", task))
        print(
            f"  {task.method:4} {task.learn:7} {arm:18} {found.tokens_per_second:8.1f} tokens/s  {found.peak:5.2f} GB "
            f"({found.peak_training:.2f} training)  held-out loss {found.heldout_loss:.4f}  "
            f"({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
        return found

    def _start(self, side: str, script: str, *arguments: str) -> None:
        with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log.txt").open("w+", encoding="utf-8") as log:
            command = [python(side), str(HERE / script), *arguments]
            try:
                done = subprocess.run(
                    command, env=variables(side), stdout=log, stderr=log, cwd=folder, timeout=LONGEST, check=False
                )
            except subprocess.TimeoutExpired:
                raise Failed(f"{script} took longer than {LONGEST} seconds") from None
            log.seek(0)
            if done.returncode:
                text = log.read()
                print("\n".join(text.splitlines()[-15:]), flush=True)
                raise Failed(f"{script} ended with {done.returncode}: {last_line(text)}")


@dataclass
class Search:
    """Settings of another side that were tried once each; the fastest fair one is its best."""

    best: str
    tried: list[Result]
    failed: dict[str, str]


def find_best(bench: Bench, side: str, names: Sequence[str], **changes: Any) -> Search:
    """Try the settings, the first of which is the side's default and has to work.

    Fair is a held-out loss that is as good as the default's for all that one training can tell.
    """
    default = bench.run(f"{side} {names[0]}", **changes)
    tried, failed = [default], {}
    for name in names[1:]:
        try:
            tried.append(bench.run(f"{side} {name}", **changes))
        except Failed as problem:
            failed[name] = str(problem)
    fair = [result for result in tried if result.heldout_loss <= default.heldout_loss * LOSS_NOISE]
    return Search(max(fair, key=lambda result: result.tokens_per_second).arm, tried, failed)


def alternate(
    bench: Bench, arms: Sequence[str], first: Sequence[Result] = (), **changes: Any
) -> dict[str, list[Result]]:
    """Trainings of each arm in an order that turns around from round to round, each round with a seed of its own.

    `first` are results with the first seed that a search has made already.
    """
    found: dict[str, list[Result]] = {arm: [one for one in first if one.arm == arm] for arm in arms}
    for number in range(bench.repeats):
        for arm in arms if number % 2 == 0 else list(reversed(arms)):
            if len(found[arm]) == number:
                # all weights keep their own rate beside adapters
                own = changes | ({"rate": bench.task.rate} if arm == "luthier full" else {})
                found[arm].append(bench.run(arm, seed=bench.task.seed + number, **own))
    return found
