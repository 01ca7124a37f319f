"""A process of a run that this one has started, and how it ended."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

LOCAL = "127.0.0.1"
INTERFACE = ("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
"""Where gloo connects processes of one machine: a host's own name need not lead anywhere."""
LOST, INTERRUPTED = 4, 3
"""Exit codes of a process that ended because another one did, or was stopped together with all."""


@dataclass(frozen=True)
class Child:
    """A started process, and what it prints: the first process tells what is to be told."""

    rank: int
    process: "subprocess.Popen[bytes]"
    printed: IO[bytes]

    @classmethod
    def start(cls, program: Sequence[str], rank: int, size: int, port: int, threads: int) -> "Child":
        """The process of a rank; `program` is a module and its words."""
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": LOCAL, "MASTER_PORT": port}
        paths = os.pathsep.join([*filter(None, sys.path), os.environ.get("PYTHONPATH", "")])
        settings = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths} | {
            key: str(value) for key, value in variables.items()
        }
        printed = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        process = subprocess.Popen(
            [sys.executable, "-m", *program],
            env=dict([INTERFACE]) | os.environ | settings, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
        )  # fmt: skip
        return cls(rank, process, printed)

    @property
    def name(self) -> str:
        return f"rank {self.rank} (process {self.process.pid})"

    def death(self) -> str | None:
        """How it was ended from outside, in words; None where it was not."""
        code = self.process.poll()
        if code is None or code >= 0:
            return None
        hint = " (if nobody sent it, the system did, for want of memory)" if -code == signal.SIGKILL else ""
        return f"{self.name} was ended by signal {-code}, {signal.Signals(-code).name}{hint}."

    def failure(self) -> str | None:
        """How it ended of itself, with the last line that it printed; None where it goes on, or another one was at fault."""
        code = self.process.poll()
        if code is None or code in (LOST, INTERRUPTED) or code < 0:
            return None
        self.printed.seek(0)
        lines = self.printed.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
        return f"{self.name} ended with exit code {code}: {lines[-1]}"

    def end(self, seconds: float) -> None:
        """Wait so long for it to end of itself, then end it."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.printed.close()
