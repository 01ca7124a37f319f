"""Runs ours and TRL in turns, each in a process of its own, and tells what came out. See benchmarks/train_throughput.

First each TRL setting runs once; the fastest of those whose held-out loss is as good as its defaults' is TRL's best.
Then every round runs ours, TRL with its defaults, and TRL at its best, in an order that turns around from round to round.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

from meter import Result

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TRL_ENVIRONMENT = HERE.parent / ".venv-trl"
RESULTS = HERE.parent / "RESULTS.md"
HEADING = "## Training throughput"
REQUIREMENTS = ["torch==2.13.0", "trl>=1.16,<2", "transformers>=5.24,<6"]
CANDIDATES = ["plain", "grouped", "packed", "eager", "bf16-weights"]
FLAGS = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile"]
LOSS_TOLERANCE = 1.02
LOSS_NOISE = 1.05  # one training's held-out loss differs by up to 4 % from another's by the order of its rows alone


@dataclass(frozen=True)
class Job:
    """What every training of one invocation has in common."""

    rows: Path
    epochs: int
    max_steps: int | None
    rate: float
    warmup: int
    seed: int

    def run(self, arm: str, learn: str) -> Result:
        """Train once in a new process: `arm` is "luthier" or "trl SETTING"."""
        side, _, setting = arm.partition(" ")
        python = sys.executable if side == "luthier" else str(TRL_ENVIRONMENT / "bin" / "python")
        with tempfile.TemporaryDirectory() as folder:
            result, log = Path(folder) / "result.json", Path(folder) / "log.txt"
            command = [python, str(HERE / f"run_{side}.py"), str(self.rows), str(result), "--learn", learn]
            command += ["--epochs", str(self.epochs), "--rate", str(self.rate)]
            command += ["--warmup", str(self.warmup), "--seed", str(self.seed)]
            command += ["--max-steps", str(self.max_steps)] if self.max_steps else []
            command += ["--setting", setting] if setting else []
            with log.open("w", encoding="utf-8") as output:
                done = subprocess.run(
                    command, env=environment(side), stdout=output, stderr=output, cwd=folder, check=False
                )
            if done.returncode:
                sys.exit(f"{arm} failed:\n" + "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:]))
            found = Result.read(result)
        print(
            f"  {learn:8} {arm:18} {found.tokens_per_second:7.1f} tokens/s  {found.peak:5.2f} GB "
            f"({found.peak_training:.2f} training)  held-out loss {found.heldout_loss:.4f}",
            flush=True,
        )
        return found


def environment(side: str) -> dict[str, str]:
    """The process's environment: nothing from the hub, and only ours sees our sources."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    own |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    return own | {"PYTHONPATH": str(ROOT / "src")} if side == "luthier" else own


def prepare_trl() -> None:
    """Make TRL's environment unless it is there and whole."""
    python = TRL_ENVIRONMENT / "bin" / "python"
    whole = (
        python.exists()
        and subprocess.run([python, "-c", "import trl"], capture_output=True, check=False).returncode == 0
    )
    if not whole:
        print(f"installing TRL into {TRL_ENVIRONMENT.relative_to(ROOT)} …", flush=True)
        venv.create(TRL_ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)


def find_best(job: Job, default: Result, candidates: Sequence[str]) -> tuple[str, list[Result]]:
    """The fastest TRL setting whose held-out loss is as good as its defaults' for all that one training can tell."""
    tried = [job.run(f"trl {name}", "all") for name in candidates]
    fair = [result for result in tried if result.heldout_loss <= default.heldout_loss * LOSS_NOISE]
    return max([default, *fair], key=lambda result: result.tokens_per_second).arm, tried


def measure(job: Job, arms: Sequence[str], learn: str, repeats: int) -> dict[str, list[Result]]:
    """`repeats` trainings of each arm, in alternation, each round with a seed of its own."""
    found: dict[str, list[Result]] = {arm: [] for arm in arms}
    for number in range(repeats):
        seeded = replace(job, seed=job.seed + number)
        for arm in arms if number % 2 == 0 else reversed(arms):
            found[arm].append(seeded.run(arm, learn))
    return found


def table(found: dict[str, list[Result]], best: str) -> list[str]:
    """Markdown: medians over the repeats, with the range of the speeds, and ratios to TRL's best."""
    lines = [
        "| arm | tokens/s | range | × TRL's best | peak GB | peak GB while training | held-out loss | ÷ TRL's best |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    fastest = median(result.tokens_per_second for result in found[best])
    lowest = fmean(result.heldout_loss for result in found[best])
    for arm, results in found.items():
        speeds = sorted(result.tokens_per_second for result in results)
        loss = fmean(result.heldout_loss for result in results)
        lines.append(
            f"| {arm} | {median(speeds):.0f} | {speeds[0]:.0f}–{speeds[-1]:.0f} | {median(speeds) / fastest:.2f} "
            f"| {max(result.peak for result in results):.2f} | {max(result.peak_training for result in results):.2f} "
            f"| {loss:.4f} | {loss / lowest:.4f} |"
        )
    return lines


def verdict(found: dict[str, list[Result]], best: str) -> str:
    """The three targets, reached or not."""
    ours, theirs = found["luthier"], found[best]
    speed = median(r.tokens_per_second for r in ours) / median(r.tokens_per_second for r in theirs)
    loss = fmean(r.heldout_loss for r in ours) / fmean(r.heldout_loss for r in theirs)
    memory = max(r.peak for r in ours) / max(r.peak for r in theirs)
    said = [
        f"speed {speed:.2f} × ({'reached' if speed >= 2 else 'missed'}: at least 2)",
        f"held-out loss {100 * (loss - 1):+.1f} % ({'reached' if loss <= LOSS_TOLERANCE else 'missed'}: at most +2 %)",
        f"memory {memory:.2f} × ({'reached' if memory <= 1 else 'missed'}: at most 1)",
    ]
    return "Against TRL's best: " + "; ".join(said) + "."


def machine() -> str:
    """The processor, its flags that matter here, and the memory; nothing that tells whose machine it is."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(part.split(":", 1) for part in facts.split("\n\n")[0].replace("\t", "").splitlines() if ":" in part)
    flags = set(fields.get("flags", "").split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    seen = " ".join(flag for flag in FLAGS if flag in flags)
    return f"{fields.get('model name', 'unknown').strip()}, {os.cpu_count()} cores, {memory:.0f} GB ({seen})"


def section(job: Job, tried: list[Result], best: str, measured: dict[str, dict[str, list[Result]]], load: float) -> str:
    """This benchmark's part of RESULTS.md."""
    some = measured["all"]
    ours, theirs = some["luthier"][0], some[best][0]
    versions = {**ours.versions, **theirs.versions}
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        HEADING,
        "",
        f"`benchmarks/train_throughput`, {time.strftime('%Y-%m-%d')}, load before the start {load:.1f}. {machine()}; "
        f"Linux, Python {platform.python_version()}, {software}.",
        "",
        f"SmolLM2-135M on the same token rows: {ours.tokens:,} tokens without padding in {ours.steps} steps (ours), "
        f"{theirs.tokens:,} in {theirs.steps} (TRL's best). TRL takes 8 records per step, ours a token budget that gives "
        f"as many steps. AdamW, learning rate {job.rate:g} falling linearly to 0 from the first step; seeds from {job.seed}, "
        "one a round. "
        f"Tokens per second leave out padding and the first {job.warmup} steps of each process. Peak memory is the "
        "kernel's high-water mark of the training process. Held-out loss: 32 other records, one fp32 function for all. "
        f"{len(some['luthier'])} processes each, in alternation: median speed, largest memory, mean loss.",
    ]
    for learn, found in measured.items():
        learnt = "every token learnt" if learn == "all" else "answers learnt"
        lines += ["", f"### {learnt.capitalize()}", "", *table(found, best), "", verdict(found, best)]
    lines += ["", f"### TRL's settings, once each (its best is `{best}`)", ""]
    lines += [
        "| setting | tokens/s | peak GB | held-out loss | differs from the defaults in |",
        "|---|--:|--:|--:|---|",
    ]
    for result in tried:
        setting = ", ".join(f"{key}={value}" for key, value in result.setting.items()) or "–"
        lines.append(
            f"| {result.arm} | {result.tokens_per_second:.0f} | {result.peak:.2f} | {result.heldout_loss:.4f} "
            f"| {setting} |"
        )
    return "\n".join(lines) + "\n"


def write_section(file: Path, text: str) -> None:
    """Replace this benchmark's part of the file, or add it."""
    content = file.read_text(encoding="utf-8") if file.exists() else "# Benchmark results\n"
    before, found, rest = content.partition(HEADING + "\n")
    _, other, after = rest.partition("\n## ")
    file.write_text(before.rstrip() + "\n\n" + text + (other + after if found else ""), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="train_throughput", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="two steps of everything, once; RESULTS.md stays as it is")
    parser.add_argument("--repeats", type=int, default=3, help="processes per arm")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the 96 records (about 11,000 tokens each)")
    parser.add_argument("--candidates", default=",".join(CANDIDATES), help="TRL settings to look for its best among")
    parser.add_argument("--rate", type=float, default=1e-4, help="highest learning rate")
    parser.add_argument("--warmup", type=int, default=2, help="first steps of each process that are not timed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"the load average is {load:.1f}: other processes will spoil the timings", file=sys.stderr)
    prepare_trl()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        command = [sys.executable, str(HERE / "records.py"), str(rows), "--seed", str(given.seed)]
        subprocess.run(command, env=environment("luthier"), check=True)
        steps, warmup = (2, 1) if given.smoke else (None, given.warmup)
        job = Job(rows, given.epochs, steps, given.rate, warmup, given.seed)
        default = job.run("trl default", "all")
        best, tried = find_best(job, default, [name for name in given.candidates.split(",") if name])
        arms = list(dict.fromkeys(["luthier", "trl default", best]))
        repeats = 1 if given.smoke else given.repeats
        measured = {learn: measure(job, arms, learn, repeats) for learn in ("all", "answers")}
    text = section(job, [default, *tried], best, measured, load)
    print("\n" + text)
    if not given.smoke:
        write_section(RESULTS, text)
        print(f"written to {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
