"""What a worker tells the process of a training, and how that process hears it."""

import threading
from dataclasses import dataclass
from io import RawIOBase
from typing import Any

from luthier.jobs import lease


@dataclass(frozen=True)
class Work:
    """What a worker asks for."""

    folder: str
    settings: dict[str, Any]
    """Of the recipe, by their dotted names."""
    batch_size: float | None
    """Examples of a step, where that was asked."""
    rate_multiplier: float | None
    lease_seconds: float


class Orders:
    """What the worker says, heard in a thread of its own.

    The source has no buffer, whose lock a thread that still listens would hold when the process ends.
    """

    def __init__(self, source: RawIOBase, seconds: float) -> None:
        self._source, self._seconds = source, seconds
        self._last, self._stop = lease.clock(), False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._source:
            self._last = lease.clock()
            if line.strip() == b"stop":
                self._stop = True
        self._stop = True  # the worker is gone

    def stop(self) -> bool:
        return self._stop or lease.clock() - self._last > self._seconds
