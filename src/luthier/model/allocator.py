"""Memory that every step of a training frees and takes again: it stays with the process, and no two trainings share it.

glibc gives freed memory back to the system, which then hands it out page by page, filled with zeros: an eighth of a step.
Here it is asked to keep it while a training runs. Other C libraries are left as they are.
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_MAPPED_BY_DEFAULT, _TRIMMED_BY_DEFAULT = 32 << 20, 64 << 20  # where glibc's own sliding thresholds come to rest
_LARGE, _LONG_LIVED = 32 << 20, 1 << 16  # bytes from which on a tensor is mapped by itself
_NEVER = (1 << 31) - 1


class MemoryPool:
    """The memory of one training, which owns it: `with MemoryPool().in_use():` around its steps."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    @contextlib.contextmanager
    def in_use(self) -> Iterator["MemoryPool"]:
        """Inside, freed memory stays with the process and `buffer` takes from this pool; both end with it.

        What is larger than all gaps that a step leaves is still mapped and given back by itself. It holds for this thread:
        trainings in several threads have a pool each.
        """
        token = _pool.set(self)
        try:
            with _MALLOC.thresholds(mapped=_LARGE, trimmed=_NEVER):
                yield self
        finally:
            _pool.reset(token)
            self._buffers.clear()
            give_back_free_memory()

    def buffer(
        self, rows: int, columns: int, dtype: torch.dtype, device: torch.device
    ) -> Float[Tensor, "rows columns"]:
        """The same memory whenever a tensor of so many columns is asked for, larger memory when it has to be."""
        kind = (columns, dtype, device)
        if kind not in self._buffers or len(self._buffers[kind]) < rows:
            self._buffers.pop(kind, None)
            with long_lived():
                self._buffers[kind] = torch.empty(rows + rows // 8, columns, dtype=dtype, device=device)
        return self._buffers[kind][:rows]


_pool: ContextVar[MemoryPool | None] = ContextVar("pool", default=None)
"""The pool of the training that runs in this thread."""


def buffer(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "rows columns"]:
    """A tensor with any numbers in it, from the pool that is in use; without one, a new tensor."""
    pool = _pool.get()
    return pool.buffer(rows, columns, dtype, device) if pool else torch.empty(rows, columns, dtype=dtype, device=device)


@contextlib.contextmanager
def long_lived() -> Iterator[None]:
    """Inside, tensors are made that stay, mapped by themselves: among those that come and go they would leave gaps."""
    with _MALLOC.thresholds(mapped=_LONG_LIVED, trimmed=_TRIMMED_BY_DEFAULT):
        yield


def give_back_free_memory() -> None:
    """Give what is free back to the system, also in the gaps between what is in use."""
    _MALLOC.trim()


@dataclass(frozen=True, eq=False)
class _Thresholds:
    """From how many bytes on a tensor is mapped by itself, and beyond how many free ones glibc gives them back."""

    mapped: int
    trimmed: int


class _Malloc:
    """glibc's thresholds, of which a process has one pair: what all its threads ask for must be known together."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        with contextlib.suppress(OSError, TypeError):  # TypeError: Windows has no such handle
            library = ctypes.CDLL(None)
            if hasattr(library, "gnu_get_libc_version"):
                self._library = library
        self._lock = threading.Lock()
        self.requests: list[_Thresholds] = []
        """The latest says what is mapped, the highest what is given back."""

    @contextlib.contextmanager
    def thresholds(self, *, mapped: int, trimmed: int) -> Iterator[None]:
        """Inside, these are asked for; whoever leaves takes back no request but its own."""
        request = _Thresholds(mapped, trimmed)
        with self._lock:
            self.requests.append(request)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self.requests.remove(request)
                self._apply()

    def trim(self) -> None:
        if self._library:
            self._library.malloc_trim(0)

    def _apply(self) -> None:
        if self._library:
            mapped = self.requests[-1].mapped if self.requests else _MAPPED_BY_DEFAULT
            trimmed = max((request.trimmed for request in self.requests), default=_TRIMMED_BY_DEFAULT)
            self._library.mallopt(_MMAP_THRESHOLD, mapped)
            self._library.mallopt(_TRIM_THRESHOLD, trimmed)


_MALLOC = _Malloc()
"""This process's C library."""
