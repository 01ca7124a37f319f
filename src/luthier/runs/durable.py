"""Writing so that a crash, a power cut or a full disk leaves the old or the new, never something between.

Everything in a run folder is written through here, and every call that changes a disk is a method of `Disk`. A test that puts
another disk in place of `disk` can let the Nth write, flush or rename fail, or end the process there, for every N.

Whole files and folders are written beside their place, under a name that begins with a dot and ends in `.tmp`; flushed;
renamed; and the folder that holds the name is flushed. Files that grow are appended to in whole lines and flushed; a crash can
cut the last line short, and `mend` takes such a piece away.

A folder that is `held` is kept open, so that no other can pass for it: once it is removed, moved, or another stands in its
place, every write below it is refused.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState, FolderGone, MachineError

CHUNK = 1 << 24  # bytes handed to the system at once
LARGE = 1 << 22  # bytes from which hashing is worth a thread of its own
OLDER = "older"  # in the name of a folder that is put aside until the new one has its place
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


disk = Disk()
_held: list[
    tuple[Path, int]
] = []  # a folder and a descriptor of it, which keeps its number from being given to another
_holding = threading.RLock()  # while `_held` is read or changed; a signal may ask again in the same thread


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """While the body runs, whatever would be written below `folder` is refused once it is not the same folder any more."""
    place = folder.absolute()
    with disk_errors(folder):
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _holding:
        _held.append((place, descriptor))
    try:
        yield
    finally:
        with _holding:
            _held.remove((place, descriptor))
            os.close(descriptor)


def expect_same_folder(path: Path) -> None:
    """Raises FolderGone where a held folder above `path` is gone, or another stands in its place."""
    place = path.absolute()
    with _holding:
        for folder, descriptor in _held:
            if place.is_relative_to(folder) and (told := _other(folder, descriptor)):
                raise FolderGone(
                    f"{told}. Nothing more is written here. If it was moved, go on with it where it is now.",
                    where=str(folder),
                )


def _other(folder: Path, descriptor: int) -> str | None:
    """What has become of a folder that is held, in words; None where it is the same."""
    try:
        if os.path.samestat(os.stat(folder), os.fstat(descriptor)):
            return None
    except OSError:
        return "the folder is gone: it has been removed or moved"
    return "another folder stands in its place: the one that was worked in has been removed or moved"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk says while `path` is written into a message that a user can act on."""
    expect_same_folder(path)
    try:
        yield
    except OSError as error:
        expect_same_folder(path)
        reason = REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise MachineError(f"cannot write: {reason}. What was complete before is kept.", where=str(path)) from error


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """The OSError that was, where a library written in Rust (safetensors, tokenizers) tells it as "… (os error 28)"."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if code := re.search(r"\(os error (\d+)\)|code: (\d+)", str(error)):
            number = int(code[1] or code[2])
            raise OSError(number, os.strerror(number)) from error
        raise


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        disk.flush(path, descriptor)
    except OSError as error:
        if not (error.errno == errno.EINVAL and path.is_dir()):  # some network disks cannot flush a folder
            raise
    finally:
        os.close(descriptor)


class _Growing(io.RawIOBase):
    """A new file; what the disk has taken counts in its SHA-256."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")[:CHUNK]
        if len(view) < LARGE:
            taken = disk.write(self.descriptor, view)
            self.sha256.update(view[:taken])
            return taken
        ahead = self.sha256.copy()
        thread = threading.Thread(target=ahead.update, args=(view,))  # another core hashes while the system copies
        thread.start()
        try:
            taken = disk.write(self.descriptor, view)
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
    descriptor = disk.create(path)
    file = NewFile(descriptor)
    try:
        yield file
        file.flush()
        disk.flush(path, descriptor)
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
            disk.rename(temporary, path)
            sync(path.parent)
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
            disk.make_folder(temporary)
            expect_same_folder(path)
            yield temporary
            _sync_tree(temporary)
            expect_same_folder(path)  # other libraries make missing folders, so it may have come to life again
            if os.path.lexists(path):
                _remove_tree(older)
                disk.rename(path, older)
            disk.rename(temporary, path)
            sync(path.parent)
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
    folder = temporary_name(parent / "scratch", "tried")
    with disk_errors(folder):
        _remove_tree(folder)
        disk.make_folder(folder)
        try:
            yield folder
        finally:
            _tidy(folder)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file so that a crash at any moment leaves either the old content or the new."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def append_json_lines(path: Path, lines: list[dict[str, Any]], *, flush: bool = True) -> None:
    """Append whole lines, and flush them to the disk; what a crash cut short before is removed first."""
    text = "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines).encode()
    with disk_errors(path):
        descriptor = disk.extend(path)
        try:
            expect_same_folder(path)
            size = whole = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                whole = os.pread(descriptor, size, 0).rfind(b"\n") + 1
                disk.truncate(descriptor, whole)
            try:
                _write_all(descriptor, text)
                if flush:
                    disk.flush(path, descriptor)
            except OSError:  # what is not surely on the disk counts as not written
                with contextlib.suppress(OSError):
                    disk.truncate(descriptor, whole)
                raise
        finally:
            os.close(descriptor)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of one of our own append-only files; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    try:
        return [json.loads(line) for line in lines[:-1] if line.strip()]
    except ValueError as error:
        raise CorruptedState(
            f"a line is not valid JSON ({error}); restore the file from a copy.", where=str(path)
        ) from None


def mend(path: Path) -> int:
    """Cut off what a crash left at the end of an append-only file and is no whole line of JSON; how many bytes that was."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    while whole:
        start = content.rfind(b"\n", 0, whole - 1) + 1
        if _is_json(content[start:whole]):
            break
        whole = start
    if whole < len(content):
        with disk_errors(path):
            descriptor = disk.extend(path)
            try:
                disk.truncate(descriptor, whole)
                disk.flush(path, descriptor)
            finally:
                os.close(descriptor)
    return len(content) - whole


def make_folders(path: Path) -> None:
    """The folder, with those above it that are missing; each is on the disk."""
    with disk_errors(path):
        for folder in reversed([one for one in (path, *path.parents) if not one.exists()]):
            with contextlib.suppress(FileExistsError):
                disk.make_folder(folder)
            sync(folder.parent)


def remove(path: Path) -> None:
    """Remove a file or folder so that a crash half-way leaves no half under its name; links are not followed."""
    with disk_errors(path):
        hidden = temporary_name(path, "gone")
        _remove_tree(hidden)
        disk.rename(path, hidden)
        sync(path.parent)
        _remove_tree(hidden)


def sweep(folder: Path) -> list[str]:
    """Put right what interrupted writes left in a folder and in those directly inside; what was done, in sentences.

    A folder that was put aside for a new one, which never came, is put back; all else is removed.
    """
    left = sorted([*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")])
    told = []
    with disk_errors(folder):
        for path in left:
            name = path.relative_to(folder)
            place = path.with_name(path.name.removeprefix(".").rsplit(".", 3)[0])
            if path.match(f".*.{OLDER}.tmp") and not os.path.lexists(place):
                disk.rename(path, place)
                sync(path.parent)
                told.append(f"{place.relative_to(folder)}, put aside by an interrupted write, is put back.")
            else:
                _remove_tree(path)
                told.append(f"{name}, left by an interrupted write, is removed.")
    return told


def digest(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def free_space(folder: Path) -> int:
    """Bytes that can still be written where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(folder: Path, needed: float, what: str) -> None:
    """Raises MachineError, with both numbers, where fewer than `needed` bytes are free; `what` says what needs them."""
    if (free := free_space(folder)) < needed:
        raise MachineError(
            f"the disk is full: {what} {size(needed)}, {size(free)} are free. What was complete before is kept; make room.",
            where=str(folder),
        )


def size(number: float) -> str:
    """Bytes as a reader says them: "1.6 GB"."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number:.0f} bytes"


def temporary_name(path: Path, kind: str = "new") -> Path:
    """Where something is written, or put away, before it has or after it had its name; `sweep` knows such names."""
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}.tmp")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[disk.write(descriptor, view[:CHUNK]) :]


def _sync_tree(folder: Path) -> None:
    """Flush every file and folder, the inner ones first."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in sorted(files):
            sync(Path(parent) / name)
        sync(Path(parent))


def _remove_tree(path: Path) -> None:
    """Remove what is there, if anything."""
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            _remove_tree(entry)
        disk.remove_folder(path)
    elif path.is_symlink() or path.exists():
        disk.remove_file(path)


def _tidy(temporary: Path) -> None:
    """Try to leave nothing behind; the error that led here is the one to tell."""
    with contextlib.suppress(OSError):
        _remove_tree(temporary)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
