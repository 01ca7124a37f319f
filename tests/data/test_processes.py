"""Work in processes of its own: in order, with errors where they belong, and nothing left behind."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from luthier.data.processes import Processes, available
from luthier.errors import MachineError

divide = functools.partial(divmod, 100)
"""A function that any process can import."""


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_results_come_in_order_and_read_a_few_ahead() -> None:
    read: list[int] = []

    def arguments() -> Iterator[int]:
        for number in range(1, 40):
            read.append(number)
            yield number

    before = children()
    with Processes(divide, 2, str) as processes:
        for done, (number, result) in enumerate(processes.in_order(arguments()), start=1):
            assert (number, result) == (done, divmod(100, done)) and len(read) - done < 6
    assert done == 39 and children() == before


def test_an_error_is_raised_here_and_ends_the_processes() -> None:
    before = children()
    with pytest.raises(ZeroDivisionError), Processes(divide, 2, str) as processes:
        list(processes.in_order(range(5, -1, -1)))
    assert children() == before


def test_a_dead_process_is_a_message_with_the_place() -> None:
    exit_code = r"^d\.jsonl:3: a process that prepared rows ended with exit code 3: it printed nothing"
    with pytest.raises(MachineError, match=exit_code), Processes(os._exit, 1, "d.jsonl:{}".format) as processes:
        list(processes.in_order([3]))
    killed = r"was ended by signal 9, SIGKILL \(if nobody sent it, the system did"
    with pytest.raises(MachineError, match=killed), Processes(signal.raise_signal, 1, str) as processes:
        list(processes.in_order([signal.SIGKILL]))


def test_processes_end_with_the_one_that_started_them() -> None:
    lines = (
        "import os, time\n"
        "from luthier.data.processes import Processes\n"
        "with Processes(time.sleep, 2, str) as made:\n"
        "    list(made.in_order([0, 0]))\n"
        "    print(*(one._process.pid for one in made._started), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    until = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda number: set(range(6)))
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    assert available() == 6
    monkeypatch.setenv("RAYON_NUM_THREADS", "3")
    assert available() == 3
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    assert available() == 0
    monkeypatch.delenv("RAYON_NUM_THREADS")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert available() == 0
