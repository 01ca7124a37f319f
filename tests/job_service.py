"""A service of fine-tuning jobs as tests use it: in this process by its store, or in one of its own that can be killed.

python tests/job_service.py HOME      serves until its standard input ends
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from luthier.jobs.rows import FileRow, JobRow, JobSpec
from luthier.jobs.service import Jobs
from luthier.jobs.store import Store

LEASE = 3.0
SETTINGS = {
    "train.max_steps": 150, "train.tokens_per_step": 256, "train.check_every": 50, "train.patience": 99,
    "train.precision": "fp32", "evaluate.arms": ["zero-shot", "fine-tuned"], "evaluate.max_new_tokens": 4,
    "evaluate.guards": [], "data.test_items": 6, "data.dev_items": 4,
}  # fmt: skip
COLOURS = ["red", "green", "blue", "yellow", "black", "white"]
THINGS = ["car", "door", "hat", "lamp", "boat", "chair", "cup", "book", "shoe", "bird"]


def chat_rows(count: int = 60) -> bytes:
    """Questions and answers as OpenAI's clients upload them."""
    rows = [
        [
            {"role": "user", "content": f"What colour is the {thing} number {number}?"},
            {"role": "assistant", "content": f"The {thing} is {colour}."},
        ]
        for number, colour in enumerate(COLOURS)
        for thing in THINGS
    ]
    return "".join(json.dumps({"messages": row}) + "\n" for row in rows[:count]).encode()


class Shop:
    """A store with short words for what tests do to it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.key = store.keys.create("tests")[0]

    def upload(self, text: str = '{"prompt": "a", "completion": "b"}\n', key: str = "", **more: object) -> FileRow:
        return upload(self.store, key or self.key, text.encode(), **more)

    def job(self, key: str = "", *, queued: bool = False, **fields: object) -> JobRow:
        key = key or self.key
        given = {"model": "tiny", "reference": "tiny", "training_file": "", **fields}
        given["training_file"] = given["training_file"] or self.upload(key=key).id
        job = self.store.jobs.create(JobSpec(key, **given))  # type: ignore[arg-type]
        if queued:
            self.store.queue.accept(job.id, {"n_epochs": 3}, job.settings)
        return self.store.jobs.get(key, job.id)

    def messages(self, job: JobRow) -> list[str]:
        """Its events, the oldest first."""
        return [event.message for event in self.store.events.since(job.id, 0)]


def upload(store: Store, key: str, content: bytes, **more: object) -> FileRow:
    path = store.uploads / hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    fields = {"filename": "rows.jsonl", "purpose": "fine-tune", "bytes": len(content), "sha256": path.name, **more}
    return store.files.add(key, content=path, **fields)  # type: ignore[arg-type]


class Client:
    """Somebody who uses the service by its store."""

    def __init__(self, service: Jobs, model: Path) -> None:
        self.service, self.store, self.model = service, service.store, model
        self.key = self.store.keys.add("tests", "secret")

    def create(self, rows: bytes | None = None, **fields: object) -> JobRow:
        file = upload(self.store, self.key, chat_rows() if rows is None else rows)
        given = {"settings": SETTINGS, "seed": 7, **fields}
        return self.store.jobs.create(JobSpec(self.key, "tiny", str(self.model), file.id, **given))  # type: ignore[arg-type]

    def get(self, job: JobRow) -> JobRow:
        return self.store.jobs.get(self.key, job.id)

    def wait(
        self, job: JobRow, until: Callable[[JobRow], bool] = lambda row: row.is_finished, seconds: float = 400
    ) -> JobRow:
        """Poll as clients do."""
        end = time.monotonic() + seconds
        while not until(row := self.get(job)):
            assert time.monotonic() < end, (row, self.messages(job))
            time.sleep(0.05)
        return row

    def messages(self, job: JobRow) -> list[str]:
        return [event.message for event in self.store.events.since(job.id, 0, limit=10**4)]


if __name__ == "__main__":
    with Jobs(Path(sys.argv[1]), lease_seconds=LEASE):
        print("ready", flush=True)
        sys.stdin.read()
