"""One function on many arguments, side by side in processes of their own, with the results in order.

The processes are started from nothing (no copy of this one, whose threads would not come along), and import what the function
needs and no more: torch and transformers stay here. What fails there is done again here, so that an error is raised where it
would have been without them. They end with this process, however it ends: their connection to it breaks.
"""

import contextlib
import gc
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Generic, TypeVar

from luthier.errors import MachineError

Argument = TypeVar("Argument")
Result = TypeVar("Result")

MOST = 8
"""Processes; more would wait for this one, which reads, decides and writes."""
AHEAD = 2
"""Arguments for each process that are read before their turn."""
WAITING_BYTES = 1 << 26
"""Pickled arguments and results that may wait together; at least one of each process can."""
PATIENCE = 5
"""Seconds in which a process ends that has lost its connection."""


def available() -> int:
    """How many processes can compute at the same time, as the system and the environment allow; 0 if they should not."""
    if os.environ.get("TOKENIZERS_PARALLELISM", "").lower() in ("false", "0", "off", "no"):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("RAYON_NUM_THREADS", "")
    found = min(cores, MOST, int(threads) if threads.isdecimal() and int(threads) else cores)
    return found if found > 1 else 0


class Processes(Generic[Argument, Result]):
    """So many processes that do the same; with none of them it is done here."""

    def __init__(self, work: Callable[[Argument], Result], count: int, where: Callable[[Argument], str]) -> None:
        """`work` can be pickled; `where` names an argument in the message about a process that died with it."""
        self._work, self._where = work, where
        self._started: list[_Process] = []
        self._count = count

    def __enter__(self) -> "Processes[Argument, Result]":
        if self._count:
            work = pickle.dumps(self._work, pickle.HIGHEST_PROTOCOL)
            self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
            try:
                self._started.extend(_Process() for _ in range(self._count))
            except OSError as error:
                self._end()
                raise MachineError(f"no process could be started: {error.strerror}.") from None
            self._threads = ThreadPoolExecutor(self._count, "processes")
            for process in self._started:
                self._threads.submit(self._begin, process, work)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def in_order(self, arguments: Iterable[Argument]) -> Iterator[tuple[Argument, Result]]:
        """Each argument with its result, as they come."""
        if not self._started:
            yield from ((argument, self._work(argument)) for argument in arguments)
            return
        waiting: deque[tuple[Argument, int, Future[bytes | None]]] = deque()
        size = 0
        for argument in arguments:
            asked = pickle.dumps(argument, pickle.HIGHEST_PROTOCOL)
            size += len(asked)
            waiting.append((argument, len(asked), self._threads.submit(self._ask, asked, argument)))
            while len(waiting) > AHEAD * self._count or (len(waiting) > self._count and size > WAITING_BYTES):
                size -= waiting[0][1]
                yield self._result(*waiting.popleft())
        while waiting:
            yield self._result(*waiting.popleft())

    def _begin(self, process: "_Process", work: bytes) -> None:
        """Send it the work; what is wrong with it is said when it is asked."""
        with contextlib.suppress(OSError):
            process.connection.send_bytes(work)
        self._idle.put(process)

    def _ask(self, asked: bytes, argument: Argument) -> bytes | None:
        """The pickled result of whichever process is idle; None where the work failed there."""
        process = self._idle.get()
        try:
            process.connection.send_bytes(asked)
            answer = process.connection.recv_bytes()
        except (EOFError, OSError):
            raise MachineError(process.death(), where=self._where(argument)) from None
        finally:
            self._idle.put(process)
        return answer or None

    def _result(self, argument: Argument, size: int, answer: Future[bytes | None]) -> tuple[Argument, Result]:
        made = answer.result()
        return argument, self._work(argument) if made is None else pickle.loads(made)

    def _end(self) -> None:
        for process in self._started:
            process.end()
        if self._started:
            self._threads.shutdown(cancel_futures=True)


class _Process:
    """One of them, and the connection to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            lines = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()})"
            self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
            self._process = subprocess.Popen(
                [sys.executable, "-c", lines],
                env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._printed, stderr=self._printed,
                start_new_session=True,
            )  # fmt: skip
        self.connection = Connection(ours.detach())

    def death(self) -> str:
        """How it ended, in words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        code = self._process.returncode or 0
        if code < 0:
            hint = " (if nobody sent it, the system did, for want of memory)" if -code == signal.SIGKILL else ""
            how = f"was ended by signal {-code}, {signal.Signals(-code).name}{hint}"
        else:
            self._printed.seek(0)
            lines = self._printed.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
            how = f"ended with exit code {code}: {lines[-1]}"
        return (
            f"a process that prepared rows {how}. Try again; with TOKENIZERS_PARALLELISM=false rows are prepared without such "
            "processes, which takes longer and less memory."
        )

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._printed.close()


def serve(number: int) -> None:
    """In a process: do the work that comes first, for each argument that comes, until nobody sends any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    with contextlib.suppress(EOFError, OSError), Connection(number) as connection:
        work = pickle.loads(connection.recv_bytes())
        gc.freeze()
        gc.set_threshold(100_000)  # what comes and goes here is a tree, which needs no search for cycles
        while True:
            argument = pickle.loads(connection.recv_bytes())
            try:
                answer = pickle.dumps(work(argument), pickle.HIGHEST_PROTOCOL)
            except Exception:
                answer = b""  # it is done again where its error belongs
            connection.send_bytes(answer)
