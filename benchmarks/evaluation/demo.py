"""The demo of two commits in alternation, each run a process of its own; its events tell where the time goes."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from record import circumstances, write_section

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = ["run", "examples/tickets/tickets.jsonl", "--recipe", "examples/tickets/recipe.toml", "--quiet"]
SPLITS = {"guard": "guards", "dev": "choices on dev", "test": "answers on test"}
TRAINING = {"step", "dev", "checkpoint", "selftest", "forecast", "reference", "trained"}
AIM = 0.5
LIMITS = ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS"]


@dataclass(frozen=True)
class Demo:
    """One run: seconds of wall time in all and by what they went into, seconds of processor time, and the verdict."""

    seconds: float
    busy: float
    stages: dict[str, float]
    verdict: str


def stage(event: dict[str, Any]) -> str:
    """What the time before an event went into."""
    if event["kind"] == "arm":
        side = "tuned" if event["arm"].startswith("fine-tuned") else "base"
        return f"{side}: {SPLITS.get(event['split'], event['split'])}"
    return "training" if event["kind"] in TRAINING else "everything else"


def measure(source: Path, words: list[str]) -> Demo:
    """Run the demo of the checkout at `source`."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-c", "from luthier.cli.main import main; main()", *DEMO, "--run", str(run), *words]
        before = os.times()
        start = time.perf_counter()
        own = os.environ | {"PYTHONPATH": str(source / "src")}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=own, cwd=source)
        seconds, after = time.perf_counter() - start, os.times()
        events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
        verdict = json.loads((run / "evaluation" / "verdict.json").read_text(encoding="utf-8"))
    stages: Counter[str] = Counter()
    last = datetime.fromisoformat(events[0]["time"])
    for event in events:
        now = datetime.fromisoformat(event["time"])
        stages[stage(event)] += (now - last).total_seconds()
        last = now
    stages["everything else"] += seconds - sum(stages.values())
    busy = after.children_user - before.children_user + after.children_system - before.children_system
    score, other = (f"{100 * verdict['arms'][arm]['mean']:.1f}" for arm in ("fine-tuned", verdict["best_prompt_arm"]))
    return Demo(seconds, busy, dict(stages), f"{verdict['verdict']}, {score} against {other}")


def table(found: dict[str, list[Demo]]) -> list[str]:
    """Medians by stage, and the new build's share of the old one's time."""
    old, new = found.values()
    names = list(dict.fromkeys(name for demo in [*old, *new] for name in demo.stages))
    lines = [f"| | {' | '.join(f'{name}, s' for name in found)} | share |", "|---|--:|--:|--:|"]

    def line(name: str, before: list[float], after: list[float]) -> str:
        share = f"{median(after) / median(before):.2f} ×" if median(before) else "–"
        return f"| {name} | {median(before):.0f} | {median(after):.0f} | {share} |"

    for name in names:
        lines.append(
            line(name, [demo.stages.get(name, 0.0) for demo in old], [demo.stages.get(name, 0.0) for demo in new])
        )
    lines.append(line("**in all**", [demo.seconds for demo in old], [demo.seconds for demo in new]))
    lines.append(line("processor time", [demo.busy for demo in old], [demo.busy for demo in new]))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="demo_time", description=__doc__)
    parser.add_argument("commit", help="the older build")
    parser.add_argument("words", nargs="*", help="key=value words for both runs")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="rewrite this benchmark's part of RESULTS.md")
    given = parser.parse_args()
    limits = " ".join(f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ)
    found: dict[str, list[Demo]] = {given.commit: [], "this build": []}
    with tempfile.TemporaryDirectory() as folder:
        older = Path(folder) / "older"
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(older), given.commit], check=True
        )
        try:
            sources = {given.commit: older, "this build": ROOT}
            for number in range(given.repeats):
                for name in list(sources) if number % 2 == 0 else reversed(list(sources)):
                    found[name].append(measure(sources[name], given.words))
                    print(f"{name}: {found[name][-1]}", file=sys.stderr, flush=True)
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(older)], check=True)
    old, new = (median(demo.seconds for demo in demos) for demos in found.values())
    reached = "reached" if new <= AIM * old else "not reached"
    text = "\n".join(
        [
            f"`benchmarks/demo_time {given.commit}`, {circumstances(['torch', 'transformers'])}",
            *([f"\nThe processor is told to be less: {limits}."] if limits else []),
            "",
            *table(found),
            "",
            "Verdicts: " + "; ".join(f"{name}: {demos[-1].verdict}" for name, demos in found.items()) + ".",
            "",
            f"Aim: at most {AIM:g} × the older build's time; {new / old:.2f} ×, {reached}.",
        ]
    )
    print(text)
    if given.write:
        write_section("Time of the demo" + (" without fast bf16" if limits else ""), text)


if __name__ == "__main__":
    main()
