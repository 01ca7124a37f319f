"""The disk under everything that is written: each call that changes it is a method, so that a test can let any of them fail."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from luthier.errors import MachineError

CHUNK = 1 << 24  # bytes handed to the system at once
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "writing is not allowed",
    errno.EPERM: "writing is not allowed",
    errno.EIO: "the disk reports an input/output error",
    errno.ENOENT: "the folder is gone",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ELOOP: "a symbolic link stands in its place",
    errno.ESTALE: "the network disk has lost the folder",
    errno.EMFILE: "too many files are open",
}


class Disk:
    """The calls that change a disk, and no others."""

    def create(self, path: Path) -> int:
        """A descriptor of a file that did not exist."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def extend(self, path: Path) -> int:
        """A descriptor at the end of a file, which is made if there is none."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        """How many bytes the system took."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def flush(self, path: Path, descriptor: int) -> None:
        """Returns when the file's content, or the folder's list of names, is on the disk."""
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def make_folder(self, path: Path) -> None:
        path.mkdir()

    def remove_file(self, path: Path) -> None:
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        path.rmdir()


current = Disk()
"""The disk that is written to; it has no state of its own. A test puts another in its place."""


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        current.flush(path, descriptor)
    except OSError as error:
        if not (error.errno == errno.EINVAL and path.is_dir()):  # some network disks cannot flush a folder
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """The OSError itself, where a library written in Rust (safetensors, tokenizers) only writes it as "… (os error 28)"."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if code := re.search(r"\(os error (\d+)\)|code: (\d+)", str(error)):
            number = int(code[1] or code[2])
            raise OSError(number, os.strerror(number)) from error
        raise


def free_space(folder: Path) -> int:
    """Bytes that can still be written where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size(folder: Path) -> int:
    """Bytes of the files in a folder, which may change meanwhile; 0 where there is none."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def require_space(folder: Path, needed: float, what: str) -> None:
    """Raises MachineError, with both numbers, where fewer than `needed` bytes are free; `what` says what needs them."""
    if (free := free_space(folder)) < needed:
        raise MachineError(
            f"the disk is full: {what} {format_bytes(needed)}, {format_bytes(free)} are free. "
            "What was complete before is kept; make room.",
            where=str(folder),
        )


def format_bytes(number: float) -> str:
    """Bytes as a reader says them: "1.6 GB"."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number:.0f} bytes"
