"""Who may ask a backend next: so many requests at a time, a bounded queue behind them, and every key in its turn."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from luthier.engine.requests import Busy

RETRY_SECONDS = 5.0


class Turns:
    """Turns in one event loop. The next one goes to the key with the fewest requests that are answered now."""

    def __init__(self, *, slots: int, longest_queue: int) -> None:
        self._slots, self._longest = slots, longest_queue
        self._answered: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def in_use(self) -> int:
        """Requests that are answered now."""
        return sum(list(self._answered.values()))

    @property
    def queued(self) -> int:
        return sum(map(len, list(self._waiting.values())))

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """A turn, which lasts as long as this context; raises `Busy` where too many wait."""
        if self.in_use < self._slots:
            self._answered[client] += 1
        else:
            await self._wait(client)
        try:
            yield
        finally:
            self._answered -= Counter((client,))
            self._pass_on()

    async def _wait(self, client: str) -> None:
        """Returns when it is this request's turn, which is noted by then."""
        if self.queued >= self._longest:
            raise Busy(RETRY_SECONDS)
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # its turn came at this moment
                self._answered -= Counter((client,))
                self._pass_on()
            elif mine in (others := self._waiting.get(client, deque())):
                others.remove(mine)
                if not others:
                    del self._waiting[client]
            raise

    def _pass_on(self) -> None:
        """Give the turn that has become free to whoever is next; its key goes to the end."""
        client = min(self._waiting, key=lambda name: self._answered[name], default=None)
        if client is None or self.in_use >= self._slots:
            return
        waiting = self._waiting.pop(client)
        first = waiting.popleft()
        if waiting:
            self._waiting[client] = waiting
        if first.cancelled():  # who waited has left, and takes itself out no more
            self._pass_on()
            return
        self._answered[client] += 1
        first.set_result(None)
