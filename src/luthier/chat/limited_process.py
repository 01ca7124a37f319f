"""Calls a function of ours on something of unknown origin in a process of its own, with little time, memory and output."""

import errno
import importlib
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Literal

Limit = Literal["processor", "clock", "memory", "output"]
TOO_LARGE, TOO_MUCH = 4, 5
_EXIT_CODES: dict[int, Limit] = {TOO_LARGE: "memory", TOO_MUCH: "output"}


@dataclass(frozen=True)
class Limits:
    """What a call may take: seconds of processor time, bytes of memory, bytes that it writes, seconds by the clock."""

    seconds: int
    memory: int
    output: int
    clock: float


@dataclass(frozen=True)
class Outcome:
    """What the function returned; or the limit that it met; or else how it failed, in a line."""

    result: str = ""
    met: Limit | None = None
    failure: str | None = None


def call(function: str, argument: str, limits: Limits) -> Outcome:
    """What `package.module:function`, one of ours from text to text, makes of the argument within the limits."""
    request = {"function": function, "argument": argument, "limits": [limits.seconds, limits.memory, limits.output]}
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            ended = subprocess.run(
                command,
                input=json.dumps(request).encode(),
                stdout=output,
                stderr=errors,
                timeout=limits.clock,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(met="clock")
        output.seek(0)
        errors.seek(0)
        if ended.returncode in _EXIT_CODES:
            return Outcome(met=_EXIT_CODES[ended.returncode])
        if ended.returncode < 0:  # killed at the limit
            return Outcome(met="processor")
        if ended.returncode:
            said = errors.read().decode("utf-8", "replace").strip().splitlines()
            return Outcome(failure=(said or ["no reason given"])[-1])
        return Outcome(output.read().decode("utf-8"))


def main() -> None:
    """Do the call of the request on stdin, and write what the function returns to stdout."""
    request = json.load(sys.stdin)
    _limit(*request["limits"])
    module, _, name = request["function"].partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(request["argument"]).encode("utf-8")
    except MemoryError:
        sys.exit(TOO_LARGE)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        sys.exit(TOO_MUCH)
    if len(result) > request["limits"][2]:
        sys.exit(TOO_MUCH)
    sys.stdout.buffer.write(result)


def _limit(seconds: int, memory: int, output: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
