"""datasets.map that tokenizes finished texts, in a process of its own. The texts are loaded before the clock starts.

python theirs.py texts.jsonl TOKENIZER.json        prints seconds, the most resident memory in MB and rows, as JSON
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from datasets import disable_progress_bars, load_dataset
from transformers import PreTrainedTokenizerFast


def main() -> None:
    texts, tokenizer_file = sys.argv[1:]
    disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_file)
    with tempfile.TemporaryDirectory(dir=Path(texts).parent) as cache:
        rows = load_dataset("json", data_files=texts, split="train", cache_dir=cache)
        before, busy = time.perf_counter(), time.process_time()
        coded = rows.map(
            lambda batch: {"input_ids": tokenizer(batch["text"], add_special_tokens=False)["input_ids"]},
            batched=True,
            remove_columns=["text"],
            load_from_cache_file=False,
        )
        seconds, busy = time.perf_counter() - before, time.process_time() - busy
        count = len(coded)
        del coded, rows
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    memory = int(status["VmHWM"].split()[0]) / 1000
    print(json.dumps({"seconds": seconds, "processor": busy, "memory": memory, "rows": count}))


if __name__ == "__main__":
    main()
