"""Runs on an example, each in a process of its own, with few questions; their reports tell what was foretold and measured."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from record import circumstances, write_section

ROOT = Path(__file__).resolve().parent.parent.parent
TICKETS = ROOT / "examples" / "tickets" / "tickets.jsonl"
HEADING = "Foretold and measured"
QUICK = [
    "data.group=customer", "data.test_items=8", "data.dev_items=24", "evaluate.arms=zero-shot,fine-tuned", "evaluate.guards=[]",
    "evaluate.max_new_tokens=48",
]  # fmt: skip
SETTINGS = {
    "all weights, bf16": ["train.epochs=1"],
    "adapters (lora), bf16": ["train.method=lora", "train.max_steps=40"],
    "all weights, fp32, adafactor": ["train.precision=fp32", "train.optimizer=adafactor", "train.max_steps=20"],
    "all weights, bf16, four batches a step": [
        "train.tokens_per_step=4096",
        "train.tokens_per_batch=1024",
        "train.max_steps=12",
    ],
}
WITHIN = {"memory": 0.15, "time": 0.25}


def measure(words: list[str]) -> dict[str, Mapping[str, float]]:
    """What a run foretold and measured, by quantity."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        start = "from luthier.cli.main import main; main()"
        command = [sys.executable, "-c", start, "run", str(TICKETS), *QUICK, *words, "--run", str(run), "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        told = json.loads((run / "report.json").read_text(encoding="utf-8"))["training"]["foretold"]
    return {one["what"]: one for one in told}


def main() -> None:
    words = argparse.ArgumentParser(prog="plan_accuracy", description=__doc__)
    words.parse_args()
    lines = [
        "| setting | memory foretold | measured | off by | time foretold | measured | off by |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    worst = dict.fromkeys(WITHIN, 0.0)
    for setting, asked in SETTINGS.items():
        print(f"{setting} …", file=sys.stderr, flush=True)
        found = measure(asked)
        cells = [setting]
        for what, one in found.items():
            unit = (1e9, "GB", ".2f") if what == "memory" else (1, "s", ".0f")
            cells += [f"{one[side] / unit[0]:{unit[2]}} {unit[1]}" for side in ("foretold", "measured")]
            cells.append(f"{100 * one['off']:+.0f} %")
            worst[what] = max(worst[what], abs(one["off"]))
        lines.append(f"| {' | '.join(cells)} |")
    told = "; ".join(
        f"{what} at most {100 * worst[what]:.0f} % ({'reached' if worst[what] <= most else 'not reached'}: {100 * most:.0f} %)"
        for what, most in WITHIN.items()
    )
    text = "\n".join(
        [
            f"`benchmarks/plan_accuracy`, {circumstances(['torch', 'transformers', 'peft'])}",
            "",
            "SmolLM2-135M on examples/tickets, each run in a process of its own. Memory is foretold before the run, time by "
            "its first three steps; measured are the most memory held while training, and the time of all steps, looks "
            "at dev and checkpoints.",
            "",
            *lines,
            "",
            f"Off by: {told}.",
        ]
    )
    print(text)
    write_section(HEADING, text)


if __name__ == "__main__":
    main()
