"""Preparing data: this checkout, datasets.map that tokenizes only, an older commit. See benchmarks/prepare_throughput.

Every side is a process of its own on the same rows, one after the other. Ours reads, recognises, checks, tokenizes, splits,
computes all settings and writes. datasets.map gets texts that are rendered and loaded already, and tokenizes them with the same
tokenizer. The older commit prints the recipe of some of the rows, which there is the same work without the writing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from itertools import islice
from pathlib import Path
from typing import Any

import rows
from record import circumstances, write_section

from luthier.chat import Message
from luthier.model.reference import ModelReference

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEADING = "Preparing data"
THEIRS = HERE.parent / ".venv-datasets"
REQUIREMENTS = ("datasets==5.2.0", "transformers==5.24.0", "tokenizers==0.23.3")
AIM, MEMORY_AIM, RECIPE_AIM = 12, 1500, 10


def their_python() -> str:
    """The Python with datasets, in an environment that is made on the first run."""
    python = THEIRS / "bin" / "python"
    if not python.exists():
        print(f"installing {', '.join(REQUIREMENTS)} into {THEIRS.relative_to(ROOT)} …", file=sys.stderr, flush=True)
        venv.create(THEIRS, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return str(python)


def write_texts(data: Path, texts: Path, model: str) -> None:
    """The rows as texts, rendered by the model's template."""
    template = ModelReference.of(model).template()
    with data.open(encoding="utf-8") as lines, texts.open("w", encoding="utf-8") as file:
        for line in lines:
            said = [Message(one["role"], one["content"]) for one in json.loads(line)["messages"]]
            text = template.render(said, add_generation_prompt=False)
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def measured(command: list[str], **variables: str) -> dict[str, Any]:
    """What a process prints about itself in its last line."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{Path(command[1]).name} {Path(command[2]).name}: {found}", file=sys.stderr, flush=True)
    return found


def recipe_seconds(source: Path, data: Path, model: str) -> float:
    """How long `luthier recipe` of a checkout takes."""
    command = [sys.executable, "-c", "from luthier.cli.main import main; main()", "recipe", str(data), f"model={model}"]
    before = time.perf_counter()
    subprocess.run(
        command, check=True, capture_output=True, cwd=source, env=os.environ | {"PYTHONPATH": str(source / "src")}
    )
    seconds = time.perf_counter() - before
    print(f"recipe of {source.name}, {data.name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return seconds


def first_lines(data: Path, count: int) -> Path:
    """A file of the first rows of another."""
    short = data.with_name(f"rows-{count}.jsonl")
    with data.open(encoding="utf-8") as lines, short.open("w", encoding="utf-8") as file:
        file.writelines(islice(lines, count))
    return short


def main() -> None:
    parser = argparse.ArgumentParser(prog="prepare_throughput", description=__doc__)
    parser.add_argument("commit", help="the older build")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument(
        "--recipe", type=int, nargs=2, default=[10_000, 50_000], help="rows of which a recipe is printed"
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--write", action="store_true", help="rewrite this benchmark's part of RESULTS.md")
    given = parser.parse_args()
    python, most = their_python(), max(given.rows)
    tokenizer = ModelReference.of(given.model).folder / "tokenizer.json"
    lines = [
        "| rows | file | ours | rows a second | resident memory | `datasets.map`, tokenizing only | ratio |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        rows.write(folder / "rows.jsonl", most)
        found = []
        for count in given.rows:
            data = first_lines(folder / "rows.jsonl", count)
            texts = folder / "texts.jsonl"
            write_texts(data, texts, given.model)
            ours = measured([sys.executable, str(HERE / "ours.py"), str(data), name, given.model])
            theirs = measured([python, str(HERE / "theirs.py"), str(texts), str(tokenizer)], PYTHONPATH="")
            found.append((ours, theirs))
            lines.append(
                f"| {count:,} | {data.stat().st_size / 1e6:,.0f} MB | {ours['seconds']:.0f} s | "
                f"{count / ours['seconds']:,.0f} | {ours['memory']:,.0f} MB | {theirs['seconds']:.0f} s | "
                f"{theirs['seconds'] / ours['seconds']:.2f} × |"
            )
            if count not in given.recipe:
                data.unlink()
        few, many = (first_lines(folder / "rows.jsonl", count) for count in given.recipe)
        older = folder / "older"
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(older), given.commit], check=True
        )
        try:
            old, new = ([recipe_seconds(source, data, given.model) for data in (few, many)] for source in (older, ROOT))
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(older)], check=True)
    more = given.recipe[1] - given.recipe[0]
    per_row = [(1e6 * (two - one)) / more for one, two in (old, new)]
    lines += [
        "",
        f"| `luthier recipe` | {given.recipe[0]:,} rows | {given.recipe[1]:,} rows | each further row |",
        "|---|--:|--:|--:|",
        f"| {given.commit} | {old[0]:.1f} s | {old[1]:.1f} s | {per_row[0]:,.0f} µs |",
        f"| this build | {new[0]:.1f} s | {new[1]:.1f} s | {per_row[1]:,.0f} µs |",
        f"| ratio | {old[0] / new[0]:.1f} × | {old[1] / new[1]:.1f} × | {per_row[0] / per_row[1]:.1f} × |",
    ]
    ours, theirs = found[-1]
    memory = [one["memory"] for one, _ in found]

    def word(reached: bool) -> str:
        return "reached" if reached else "not reached"

    aims = (
        f"Aims: as fast as `datasets.map` ({theirs['seconds'] / ours['seconds']:.2f} ×: "
        f"{word(ours['seconds'] <= theirs['seconds'])}); {AIM} times the older build by row "
        f"({per_row[0] / per_row[1]:.1f} ×: {word(per_row[0] >= AIM * per_row[1])}); a recipe of {given.recipe[1]:,} rows "
        f"{RECIPE_AIM} times as fast ({old[1] / new[1]:.1f} ×: {word(old[1] >= RECIPE_AIM * new[1])}); memory below "
        f"{MEMORY_AIM:,} MB ({max(memory):,.0f} MB: {word(max(memory) < MEMORY_AIM)}), of which "
        f"{max(memory) - min(memory):,.0f} MB grow from {min(given.rows):,} to {most:,} rows."
    )
    packages = ["torch", "transformers", "tokenizers", "pyarrow"]
    text = "\n".join(
        [
            f"`benchmarks/prepare_throughput {given.commit}`, {circumstances(packages)}",
            "",
            f"Chat rows of {ours['tokens']:.0f} tokens for {given.model}. Ours reads, recognises, checks, tokenizes, splits, "
            f"computes every setting and writes. {REQUIREMENTS[0]} tokenizes texts that are rendered and loaded before its "
            "clock starts, with the same tokenizer on all cores. Resident memory is that of all processes of ours together.",
            "",
            *lines,
            "",
            aims,
        ]
    )
    print(text)
    if given.write:
        write_section(HEADING, text)


if __name__ == "__main__":
    main()
