"""A store in a folder of its own, and what tests put into it."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier.jobs.rows import FileRow, JobRow, JobSpec
from luthier.jobs.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = Store(tmp_path / "home")
    yield one
    one.close()


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
            self.store.queue.accept(job.id, {"n_epochs": 3})
        return self.store.jobs.get(key, job.id)

    def messages(self, job: JobRow) -> list[str]:
        """Its events, the oldest first."""
        return [event.message for event in self.store.events.since(job.id, 0)]


@pytest.fixture
def shop(store: Store) -> Shop:
    return Shop(store)


def upload(store: Store, key: str, content: bytes, **more: object) -> FileRow:
    path = store.uploads / hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    fields = {"filename": "rows.jsonl", "purpose": "fine-tune", "bytes": len(content), "sha256": path.name, **more}
    return store.files.add(key, content=path, **fields)  # type: ignore[arg-type]


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
