"""Times an inspection of made-up rows, all of it and its costliest checks alone, as the number of rows doubles.

Words are drawn as they are in a language, few of them often and most of them rarely. Of the rows 3 % are near copies of
others, and as many share a long instruction. The exponent between two sizes is 1 where time grows as rows do, and 2 where
each row is compared with each.
"""

import argparse
import json
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import record

from luthier import recipe as recipes
from luthier.data import checks, held_out_files
from luthier.data.checks import leaks
from luthier.data.checks.rows import Row, Scope
from luthier.data.splits import split
from luthier.pipeline.inspection import inspect

HEADING = "Speed of inspect"
TARGET_SECONDS = 60.0
LARGEST_EXPONENT = 1.2
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el", "or")]
COPIES = 33
"""One row in so many is a near copy of an earlier one."""
INSTRUCTION = "Read the following request of a customer and answer it in one friendly sentence without naming a price: "


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Questions of about 15 words with answers of about 40."""
    draw = np.random.default_rng(seed)
    words = np.array(["".join(draw.choice(SYLLABLES, draw.integers(1, 4))) for _ in range(20_000)])
    weights = 1 / np.arange(10, len(words) + 10)
    stream = iter(words[draw.choice(len(words), 70 * count, p=weights / weights.sum())].tolist())

    def sentence(length: int) -> str:
        return " ".join(next(stream) for _ in range(length)).capitalize()

    made: list[tuple[str, str]] = []
    for number in range(count):
        question = sentence(int(draw.integers(10, 20))) + "?"
        if number % COPIES == 1:
            question = f"So {made[int(draw.integers(0, number))][0]}"
        elif number % COPIES == 2:
            question = INSTRUCTION + question
        made.append((question, " ".join(sentence(int(draw.integers(8, 14))) + "." for _ in range(4))))
    return made


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(folder: Path, made: list[tuple[str, str]]) -> dict[str, float]:
    """Seconds of processor time for a number of rows, by what was done."""
    path = folder / f"{len(made)}.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in made), encoding="utf-8")
    recipe = recipes.load(data=path)
    found: dict[str, float] = {"all of it": seconds(lambda: inspect(recipe))}
    data, _ = held_out_files.load(recipe.data)
    parts = split(data.items, test_items=None, dev_items=None)
    near = {"near-duplicate": checks.CHECKS["near-duplicate"]}
    found["near duplicates"] = seconds(lambda: checks.examine(map(Row, data.items), Scope(), near))
    found["leakage"] = seconds(lambda: leaks.overlaps(parts))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="the largest number; it is halved four times")
    parser.add_argument("--write", action="store_true", help="rewrite this part of benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    sizes = [arguments.rows >> step for step in (4, 3, 2, 1, 0)]
    made = rows(arguments.rows)
    with TemporaryDirectory() as folder:
        measure(Path(folder), made[:500])  # what is loaded once
        figures = {size: measure(Path(folder), made[:size]) for size in sizes}
    names = list(figures[sizes[0]])
    lines = [f"| rows | {' | '.join(names)} |", "|--:|" + "--:|" * len(names)]
    lines += [f"| {size:,} | {' | '.join(f'{figures[size][name]:.2f} s' for name in names)} |" for size in sizes]
    first, last = sizes[0], sizes[-1]
    exponents = {name: math.log(figures[last][name] / figures[first][name]) / math.log(last / first) for name in names}
    lines.append(f"| time grows as rows to the power of | {' | '.join(f'{exponents[name]:.2f}' for name in names)} |")
    whole = figures[last]["all of it"]
    reached = whole < TARGET_SECONDS and max(exponents.values()) < LARGEST_EXPONENT
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    text = (
        f"`benchmarks/inspect_speed`, {record.circumstances(('numpy', 'py3langid', 'phonenumbers', 'ftfy'))}\n\n"
        "Seconds of processor time on one core, from the file to the findings. Questions of about 15 words, answers of about "
        f"40; 3 % near copies.\n\n"
        + "\n".join(lines)
        + f"\n\n{last:,} rows take {whole:.0f} s and at most {memory:.1f} GB, "
        f"{'reached' if reached else 'NOT reached'}: under {TARGET_SECONDS:.0f} s for 100,000 rows, and an exponent under "
        f"{LARGEST_EXPONENT}."
    )
    print(text)
    if arguments.write:
        record.write_section(HEADING, text)


if __name__ == "__main__":
    main()
