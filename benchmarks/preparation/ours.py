"""One preparation by this checkout in a process of its own: rows from a file to the token files of the splits.

python ours.py rows.jsonl FOLDER MODEL          prints seconds, the most resident memory in MB, rows and tokens, as JSON

Seconds of processor time and memory are those of all processes together.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from luthier import recipe as recipes
from luthier.pipeline import preparation
from luthier.pipeline.split_rows import SPLITS

OFTEN = 0.2
"""Seconds between two looks at the memory of the processes."""


class Watch(threading.Thread):
    """Looks at what this process and those that it has started take, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.children, self._stop_asked = 0, 0, threading.Event()

    def run(self) -> None:
        own = psutil.Process()
        while not self._stop_asked.wait(OFTEN):
            children = own.children(recursive=True)
            together = own.memory_info().rss
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    together += child.memory_info().rss
            self.most, self.children = max(self.most, together), max(self.children, len(children))

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def processor_seconds() -> float:
    """Of this process and those that it has started and that have ended."""
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system


def main() -> None:
    data, folder, model = sys.argv[1:]
    watch = Watch()
    watch.start()
    asked = recipes.load(None, [f"model={model}", f"data.path={data}"])
    before, busy = time.perf_counter(), processor_seconds()
    made = preparation.prepare(asked)
    for name in SPLITS:
        made.rows[name].write(Path(folder) / f"{name}.arrow")
    seconds, busy = time.perf_counter() - before, processor_seconds() - busy
    watch.stop()
    train = made.rows["train"]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "processor": busy,
                "memory": watch.most / 1e6,
                "processes": watch.children,
                "rows": made.dataset.ledger.kept,
                "tokens": int(train.number("length").sum()) / len(train),
            }
        )
    )


if __name__ == "__main__":
    main()
