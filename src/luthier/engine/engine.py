"""One model that answers many at once: requests join and leave its batch between steps, in a thread of its own."""

import threading
from dataclasses import dataclass
from types import TracebackType

from luthier.engine.loop import Loop
from luthier.engine.requests import GenerationRequest
from luthier.engine.streams import Stream
from luthier.errors import unknown
from luthier.model import generate, memory
from luthier.model.loading import LanguageModel

SLOTS = 32
LONGEST_QUEUE = 256
MEMORY_SHARE = 0.25  # of the memory that is free: for keys and values


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
    `longest_queue` more may wait. `threads` are those that compute, on a processor.
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
        if cache_bytes is None:
            cache_bytes = min(generate.CACHE_BYTES, int(MEMORY_SHARE * memory.available(lm.device)))
        self._loop = Loop(lm, slots=slots, longest_queue=longest_queue, cache_bytes=cache_bytes, threads=threads)
        self._thread = threading.Thread(target=self._loop.run, name=f"engine of {lm.name}", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> Stream:
        """The answer, as it comes. Raises `Busy` where the queue is full, and a `UserError` for what cannot be asked."""
        request.check(int(self.lm.model.config.get_text_config().vocab_size))
        if request.adapter is not None:
            raise unknown("adapter", request.adapter, [])
        return self._loop.add(request)

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
