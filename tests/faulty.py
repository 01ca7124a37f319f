"""Disks that fail, and processes that are killed: what the tests of durability share.

Run as a program it is a nursery: it imports Luthier once, and forks a child for each line of JSON that it reads, which costs
milliseconds where a fresh Python costs seconds. A child can be killed with SIGKILL after a time, or kill itself at the Nth
call that changes a disk.
"""

import contextlib
import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.runs import durable
from luthier.runs.durable import Disk

Fault = Callable[[str, tuple[Any, ...]], None]
OPERATIONS = ("create", "extend", "write", "truncate", "flush", "rename", "make_folder", "remove_file", "remove_folder")


class FaultyDisk(Disk):
    """A disk that does as it should until its call number `at`, counted from 0 over `operations`; then `fault` comes first."""

    def __init__(self, at: int | None, fault: Fault, operations: Sequence[str] = OPERATIONS) -> None:
        self.at, self.fault, self.operations = at, fault, operations
        self.calls: list[str] = []

    def meet(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in self.operations:
            self.calls.append(name)
            if len(self.calls) - 1 == self.at:
                self.fault(name, arguments)


def _passes_by(name: str) -> Callable[..., Any]:
    real = getattr(Disk, name)

    def call(self: FaultyDisk, *arguments: Any) -> Any:
        self.meet(name, arguments)
        return real(self, *arguments)

    return call


for operation in OPERATIONS:
    setattr(FaultyDisk, operation, _passes_by(operation))


def failing(code: int) -> Fault:
    """The call fails with this errno; a write has then written half."""

    def fault(name: str, arguments: tuple[Any, ...]) -> None:
        _write_half(name, arguments)
        raise OSError(code, os.strerror(code))

    return fault


def killing(name: str, arguments: tuple[Any, ...]) -> None:
    """The process ends by SIGKILL before the call; a write has then written half."""
    _write_half(name, arguments)
    os.kill(os.getpid(), signal.SIGKILL)


def _write_half(name: str, arguments: tuple[Any, ...]) -> None:
    if name == "write":
        descriptor, data = arguments
        os.write(descriptor, data[: len(data) // 2])


@contextlib.contextmanager
def disk(other: Disk) -> Iterator[Disk]:
    """Puts another disk in place of the real one."""
    real, durable.disk.current = durable.disk.current, other
    try:
        yield other
    finally:
        durable.disk.current = real


def weights_hash(weights: dict[str, Any]) -> str:
    """SHA-256 over tensors in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode() + weights[name].detach().contiguous().numpy().tobytes())
    return total.hexdigest()


# What a child does: a table from a word to a function.


def scenario(*, name: str, folder: str, at: int | None, model: str, stop_first: bool = False) -> None:
    """Do one of the writes of `scenarios`; die at its Nth call that changes a disk."""
    import scenarios

    one = scenarios.SCENARIOS[name]
    ready = one.ready(Path(folder), Path(model))
    if stop_first:
        os.kill(os.getpid(), signal.SIGSTOP)
    with disk(FaultyDisk(at, killing)):
        ready()


def train(
    *, folder: str, model: str, die_at_step: int | None = None, die_at_call: int | None = None, **changes: Any
) -> None:
    """Train on rows that follow a rule; die when a step is recorded, or at a call. Leaves the hash of the weights."""
    import scenarios

    def record(kind: str, **fields: object) -> None:
        if kind == "step" and fields["step"] == die_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    with disk(FaultyDisk(die_at_call, killing)):
        outcome = scenarios.train(Path(folder), Path(model), record=record, **changes)
    Path(folder, "weights.sha256").write_text(weights_hash(outcome.weights))


def command(*, words: list[str], memory: int | None = None, blow: dict[str, Any] | None = None) -> None:
    """Luthier's own command line. `memory` is how many bytes of address space are left to it.

    `blow` strikes once: {"at": "step", "number": 5, "do": "stop"} at an event of that kind and number, or at "load" or "save".
    """
    from luthier.cli import main

    if memory is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    if blow is not None:
        _await_blow(**blow)
    sys.argv = ["luthier", *words]
    main.main()


def _await_blow(*, at: str, do: str, number: int = 0, folder: str = "") -> None:
    """Arrange that something happens to this process when it has come to a certain point."""
    from luthier.data import reading
    from luthier.runs import Run

    blows = iter([BLOWS[do]])

    def strike() -> None:
        if blow := next(blows, None):
            blow(folder)

    real_record, real_open = Run.record, reading.open_data

    def record(self: Run, kind: str, **fields: Any) -> None:
        real_record(self, kind, **fields)
        if kind == at and int(fields.get("step", fields.get("done", 0))) >= number:
            strike()

    def open_data(*given: Any, **named: Any) -> Any:
        if at == "load":
            strike()
        return real_open(*given, **named)

    Run.record, reading.open_data = record, open_data  # type: ignore[method-assign,assignment]
    if at == "save":

        def fault(name: str, arguments: tuple[Any, ...]) -> None:
            if "checkpoints" in str(arguments[0]):
                strike()

        durable.disk.current = FaultyDisk(None, fault, ("flush",))
        durable.disk.current.meet = lambda name, arguments: fault(name, arguments) if name == "flush" else None  # type: ignore[attr-defined]


def _signal(*numbers: signal.Signals) -> Callable[[str], None]:
    def send(folder: str) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return send


def _put_another_in_its_place(folder: str) -> None:
    shutil.rmtree(folder)
    os.rename(folder + ".other", folder)


def _stop_and_put_another_in_its_place(folder: str) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    _put_another_in_its_place(folder)


BLOWS: dict[str, Callable[[str], None]] = {
    "interrupt": _signal(signal.SIGINT),
    "terminate": _signal(signal.SIGTERM),
    "interrupt twice": _signal(signal.SIGINT, signal.SIGINT),
    "kill": _signal(signal.SIGKILL),
    "pause": _signal(signal.SIGSTOP),
    "put another in its place": _put_another_in_its_place,
    "stop, and put another in its place": _stop_and_put_another_in_its_place,
    "take the folder away": lambda folder: os.rename(folder, folder + ".away"),
}


TASKS: dict[str, Callable[..., None]] = {"scenario": scenario, "train": train, "command": command}


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative for a signal, what it said, and after how long."""

    code: int
    said: str
    seconds: float


class Nursery:
    """A process that has imported everything, and whose children do the tasks."""

    def __init__(self, log: Path) -> None:
        self.log = log
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._said: dict[int, Path] = {}
        self._asked = 0

    def start(self, task: str, *, kill_after: float | None = None, **arguments: Any) -> int:
        """Begin a task; gives its process id."""
        said = self.log / f"{len(self._said)}.txt"
        pid = int(self._ask({"task": task, "arguments": arguments, "said": str(said), "kill_after": kill_after})["pid"])
        self._said[pid] = said
        return pid

    def wait(self, pid: int) -> Ended:
        """How the child ended, as soon as it has."""
        answer = self._ask({"wait": pid})
        return Ended(int(answer["code"]), self._said[pid].read_text(), float(answer["seconds"]))

    def do(self, task: str, *, kill_after: float | None = None, **arguments: Any) -> Ended:
        """A task from its beginning to its end."""
        return self.wait(self.start(task, kill_after=kill_after, **arguments))

    def when_stopped(self, pid: int) -> None:
        """Returns when the child has stopped itself."""
        while "State:\tT" not in Path(f"/proc/{pid}/status").read_text():
            os.sched_yield()

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._asked += 1
        self._process.stdin.write(json.dumps(request | {"number": self._asked}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = {}
        while answer.get("number") != self._asked:  # a test that ran out of time has left answers behind
            answer = json.loads(self._process.stdout.readline())
        return answer


def _child(request: dict[str, Any]) -> None:
    """Do the task, and leave with its exit code; never returns."""
    said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 0
    try:
        TASKS[request["task"]](**request["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _nurse() -> None:
    """Read requests, fork children, tell how they ended."""
    import torch

    import luthier.cli.main
    import luthier.cli.screens.run
    import luthier.pipeline
    import luthier.runs.verify  # noqa: F401
    import scenarios  # noqa: F401
    from luthier.evaluate.error_analysis import spelling

    for language in spelling.LANGUAGES:  # seconds that every child would spend
        spelling._dictionary(language)
    torch.set_num_threads(1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    born: dict[int, tuple[float, float | None]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "task" in request:
            pid = os.fork()
            if not pid:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
                _child(request)
            born[pid] = (time.monotonic(), request["kill_after"])
            answer: dict[str, Any] = {"pid": pid}
        else:
            pid = request["wait"]
            started, kill_after = born.pop(pid)
            if kill_after is not None:
                _kill(pid, started + kill_after)
            _, status = os.waitpid(pid, 0)
            answer = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}
        print(json.dumps(answer | {"number": request["number"]}), flush=True)
    for pid in born:
        os.kill(pid, signal.SIGKILL)


def _kill(pid: int, deadline: float) -> None:
    """Kill the child at this time, unless it ends before."""
    while (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
    os.kill(pid, signal.SIGKILL)


FULL, BROKEN = failing(errno.ENOSPC), failing(errno.EIO)

if __name__ == "__main__":
    sys.modules["faulty"] = sys.modules["__main__"]
    _nurse()
