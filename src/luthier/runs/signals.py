"""Ctrl-C, a polite kill and a terminal that hangs up: once means finish the step and save, twice means stop now.

A hang-up comes from the shell and from the system as well, so another one means nothing new. One that is ignored when the
command starts, as under nohup, stays ignored. An interrupt does not: scripts ignore it for whatever they start in the
background, and a run that was started so must still hear `kill -INT`.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

HANG_UP = getattr(signal, "SIGHUP", None)  # not on every system
CAUGHT = [number for number in (signal.SIGINT, signal.SIGTERM, HANG_UP) if number is not None]


@contextlib.contextmanager
def stopping(on_first: Callable[[], object]) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether to stop. Outside the main thread nothing is caught, as Python demands."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == HANG_UP:
            return
        if asked:
            raise KeyboardInterrupt
        asked = True
        on_first()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    heard = [number for number in CAUGHT if number != HANG_UP or signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
