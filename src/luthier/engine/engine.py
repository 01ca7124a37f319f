"""One model that answers many at once: requests join and leave its batch between steps, in a thread of its own."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from luthier.engine.loop import Loop
from luthier.engine.requests import GenerationRequest
from luthier.engine.streams import Stream
from luthier.engine.threads import usual_threads
from luthier.model import generate, likelihood, memory, products
from luthier.model.likelihood import Likelihood
from luthier.model.loading import LanguageModel

SLOTS = 32
LONGEST_QUEUE = 256
SCORED_TOGETHER = 1024  # tokens of pairs whose likelihoods are computed between two steps
MEMORY_SHARE = 0.25  # of the memory that is free: for packed weights, and then for keys and values


@dataclass(frozen=True)
class Stats:
    """What an engine is doing, and has done since it began."""

    slots: int
    slots_in_use: int
    queued: int
    tokens_read: int
    """Tokens of prompts, with padding; without those that were kept from earlier prompts."""
    tokens_written: int
    tokens_saved: int
    """Tokens of prompts that needed no computing, because an earlier one began alike."""
    finished: int
    failed: int
    preempted: int
    """How often a row had to wait again, and be read again, because memory was short."""


class Engine:
    """Answers from one base model; `submit` may be called from any thread.

    At most `slots` requests are answered at a time, fewer where keys and values would take more than `cache_bytes`;
    `longest_queue` more may wait. `threads` are those that compute, on a processor: by default as many as cores are free.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        slots: int = SLOTS,
        longest_queue: int = LONGEST_QUEUE,
        cache_bytes: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.lm = lm
        products.pack(lm.model, int(MEMORY_SHARE * memory.available(lm.device)))
        if cache_bytes is None:
            cache_bytes = min(generate.CACHE_BYTES, int(MEMORY_SHARE * memory.available(lm.device)))
        if threads is None and lm.device.type == "cpu":
            threads = usual_threads()
        self._loop = Loop(lm, slots=slots, longest_queue=longest_queue, cache_bytes=cache_bytes, threads=threads)
        self._thread = threading.Thread(target=self._loop.run, name=f"engine of {lm.name}", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> Stream:
        """The answer, as it comes. Raises `Busy` where the queue is full, and a `UserError` for what cannot be asked."""
        request.check(int(self.lm.model.config.get_text_config().vocab_size))
        return self._loop.add(request)

    @property
    def threads(self) -> int | None:
        """On how many threads a processor computes; None on a GPU."""
        return self._loop.threads

    @property
    def adapters(self) -> list[str]:
        """Names that a request's `adapter` may have."""
        return self._loop.adapters.names

    def add_adapter(self, name: str, folder: Path) -> None:
        """Requests may name this adapter from now on; those that were submitted before keep the one that had the name.

        Reads it in the caller's thread. Refuses what is more than LoRA on this base: that is served as a model of its own.
        """
        found = self._loop.adapters.read(name, folder)
        self._loop.call(lambda: self._loop.adapters.add(name, found))

    def remove_adapter(self, name: str) -> None:
        """New requests can no longer name it; its memory is free when the last one that did has ended."""

        def remove() -> None:
            self._loop.adapters.remove(name)
            self._loop.forget_adapters()

        self._loop.call(remove)

    def likelihoods(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, adapter: str | None = None
    ) -> list[Likelihood]:
        """How likely each continuation is behind its context, as (context, continuation); nothing is generated.

        Computed between steps, a few pairs at a time.
        """
        found: list[Likelihood] = []
        for some in _portions(pairs):
            found += self._loop.call(partial(self._score, some, adapter))
        return found

    def _score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], adapter: str | None) -> list[Likelihood]:
        with self._loop.adapters.using([self._loop.adapters.key(adapter)]):
            return likelihood.continuations(self.lm, pairs)

    def stats(self) -> Stats:
        """Figures of this moment."""
        loop = self._loop
        with loop.changed:
            queued = len(loop.waiting)
        return Stats(
            slots=loop.slots, slots_in_use=len(loop.rows), queued=queued, tokens_read=loop.tokens_read,
            tokens_written=loop.tokens_written, tokens_saved=loop.prefixes.tokens_saved, finished=loop.finished,
            failed=loop.failed, preempted=loop.preempted,
        )  # fmt: skip

    def close(self, *, drain: bool = False) -> None:
        """End the thread: at once, or with `drain` when everything that was asked is answered."""
        self._loop.close(drain=drain)
        self._thread.join()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _portions(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> Iterator[Sequence[tuple[Sequence[int], Sequence[int]]]]:
    """Pairs a few at a time; those of one context, which is computed once for them, stay together."""
    start, tokens = 0, 0
    for index, (context, continuation) in enumerate(pairs):
        same = index > start and list(context) == list(pairs[index - 1][0])
        if tokens > SCORED_TOGETHER and not same:
            yield pairs[start:index]
            start, tokens = index, 0
        tokens += len(continuation) + (0 if same else len(context))
    if pairs:
        yield pairs[start:]
