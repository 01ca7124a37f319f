"""The tokens of a corpus on the disk: flat files for each source of each split, and a manifest of what is in them.

    data/
      tokens.json             what was tokenized how, how far, and the SHA-256 of every file
      train-000-0000.tokens   the tokens of a source, two bytes each (four for a vocabulary above 65,536)
      train-000-0000.passages where each passage begins there, and where it stands in the corpus

A document's tokens end with the end-of-text token. Files grow in steps: tokens are appended and flushed, then the manifest says
so; what a crash leaves behind that goes with the next step, so a second call continues at the same token.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from luthier.data.corpora.reading import Corpus, Passage
from luthier.data.first_seen import FirstSeen
from luthier.data.readers.values import normalise
from luthier.errors import Interrupted, UserError
from luthier.runs import durable

FORMAT = 1
MANIFEST = "tokens.json"
SPLITS = ("train", "dev", "test")
SHARD = 1 << 26
"""Most tokens of a file; a longer document goes on in the next one."""
STEP = 1 << 22
"""Tokens that are kept in memory between two steps."""
BATCH = 1 << 20
"""Characters that are tokenized together, while the next are read."""
MOST_SOURCES = 64
OTHERS = "others"
"""The source of documents that name one beyond the first 64."""
ENTRY = np.dtype([("start", "<i8"), ("bytes", "<i4"), ("file", "<i4"), ("document", "<i8")])

Encode = Callable[[Sequence[str]], list[list[int]]]
"""Texts → the ids of each, in which a control token that somebody spelled out is text."""


@dataclass(frozen=True)
class Plan:
    """What decides which tokens come out."""

    encode: Encode
    tokenizer: str
    """The SHA-256 of the tokenizer."""
    end: int
    """The end-of-text token."""
    vocabulary: int
    held_out: float
    """Share of the passages that goes to dev, and as many to test, by a hash of their text: equal passages stay together."""
    deduplicate: bool = False
    """Whether passages that came before are left out."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<u2" if self.vocabulary <= 1 << 16 else "<u4")


@dataclass
class Account:
    """What became of the documents: read = kept + empty + duplicates + held out, counted in passages."""

    documents: int = 0
    passages: int = 0
    empty: int = 0
    duplicates: int = 0
    kept: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    """Passages of each split."""
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    sources: dict[str, int] = field(default_factory=dict)
    """Training tokens by source."""


class Stream:
    """The tokens of one source in one split, on the disk and on their way there."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any], state: dict[str, Any]) -> None:
        self.folder, self.name, self.dtype = folder, name, dtype
        self.shards: list[list[int]] = state["shards"]
        """Of each file, its tokens and its passages."""
        self.is_open: bool = state["open"]
        """Whether it ends within a document."""
        self.tokens: list[np.ndarray[Any, Any]] = []
        self.entries: list[tuple[int, int, int, int]] = []
        self.waiting = 0

    def add(self, ids: Sequence[int], end: int, passage: Passage, entry: tuple[int, int, int], *, joins: bool) -> int:
        """Take a passage, which `joins` what came last or begins anew; how many tokens came."""
        before = [end] if self.is_open and not joins else []
        after = [end] if passage.last else []
        count = len(before) + len(ids) + len(after)
        if not self.shards or self.shards[-1][0] + self.waiting + count > SHARD:
            self.write()
            self.shards.append([0, 0])
        self.entries.append((self.shards[-1][0] + self.waiting + len(before), *entry))
        self.tokens.append(np.array([*before, *ids, *after], self.dtype))
        self.waiting += count
        self.is_open = not passage.last
        return count

    def write(self, *, last: bool = False) -> None:
        """Append what is waiting to its file. The `last` time nothing need be waiting, and what a crash left goes."""
        if not self.tokens and not last:
            return
        tokens, passages = self.shards[-1]
        stem = self.folder / f"{self.name}-{len(self.shards) - 1:04}"
        flat = np.concatenate([*self.tokens, np.empty(0, self.dtype)])
        for ending, content, size in (
            (".tokens", flat.tobytes(), tokens * self.dtype.itemsize),
            (".passages", np.array(self.entries, ENTRY).tobytes(), passages * ENTRY.itemsize),
        ):
            durable.append_bytes(stem.with_suffix(ending), memoryview(content), size=size)
        self.shards[-1] = [tokens + len(flat), passages + len(self.entries)]
        self.tokens, self.entries, self.waiting = [], [], 0


class Chosen(NamedTuple):
    """A passage of a batch, where it goes, and what number its document has in its file."""

    passage: Passage
    split: str
    file: int
    document: int


def tokenize(
    corpus: Corpus,
    plan: Plan,
    folder: Path,
    *,
    progress: Callable[[Account], None] = lambda account: None,
    stop: Callable[[], bool] = lambda: False,
) -> Account:
    """The corpus as files of tokens in the folder, from where an earlier call stopped; what became of its documents."""
    work = _Work(corpus, plan, folder)
    if work.is_done:
        return work.account
    with ThreadPoolExecutor(1) as coder:
        waiting: tuple[list[Chosen], tuple[int, int], Future[list[list[int]]]] | None = None
        for batch, position in work.batches():
            coded = coder.submit(plan.encode, [one.passage.text for one in batch])
            if waiting is not None:
                work.take(*waiting)
                progress(work.account)
            waiting = (batch, position, coded)
            if stop():
                break
        if waiting is not None:
            work.take(*waiting)
    if stop():
        work.save()
        raise Interrupted(
            f"stopped while the corpus was tokenized, after {work.account.documents:,} documents; they are kept."
        )
    work.finish()
    progress(work.account)
    return work.account


class _Work:
    """A tokenization that has come to some position: a file of the corpus, and how many of its passages are done."""

    def __init__(self, corpus: Corpus, plan: Plan, folder: Path) -> None:
        self.corpus, self.plan, self.folder = corpus, plan, folder
        self.identity = {
            "format": FORMAT, "tokenizer": plan.tokenizer, "end": plan.end, "dtype": plan.dtype.str,
            "held_out": plan.held_out, "deduplicate": plan.deduplicate, "passage_size": corpus.passage_size,
            "files": [[name, source.name, source.path.stat().st_size] for name, source in corpus.files],
        }  # fmt: skip
        state = self._read()
        self.position: tuple[int, int] | None = None if state["position"] is None else tuple(state["position"])
        self.account = Account(**state["account"])
        self.previous: str | None = state["previous"]
        """The stream that took the passage before, None where it was left out."""
        self.streams = {name: Stream(folder, each["name"], plan.dtype, each) for name, each in state["streams"].items()}
        self.sums: dict[str, str] = state.get("sha256", {})
        self.seen = FirstSeen()
        self.looked_up = 0
        self.document: int = state["document"]
        """Documents of the file at hand that were read, and of those before `position`."""
        self.reached = self.document
        self.waiting = 0

    def _read(self) -> dict[str, Any]:
        file = self.folder / MANIFEST
        if not file.is_file():
            account = asdict(Account())
            return {"position": [0, 0], "document": 0, "account": account, "previous": None, "streams": {}}
        state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if changed := [key for key, value in self.identity.items() if state.get(key) != value]:
            raise UserError(
                f"these are tokens of another corpus, or made in another way ({', '.join(changed)} differ). "
                "Name a new folder.",
                where=str(self.folder),
            )
        return state

    @property
    def is_done(self) -> bool:
        return self.position is None

    def batches(self) -> Iterator[tuple[list[Chosen], tuple[int, int]]]:
        """What is left, some passages at a time, each time with the position behind them."""
        assert self.position is not None
        begin, skipped = self.position
        batch: list[Passage] = []
        characters = 0
        for number, file in enumerate(self.corpus.files):
            if number < begin and not self.plan.deduplicate:
                continue
            done = 0
            for passage in self.corpus.passages(file):
                batch.append(passage)
                characters += len(passage.text)
                done += 1
                old = number < begin or (number == begin and done <= skipped)
                if characters >= BATCH or (number == begin and done == skipped):
                    yield from self._new(batch, number, done, old=old)
                    batch, characters = [], 0
            yield from self._new(batch, number, done, old=number < begin, last=True)
            batch, characters = [], 0
            if number >= begin:
                self.document = 0

    def _new(
        self, batch: list[Passage], number: int, done: int, *, old: bool, last: bool = False
    ) -> Iterator[tuple[list[Chosen], tuple[int, int]]]:
        """A batch with where each passage goes; of an old one only what it holds is remembered."""
        chosen = self._choose(batch, number, old=old)
        if not old:
            yield chosen, (number + 1, 0) if last else (number, done)

    def _choose(self, batch: Sequence[Passage], number: int, *, old: bool) -> list[Chosen]:
        digests = [hashlib.blake2b(normalise(one.text).encode(), digest_size=16).digest() for one in batch]
        first = list(range(len(batch)))
        if self.plan.deduplicate:
            count = self.looked_up
            self.looked_up += len(batch)
            numbers = range(count, count + len(batch))
            first = [found - count for found in self.seen.look_up(digests, numbers)]
        if old:
            return []
        found = []
        for at, (passage, digest, same) in enumerate(zip(batch, digests, first, strict=True)):
            self.document += passage.first
            split = self._split(number, digest)
            if passage.first and passage.last and not passage.text.strip():
                split = "empty"
            elif same != at:
                split = "duplicates"
            found.append(Chosen(passage, split, number, self.document))
        return found

    def _split(self, number: int, digest: bytes) -> str:
        """Where a passage of this text goes: by its file's name, or by a hash."""
        at = int.from_bytes(digest[8:], "little") / 2**64
        named = number - len(self.corpus.train)
        if named >= 0:
            split = self.corpus.held_out[named][0]
            alone = len({name for name, _ in self.corpus.held_out}) == 1
            return ("dev" if at < 0.5 else "test") if alone else split
        if self.corpus.held_out:
            return "train"
        return "dev" if at < self.plan.held_out else "test" if at < 2 * self.plan.held_out else "train"

    def take(self, batch: Sequence[Chosen], position: tuple[int, int], coded: Future[list[list[int]]]) -> None:
        """Put a batch's tokens where they belong, and on the disk when they have become many."""
        account = self.account
        for one, ids in zip(batch, coded.result(), strict=True):
            account.documents += one.passage.first
            account.passages += 1
            if one.split not in SPLITS:
                setattr(account, one.split, getattr(account, one.split) + 1)
                self.previous = None
                continue
            source = one.passage.source if one.file < len(self.corpus.train) else one.split
            key, stream = self._stream(one.split, source)
            size = len(one.passage.text.encode())
            joins = not one.passage.first and self.previous == key
            entry = (size, one.file, one.document)
            count = stream.add(ids, self.plan.end, one.passage, entry, joins=joins)
            self.previous, self.waiting = key, self.waiting + count
            account.kept[one.split] += 1
            account.bytes[one.split] += size
            account.tokens[one.split] += count
            if one.split == "train":
                account.sources[key.partition("/")[2]] = account.sources.get(key.partition("/")[2], 0) + count
        self.position = position
        self.reached = batch[-1].document if batch and position[1] else 0
        if self.waiting >= STEP:
            self.save()

    def _stream(self, split: str, source: str) -> tuple[str, Stream]:
        key = f"{split}/{source}"
        if key not in self.streams:
            number = sum(name.startswith(f"{split}/") for name in self.streams)
            if number >= MOST_SOURCES:
                key = f"{split}/{OTHERS}"
            state: dict[str, Any] = {"shards": [], "open": False}
            name = f"{split}-{number:03}"
            self.streams.setdefault(key, Stream(self.folder, name, self.plan.dtype, state))
        return key, self.streams[key]

    def save(self) -> None:
        """One step: the tokens, then the manifest."""
        for stream in self.streams.values():
            stream.write()
        self.waiting = 0
        content = {
            **self.identity, "position": self.position, "document": self.reached, "account": asdict(self.account),
            "previous": self.previous, "sha256": self.sums,
            "streams": {
                key: {"name": stream.name, "shards": stream.shards, "open": stream.is_open}
                for key, stream in self.streams.items()
            },
        }  # fmt: skip
        durable.write_atomic(self.folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def finish(self) -> None:
        """The last step: all is read; each file's SHA-256."""
        for stream in self.streams.values():
            stream.write(last=True)
        files = sorted(path for kind in ("tokens", "passages") for path in self.folder.glob(f"*.{kind}"))
        self.sums = {path.name: durable.digest(path) for path in files}
        self.position = None
        self.save()
