"""Memory: how much there is, how much was held at most, and what to say when it runs out."""

import contextlib
import ctypes
import re
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from luthier.errors import MachineError
from luthier.recipe import Train
from luthier.runs.durable import size

NEEDS_LESS = "name a smaller model, or end other programs"
_CGROUP = Path("/sys/fs/cgroup")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_MAPPED, _TRIMMED = 32 << 20, 64 << 20  # where glibc's own sliding thresholds come to rest
_LARGE, _OWN_PLACE = 32 << 20, 1 << 16  # bytes
_NEVER = (1 << 31) - 1
_Places = dict[tuple[int, torch.dtype, torch.device], Tensor]
_places: ContextVar[_Places | None] = ContextVar("places", default=None)  # of the training that runs in this thread


def available(device: torch.device) -> int:
    """Bytes that this process can still take: of the GPU, or of the machine as far as its container is allowed."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        limit = int((_CGROUP / "memory.max").read_text())
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()) + _cached())
    return max(0, free)


def held() -> int:
    """Bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


class Peak:
    """The most memory that was held since this was made: by torch on a GPU, else by the process.

    Only Linux can forget an earlier peak; elsewhere the answer is None.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._forgotten = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError), open("/proc/self/clear_refs", "r+b", buffering=0) as process:
                process.write(b"5")  # see proc(5): the peak starts anew from what is held now
                self._forgotten = True

    def bytes(self) -> int | None:
        """The peak so far."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return _kibibytes("/proc/self/status", "VmHWM") if self._forgotten else None


@contextlib.contextmanager
def reused() -> Iterator[None]:
    """Inside, memory that is freed stays with the process, for the next tensors; it goes back to the system at the end.

    Every step frees the same gigabyte or so and takes it again. glibc gives it back to the system each time, which then hands
    it out page by page, filled with zeros: an eighth of a step. What is larger than all gaps that a step leaves still comes
    and goes by itself. Other C libraries are left as they are. Trainings in several threads have places of their own.
    """
    token = _places.set({})
    try:
        with _thresholds(_Request(mapped=_LARGE, trimmed=_NEVER)):
            yield
    finally:
        _places.reset(token)
        give_back()


def give_back() -> None:
    """Give what is free back to the system, also in the gaps between what is held."""
    if library := _glibc():
        library.malloc_trim(0)


def place(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "rows width"]:
    """A tensor with any numbers; inside `reused` the same memory whenever it is asked for, a larger one when it has to be."""
    places = _places.get()
    if places is None:
        return torch.empty(rows, width, dtype=dtype, device=device)
    kind = (width, dtype, device)
    if kind not in places or len(places[kind]) < rows:
        places.pop(kind, None)
        with lasting():
            places[kind] = torch.empty(rows + rows // 8, width, dtype=dtype, device=device)
    return places[kind][:rows]


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Inside, tensors are made that stay, so they get places of their own: among what comes and goes they would leave gaps."""
    with _thresholds(_Request(mapped=_OWN_PLACE, trimmed=_TRIMMED)):
        yield


@dataclass(frozen=True, eq=False)
class _Request:
    """From how many bytes on a tensor is mapped by itself, and beyond how many free ones glibc gives them back."""

    mapped: int
    trimmed: int


_requests: list[_Request] = []
"""Of all threads, since a process has one C library: the latest says what is mapped, the highest what is given back."""
_changing = threading.Lock()


@contextlib.contextmanager
def _thresholds(request: _Request) -> Iterator[None]:
    """Inside, this is asked of glibc; whoever leaves takes back no request but its own."""
    with _changing:
        _requests.append(request)
        _ask_for_thresholds()
    try:
        yield
    finally:
        with _changing:
            _requests.remove(request)
            _ask_for_thresholds()


def _ask_for_thresholds() -> None:
    if library := _glibc():
        library.mallopt(_MMAP_THRESHOLD, _requests[-1].mapped if _requests else _MAPPED)
        library.mallopt(_TRIM_THRESHOLD, max((one.trimmed for one in _requests), default=_TRIMMED))


@contextlib.contextmanager
def errors(doing: str, advice: str = NEEDS_LESS) -> Iterator[None]:
    """Turns memory that ran out, on the processor or a GPU, into a message; `doing` completes "not enough memory …"."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not ran_out(error):
            raise
        raise MachineError(
            f"not enough memory {doing}: {_needed(error)}. To make it fit, {advice}. What was complete before is kept."
        ) from error


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; torch's allocator and files mapped into memory say it in words only."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and (
        "DefaultCPUAllocator" in str(error) or "Cannot allocate memory" in str(error)
    )


def to_train_with_less(settings: Train) -> str:
    """What to change, the smallest change first, given the settings that did not fit."""
    ways = []
    if settings.tokens_per_batch and settings.tokens_per_batch > 64:
        ways.append(
            f"continue with train.tokens_per_batch={settings.tokens_per_batch // 2} (it is {settings.tokens_per_batch:,}; "
            "the result is the same but for rounding)"
        )
    if settings.max_tokens and settings.max_tokens > 256:
        ways.append(f"start anew with train.max_tokens={settings.max_tokens // 2}, which drops longer rows")
    if settings.method == "full":
        ways.append("start anew with train.method=lora, which keeps optimizer state for few weights")
    return ", or ".join([*ways, NEEDS_LESS])


def _needed(error: BaseException) -> str:
    """The numbers: what was asked for, what this process holds, what is available."""
    parts = []
    if asked := re.search(r"you tried to allocate (\d+) bytes", str(error)):
        parts.append(f"{size(int(asked[1]))} more were asked for")
    elif asked := re.search(r"Tried to allocate ([\d.]+ [GMK]iB)", str(error)):
        parts.append(f"{asked[1]} more were asked for")
    elif text := str(error).strip():
        parts.append(text.splitlines()[0].rstrip("."))
    parts.append(f"this process holds {size(held())}")
    parts.append(f"the machine has {size(available(torch.device('cpu')))} left")
    return ", ".join(parts)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process where it is glibc."""
    with contextlib.suppress(OSError, TypeError):  # TypeError: Windows has no such handle
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            return library
    return None


def _cached() -> int:
    """Bytes of files that a container holds in memory and gives up when asked."""
    found = re.search(r"^inactive_file (\d+)$", (_CGROUP / "memory.stat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def _kibibytes(file: str, field: str) -> int | None:
    """A field of Linux's process or memory table, in bytes; None on other systems."""
    with contextlib.suppress(OSError):
        if found := re.search(rf"^{field}:\s+(\d+) kB", Path(file).read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    return None
