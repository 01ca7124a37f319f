"""An answer on its way from the engine's thread to whoever asked: by a blocking iterator, or by an asynchronous one."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from luthier.engine.requests import Completion, Event, Finished, Piece, PromptScored, TokenLogprob


class Stream:
    """The events of one request, in order; the last one is `Finished`, or an exception is raised in its place.

    Who no longer wants the rest calls `cancel`, or closes the iterator.
    """

    def __init__(self) -> None:
        self._waiting: deque[Event | BaseException] = deque()
        self._changed = threading.Condition()
        self._wake: Callable[[], object] | None = None
        self.cancelled = False
        self.ended = False
        """Whether the last event was put; it need not have been read yet."""

    def put(self, event: Event | BaseException) -> None:
        """The engine's side: one more event. An exception is the last one."""
        with self._changed:
            if self.ended:
                return
            self.ended = isinstance(event, (Finished, BaseException))
            self._waiting.append(event)
            self._changed.notify_all()
            wake = self._wake
        if wake:
            wake()

    def cancel(self) -> None:
        """The request is dropped before the next step; `Finished("cancelled")` follows."""
        self.cancelled = True

    def events(self) -> Iterator[Event]:
        """Events as they come; waits for each."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting)
                    event = self._waiting.popleft()
                yield _event(event)
                if isinstance(event, Finished):
                    return
        finally:
            self.cancel()

    async def aevents(self) -> AsyncIterator[Event]:
        """The same in an event loop, which is never blocked."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(arrived.set)

        with self._changed:
            self._wake = wake
        try:
            while True:
                while True:
                    arrived.clear()
                    with self._changed:
                        if self._waiting:
                            event = self._waiting.popleft()
                            break
                    await arrived.wait()
                yield _event(event)
                if isinstance(event, Finished):
                    return
        finally:
            self.cancel()

    def result(self) -> Completion:
        """The whole answer; waits for it."""
        whole = _Whole()
        for event in self.events():
            whole.add(event)
        return whole.completion()

    async def aresult(self) -> Completion:
        """The same in an event loop."""
        whole = _Whole()
        async for event in self.aevents():
            whole.add(event)
        return whole.completion()


class _Whole:
    """The events of an answer put together."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.logprobs: list[TokenLogprob] = []
        self.prompt: tuple[TokenLogprob | None, ...] = ()
        self.finished: Finished | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, Piece):
            self.ids += event.ids
            self.text += event.text
            self.logprobs += event.logprobs
        elif isinstance(event, PromptScored):
            self.prompt = event.logprobs
        else:
            self.finished = event

    def completion(self) -> Completion:
        assert self.finished is not None
        return Completion(tuple(self.ids), self.text, tuple(self.logprobs), self.finished, self.prompt)


def _event(event: Event | BaseException) -> Event:
    if isinstance(event, BaseException):
        raise event
    return event
