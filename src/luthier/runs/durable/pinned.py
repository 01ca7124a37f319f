"""Folders that must stay the same while work is going on in them, and what a disk's errors mean to a user.

A pinned folder is kept open, so that no other can pass for it: once it is removed, moved, or another stands in its place,
every write below it is refused, from whatever thread.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from luthier.errors import FolderGone, MachineError
from luthier.runs.durable.disk import REASONS


class PinnedFolders:
    """Folders by their whole paths, each with a descriptor, which keeps the folder's number from being given to another."""

    def __init__(self) -> None:
        self._folders: list[tuple[Path, int]] = []
        self._lock = threading.RLock()  # a signal may ask again in the same thread

    def add(self, folder: Path) -> int:
        """Pin a folder; gives its descriptor, by which it is released."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with self._lock:
            self._folders.append((folder, descriptor))
        return descriptor

    def release(self, folder: Path, descriptor: int) -> None:
        with self._lock:
            self._folders.remove((folder, descriptor))
            os.close(descriptor)

    def expect_same(self, path: Path) -> None:
        """Raises FolderGone where a pinned folder above `path` is gone, or another stands in its place."""
        with self._lock:
            for folder, descriptor in self._folders:
                if path.is_relative_to(folder) and (change := _change(folder, descriptor)):
                    raise FolderGone(
                        f"{change}. Nothing more is written here. If it was moved, go on with it where it is now.",
                        where=str(folder),
                    )


_PINNED = PinnedFolders()


@contextlib.contextmanager
def pinned(folder: Path) -> Iterator[None]:
    """While the body runs, whatever would be written below `folder` is refused once it is not the same folder any more."""
    path = folder.absolute()
    with disk_errors(folder):
        descriptor = _PINNED.add(path)
    try:
        yield
    finally:
        _PINNED.release(path, descriptor)


def expect_same_folder(path: Path) -> None:
    """Raises FolderGone where a pinned folder above `path` is gone, or another stands in its place."""
    _PINNED.expect_same(path.absolute())


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


def _change(folder: Path, descriptor: int) -> str | None:
    """What has become of a pinned folder, in words; None where it is the same."""
    try:
        if os.path.samestat(os.stat(folder), os.fstat(descriptor)):
            return None
    except OSError:
        return "the folder is gone: it has been removed or moved"
    return "another folder stands in its place: the one that was worked in has been removed or moved"
