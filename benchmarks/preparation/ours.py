"""One preparation by this checkout in a process of its own: rows from a file to the token files of the splits.

python ours.py rows.jsonl FOLDER MODEL          prints seconds, the most resident memory in MB, rows and tokens, as JSON
"""

import json
import sys
import time
from pathlib import Path

from luthier import recipe as recipes
from luthier.pipeline import preparation
from luthier.pipeline.split_rows import SPLITS


def main() -> None:
    data, folder, model = sys.argv[1:]
    asked = recipes.load(None, [f"model={model}", f"data.path={data}"])
    before, busy = time.perf_counter(), time.process_time()
    made = preparation.prepare(asked)
    for name in SPLITS:
        made.rows[name].write(Path(folder) / f"{name}.arrow")
    seconds, busy = time.perf_counter() - before, time.process_time() - busy
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    train = made.rows["train"]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "processor": busy,
                "memory": int(status["VmHWM"].split()[0]) / 1000,
                "rows": made.dataset.ledger.kept,
                "tokens": int(train.number("length").sum()) / len(train),
            }
        )
    )


if __name__ == "__main__":
    main()
