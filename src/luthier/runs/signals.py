"""Ctrl-C, SIGTERM and a terminal that hangs up: once means finish the step and save, twice means stop now.

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
CAUGHT = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANG_UP) if number is not None)


@contextlib.contextmanager
def stopping(on_first: Callable[[], object], stop: Callable[[], bool] | None = None) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether to stop, and calls `on_first` when that is so for the first time.

    It is the caller's `stop`, if there is one; else signals say so, in the main thread only, as Python demands.
    """
    if stop is not None:
        yield _calling_once(stop, on_first)
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == HANG_UP:
            return
        if asked:
            raise KeyboardInterrupt
        asked = True
        on_first()

    heard = [number for number in CAUGHT if number != HANG_UP or signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _calling_once(stop: Callable[[], bool], on_first: Callable[[], object]) -> Callable[[], bool]:
    """`stop`, which once it was true stays true."""
    asked = False

    def ask() -> bool:
        nonlocal asked
        if not asked and stop():
            asked = True
            on_first()
        return asked

    return ask
