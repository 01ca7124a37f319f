"""Whole files and whole folders: the old or the new, never something between.

They are written beside their place, under a name that begins with a dot and ends in `.tmp`; flushed; renamed; and the folder
that holds the name is flushed. `remove_leftovers` puts right what an interruption left.
"""

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState
from luthier.runs.durable import disk
from luthier.runs.durable.pinned import disk_errors, expect_same_folder

LARGE = 1 << 22  # bytes from which hashing is worth a thread of its own
OLDER = "older"  # in the name of a folder that is put aside until the new one has its place


class _Growing(io.RawIOBase):
    """A new file; what the disk has taken counts in its SHA-256."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")[: disk.CHUNK]
        if len(view) < LARGE:
            taken = disk.current.write(self.descriptor, view)
            self.sha256.update(view[:taken])
            return taken
        ahead = self.sha256.copy()
        thread = threading.Thread(target=ahead.update, args=(view,))  # another core hashes while the system copies
        thread.start()
        try:
            taken = disk.current.write(self.descriptor, view)
        finally:
            thread.join()
        if taken == len(view):
            self.sha256 = ahead
        else:
            self.sha256.update(view[:taken])
        return taken


class NewFile(io.BufferedWriter):
    """A new file to write to; after it is closed, `sha256` is that of its content."""

    def __init__(self, descriptor: int) -> None:
        self._growing = _Growing(descriptor)
        super().__init__(self._growing, 1 << 20)

    @property
    def sha256(self) -> str:
        return self._growing.sha256.hexdigest()


@contextlib.contextmanager
def flushed_file(path: Path) -> Iterator[NewFile]:
    """A new file under its own name, flushed to the disk at the end; for files inside a `whole_folder`."""
    descriptor = disk.current.create(path)
    file = NewFile(descriptor)
    try:
        yield file
        file.flush()
        disk.current.flush(path, descriptor)
    finally:
        with contextlib.suppress(OSError):
            file.close()  # tries once more to write what a full disk refused
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[NewFile]:
    """A file that takes its place, and that of an older one, when all of it is on the disk; or leaves nothing."""
    temporary = temporary_name(path)
    with disk_errors(path):
        try:
            _remove_tree(temporary)
            with flushed_file(temporary) as file:
                expect_same_folder(path)
                yield file
            expect_same_folder(path)
            disk.current.rename(temporary, path)
            disk.sync(path.parent)
        except BaseException:
            _tidy(temporary)
            raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place, and that of an older one, when all of it is on the disk; or leaves nothing.

    Every file in it is flushed, whoever wrote it; those made with `flushed_file` already are.
    """
    temporary, older = temporary_name(path), temporary_name(path, OLDER)
    with disk_errors(path):
        try:
            _remove_tree(temporary)
            disk.current.make_folder(temporary)
            expect_same_folder(path)
            yield temporary
            _sync_tree(temporary)
            expect_same_folder(path)  # other libraries make missing folders, so it may have come to life again
            if os.path.lexists(path):
                _remove_tree(older)
                disk.current.rename(path, older)
            disk.current.rename(temporary, path)
            disk.sync(path.parent)
        except BaseException:
            _tidy(temporary)
            if older.exists() and not path.exists():
                with contextlib.suppress(OSError):
                    os.replace(older, path)
            raise
        _remove_tree(older)


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder to try something in, on the disk that `parent` is on or will be; nothing of it is left."""
    while not parent.is_dir():
        parent = parent.parent
    folder = temporary_name(parent / "scratch", "trial")
    with disk_errors(folder):
        _remove_tree(folder)
        disk.current.make_folder(folder)
        try:
            yield folder
        finally:
            _tidy(folder)


def temporary_folder(owner: object) -> Path:
    """A folder where the system keeps temporary files (TMPDIR); it is removed when nobody needs its owner any more."""
    folder = Path(tempfile.mkdtemp(prefix="luthier-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file so that a crash at any moment leaves either the old content or the new."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def append_bytes(path: Path, content: memoryview, *, size: int) -> None:
    """Make a file of `size` good bytes longer, and flush it; what stands behind them was left by a crash and goes."""
    with disk_errors(path):
        descriptor = disk.current.extend(path)
        try:
            expect_same_folder(path)
            found = os.fstat(descriptor).st_size
            if found < size:
                raise CorruptedState(
                    f"it has {found:,} bytes, and {size:,} were written. Begin again.", where=str(path)
                )
            if found > size:
                disk.current.truncate(descriptor, size)
            while content:
                content = content[disk.current.write(descriptor, content[: disk.CHUNK]) :]
            disk.current.flush(path, descriptor)
        finally:
            os.close(descriptor)


def make_folders(path: Path) -> None:
    """The folder, with those above it that are missing; each is on the disk."""
    with disk_errors(path):
        for folder in reversed([one for one in (path, *path.parents) if not one.exists()]):
            with contextlib.suppress(FileExistsError):
                disk.current.make_folder(folder)
            disk.sync(folder.parent)


def move(source: Path, target: Path) -> None:
    """Give a whole file, flushed first, its place on the same disk; the name is on the disk on return."""
    with disk_errors(target):
        disk.sync(source)
        disk.current.rename(source, target)
        disk.sync(target.parent)


def remove(path: Path) -> None:
    """Remove a file or folder so that a crash half-way leaves no half under its name; links are not followed."""
    with disk_errors(path):
        hidden = temporary_name(path, "gone")
        _remove_tree(hidden)
        disk.current.rename(path, hidden)
        disk.sync(path.parent)
        _remove_tree(hidden)


def remove_leftovers(folder: Path) -> list[str]:
    """Put right what interrupted writes left in a folder and in those directly inside; what was done, in sentences.

    A folder that was put aside for a new one, which never came, is put back; all else is removed.
    """
    left = sorted([*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")])
    done = []
    with disk_errors(folder):
        for path in left:
            name = path.relative_to(folder)
            target = path.with_name(path.name.removeprefix(".").rsplit(".", 3)[0])
            if path.match(f".*.{OLDER}.tmp") and not os.path.lexists(target):
                disk.current.rename(path, target)
                disk.sync(path.parent)
                done.append(f"{target.relative_to(folder)}, put aside by an interrupted write, is put back.")
            else:
                _remove_tree(path)
                done.append(f"{name}, left by an interrupted write, is removed.")
    return done


def digest(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def temporary_name(path: Path, kind: str = "new") -> Path:
    """Where something is written, or put away, before it has or after it had its name; `remove_leftovers` knows such names."""
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}.tmp")


def _sync_tree(folder: Path) -> None:
    """Flush every file and folder, the inner ones first."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in sorted(files):
            disk.sync(Path(parent) / name)
        disk.sync(Path(parent))


def _remove_tree(path: Path) -> None:
    """Remove a file, a link or a whole folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            _remove_tree(entry)
        disk.current.remove_folder(path)
    elif path.is_symlink() or path.exists():
        disk.current.remove_file(path)


def _tidy(temporary: Path) -> None:
    """Try to leave nothing behind; the error that led here is the one to report."""
    with contextlib.suppress(OSError):
        _remove_tree(temporary)
