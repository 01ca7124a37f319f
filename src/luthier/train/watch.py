"""Who is still there: each process of a training gives a sign of life every second, and looks out for those of others.

A process that dies breaks its connections, so that whoever waits for it hears of it at once. One that hangs keeps them open:
after `SILENT` seconds without a sign it is ended, or where it is on another machine, the others end themselves.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from os import _exit

from luthier.train.child import LOST, Child
from luthier.train.world import POLL_SECONDS, Store

BEAT_SECONDS = 1.0
SILENT = 20
"""Beats of its own without one of another process after which that one counts as hung: while the machine sleeps none pass."""
GRACE_SECONDS = 5.0


class Watch(threading.Thread):
    """Gives signs of life in the background, and watches the others: the first process all, every other one the first."""

    def __init__(self, connect: Callable[[], Store], rank: int, size: int, children: Mapping[int, Child]) -> None:
        """`connect` makes a connection of this thread's own; `children` are those processes that this one has started."""
        super().__init__(daemon=True, name="watch")
        self.connect = connect
        self.rank = rank
        self.others = tuple(range(1, size)) if rank == 0 else (0,)
        self.children = children
        self.silent: dict[int, str] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        """Give signs and look for those of others, until `end` is called."""
        try:
            store, beats = self.connect(), 0
            last, heard = dict.fromkeys(self.others, b""), dict.fromkeys(self.others, 0)
            while not self.ended.wait(BEAT_SECONDS):
                beats += 1
                store.set(f"beat/{self.rank}", str(beats))
                for other in self.others:
                    now = store.get(f"beat/{other}") if store.check([f"beat/{other}"]) else b""
                    if now != last[other] or not now:
                        last[other], heard[other] = now, beats
                    elif beats - heard[other] >= SILENT and other not in self.silent:
                        self._end_silent(other)
        except RuntimeError:  # the table is gone, and with it the first process
            if not self.ended.is_set() and self.rank:
                _exit(LOST)

    def _end_silent(self, other: int) -> None:
        """Make what waits for a silent process stop waiting."""
        self.silent[other] = f"{self._name_of(other)} has given no sign of life for {SILENT} seconds."
        if other in self.children:
            self.children[other].end(0)
            return
        if self.rank == 0:
            time.sleep(GRACE_SECONDS)  # the main thread may be computing, and then tells it itself
        if not self.ended.is_set():
            print(f"luthier: {self.silent[other]} All processes stop.", file=sys.stderr, flush=True)
            _exit(LOST)

    def end(self) -> None:
        """No more signs are given or expected."""
        self.ended.set()

    def lost(self, store: Store, seconds: float) -> str | None:
        """Which process is lost and how, in words; asked for at most so many seconds, since a death is known a moment later."""
        until = time.monotonic() + seconds
        while True:
            if found := self._lost_now(store):
                return found
            if time.monotonic() >= until:
                return None
            time.sleep(POLL_SECONDS)

    def _lost_now(self, store: Store) -> str | None:
        """The same at this moment; a process that was ended from outside is at fault before one that failed of itself."""
        children = list(self.children.values())
        found = [*self.silent.values(), *filter(None, (child.death() for child in children)), *self._failed(store)]
        found += filter(None, (child.failure() for child in children))
        return found[0] if found else None

    def _failed(self, store: Store) -> Iterator[str]:
        """What processes said that have failed of themselves."""
        with contextlib.suppress(RuntimeError):
            for other in self.others if self.rank == 0 else ():
                if store.check([f"failed/{other}"]):
                    yield f"{self._name_of(other)}: {json.loads(store.get(f'failed/{other}'))['message']}"

    def _name_of(self, other: int) -> str:
        return self.children[other].name if other in self.children else f"rank {other}"
