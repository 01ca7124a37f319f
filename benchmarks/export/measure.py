"""What an export costs beside a copy of the weights, and its parity report beside the run's own answers.

Times are CPU seconds of this process and of those that it starts, so that other work on the machine does not count; writing
waits for the disk, so the export's is given by the clock as well. Memory is what a process holds for itself: pages of the
source's files are mapped, and the system takes them back when it needs them.
"""

import argparse
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import record

from luthier import export
from luthier.evaluate.context import Context
from luthier.evaluate.prompts.arms import TUNED, render
from luthier.export.gguf import file as files
from luthier.export.gguf import model as gguf_model
from luthier.export.source import Source
from luthier.model import replies
from luthier.runs import Run
from luthier.runs.durable import whole_file

HEADING = "Speed of export"
LARGEST_COPY_RATIO, LARGEST_ANSWER_RATIO, LARGEST_MEMORY = 1.5, 0.5, 200e6


@dataclass
class Cost:
    """What a piece of work took."""

    clock: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    """Bytes that this process held for itself at most, beyond what it held before."""


def cost(work: Callable[[], object]) -> Cost:
    """Do the work; memory is looked at every few milliseconds."""
    before, most, stop = _own_bytes(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            most[0] = max(most[0], _own_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    clock, cpu = time.perf_counter(), _cpu()
    work()
    found = Cost(time.perf_counter() - clock, _cpu() - cpu)
    stop.set()
    watcher.join()
    found.memory = most[0]
    return found


def _own_bytes() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def copy(source: Path, target: Path) -> None:
    """The weights' files, flushed as an export is."""
    for file in sorted(source.glob("*.safetensors")):
        with file.open("rb") as opened, whole_file(target / file.name) as written:
            shutil.copyfileobj(opened, written, 1 << 24)


def own_answers(source: Source) -> int:
    """The run's model answers its test questions, as it did in the run."""
    context, lm = Context(source.run, source.recipe), source.load()
    prompts = [
        render(TUNED, lambda item: item.conversation.prompt, item, lm.template)[1] for item in context.items("test")
    ]
    replies.ask(lm, prompts, context.token_budget)
    return len(prompts)


def main() -> None:
    """Measure a run whose model is a whole one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run with train.method=full")
    parser.add_argument("--type", default="f16", help="number format of the file")
    parser.add_argument("--rounds", type=int, default=3, help="of copying and exporting; the fastest counts")
    parser.add_argument("--write", action="store_true", help="rewrite this part of benchmarks/RESULTS.md")
    asked = parser.parse_args()
    source = Source.of(Run(asked.run))
    with tempfile.TemporaryDirectory(dir=asked.run.absolute().parent) as name:
        folder, copies, exports = Path(name), [], []
        out = folder / "it.gguf"
        for _ in range(asked.rounds):
            out.unlink(missing_ok=True)
            copies.append(cost(lambda: copy(source.reference.folder, folder)))
            exports.append(cost(lambda: gguf_model.write(source, out, number_format=asked.type)))
        answers = cost(lambda: own_answers(source))
        parity = cost(lambda: export.verify(asked.run, out))
        largest = max(tensor.bytes for tensor in files.read(out).tensors.values())
    copied, written = (min(costs, key=lambda each: each.clock) for costs in (copies, exports))
    memory, questions = max(each.memory for each in exports), len(Context(source.run, source.recipe).items("test"))
    aims = (
        (f"an export within {LARGEST_COPY_RATIO} times a copy", written.clock / copied.clock, LARGEST_COPY_RATIO, "×"),
        (f"a parity report within {LARGEST_ANSWER_RATIO} times the run's own answers", parity.cpu / answers.cpu,
         LARGEST_ANSWER_RATIO, "×"),
        (f"memory within one tensor and {LARGEST_MEMORY / 1e6:.0f} MB", (memory - largest) / 1e6, LARGEST_MEMORY / 1e6, "MB"),
    )  # fmt: skip
    told = "; ".join(
        f"{words} ({found:.2f} {unit}: {'reached' if found <= most else 'NOT reached'})"
        for words, found, most, unit in aims
    )
    text = f"""\
`benchmarks/export_speed RUN --type {asked.type}`, {record.circumstances(("gguf", "xllamacpp", "torch"))}

SmolLM2-135M, all weights trained, {questions} test questions. The best of {asked.rounds} rounds by the clock;
answers and report once.

| work | clock | processor | own memory at most |
|---|--:|--:|--:|
| a copy of the weights in fp32 | {copied.clock:.1f} s | {copied.cpu:.1f} s | {copied.memory / 1e6:.0f} MB |
| the export | {written.clock:.1f} s | {written.cpu:.1f} s | {memory / 1e6:.0f} MB |
| the run's own test answers | {answers.clock:.0f} s | {answers.cpu:.0f} s | |
| the parity report | {parity.clock:.0f} s | {parity.cpu:.0f} s | |

Aims: {told}. The largest tensor of the file has {largest / 1e6:.0f} MB.
"""
    print(text)
    if asked.write:
        record.write_section(HEADING, text)


if __name__ == "__main__":
    main()
