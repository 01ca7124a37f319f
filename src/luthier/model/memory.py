"""Memory: how much there is, the peak of what was used, and what to say when it runs out."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from luthier.errors import MachineError
from luthier.runs.durable import format_bytes

GENERAL_ADVICE = "name a smaller model, or end other programs"
_CGROUP = Path("/sys/fs/cgroup")


def available(device: torch.device) -> int:
    """Bytes that this process can still take: of the GPU, or of the machine as far as its container is allowed."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        limit = int((_CGROUP / "memory.max").read_text())
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()) + _reclaimable())
    return max(0, free)


def rss() -> int:
    """Bytes of memory that this process holds: its resident set size."""
    return int(psutil.Process().memory_info().rss)


class Peak:
    """The most memory in use since this was made: by torch on a GPU, else by the process.

    Only Linux can forget an earlier peak; on other systems `bytes` is None.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._forgotten = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError), open("/proc/self/clear_refs", "r+b", buffering=0) as process:
                process.write(b"5")  # see proc(5): the peak starts anew from what is in use now
                self._forgotten = True

    def bytes(self) -> int | None:
        """The peak so far."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return _kibibytes("/proc/self/status", "VmHWM") if self._forgotten else None


@contextlib.contextmanager
def explain_out_of_memory(doing: str, advice: str = GENERAL_ADVICE) -> Iterator[None]:
    """Turns an out-of-memory error, of the processor or a GPU, into a message; `doing` completes "not enough memory …"."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(
            f"not enough memory {doing}: {_amounts(error)}. To make it fit, {advice}. What was complete before is kept."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; torch's allocator and files mapped into memory say it in words only."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and (
        "DefaultCPUAllocator" in str(error) or "Cannot allocate memory" in str(error)
    )


def _amounts(error: BaseException) -> str:
    """The numbers: what was asked for, what this process holds, what is available."""
    parts = []
    if asked := re.search(r"you tried to allocate (\d+) bytes", str(error)):
        parts.append(f"{format_bytes(int(asked[1]))} more were asked for")
    elif asked := re.search(r"Tried to allocate ([\d.]+ [GMK]iB)", str(error)):
        parts.append(f"{asked[1]} more were asked for")
    elif text := str(error).strip():
        parts.append(text.splitlines()[0].rstrip("."))
    parts.append(f"this process holds {format_bytes(rss())}")
    parts.append(f"the machine has {format_bytes(available(torch.device('cpu')))} left")
    return ", ".join(parts)


def _reclaimable() -> int:
    """Bytes of cached files that a container gives up when memory is asked for."""
    found = re.search(r"^inactive_file (\d+)$", (_CGROUP / "memory.stat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def _kibibytes(file: str, field: str) -> int | None:
    """A field of Linux's process or memory table, in bytes; None on other systems."""
    with contextlib.suppress(OSError):
        if found := re.search(rf"^{field}:\s+(\d+) kB", Path(file).read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    return None
