"""One process at a time in a folder: the operating system's lock, and a note of who holds it."""

import contextlib
import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from luthier.errors import MachineError
from luthier.runs.durable import disk_errors, expect_same_folder, pinned, remove, write_atomic
from luthier.runs.events import now


@contextlib.contextmanager
def lock(folder: Path, *, option: str = "--run", what: str = "the run") -> Iterator[None]:
    """Hold a folder's lock while the body runs: no other process writes there, nor does this one once the folder is another.

    `option` is the command line's word for another folder, and `what` is what the folder is.
    """
    holder = folder / ".lock-holder.json"
    with pinned(folder), _system_lock(folder, holder, option, what):
        expect_same_folder(holder)  # the lock could be another one's, put here a moment ago
        write_atomic(holder, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now()}))
        try:
            yield
        except Exception:
            expect_same_folder(holder)  # what went wrong may be no more than that files are missing
            raise
        if holder.exists():
            remove(holder)


@contextlib.contextmanager
def _system_lock(folder: Path, holder: Path, option: str, what: str) -> Iterator[None]:
    """The operating system's lock, which goes with its process."""
    system_lock = FileLock(folder / ".lock")
    try:
        with disk_errors(folder):
            system_lock.acquire(timeout=1)  # whoever only looks whether it is held lets go at once
    except Timeout:
        raise MachineError(_in_use(holder, option, what), where=str(folder)) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        raise MachineError(
            f"this disk cannot lock files, so two processes could spoil {what}; put it on a local disk with {option}.",
            where=str(folder),
        ) from None
    try:
        yield
    finally:
        system_lock.release()


def _in_use(holder: Path, option: str, what: str) -> str:
    """Who works in the folder, as far as the holder's note says."""
    try:
        note = json.loads(holder.read_text(encoding="utf-8"))
        who = f"process {note['pid']} on {note['host']} since {note['since'][:16].replace('T', ' ')} UTC"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return f"{what} is in use by {who}; wait for it, or name another folder with {option}."


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder's lock at this moment, as far as we are allowed to see: else it counts as held."""
    try:
        with open(folder / ".lock", "rb") as file:  # a shared lock: who only looks needs no right to write
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
