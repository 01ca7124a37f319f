"""A run folder: the only state there is.

    runs/NAME/
      run.json          state, versions, hashes, the command
      recipe.toml       the resolved recipe, each default with its reason
      events.jsonl      append-only; everything a screen ever shows
      data/ checkpoints/ model/ evaluation/ report.html report.md report.json

A folder is always in one of the states new, running (its lock is held), interrupted, complete, failed. Whole files are
written beside their place, flushed to the disk and renamed, so that a crash leaves the old file or the new one.
"""

import contextlib
import errno
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from luthier.errors import CorruptedState, EnvironmentMistake, Mistake

State = Literal["new", "running", "interrupted", "complete", "failed"]


def now() -> str:
    """The time as events tell it: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk says while `path` is written into a message that a user can act on."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EROFS: "the disk is read-only",
            errno.EACCES: "writing is not allowed",
            errno.EIO: "the disk reports an input/output error",
            errno.ENOENT: "the folder is gone",
            errno.ENOTDIR: "a part of the path is a file, not a folder",
        }
        reason = reasons.get(error.errno or 0)
        if reason is None:
            raise
        raise EnvironmentMistake(
            f"cannot write: {reason}. What was complete before is kept.", where=str(path)
        ) from error


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file so that a crash at any moment leaves either the old content or the new."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of one of our own append-only files; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    whole = [line for line in lines[:-1] if line.strip()]
    try:
        return [json.loads(line) for line in whole]
    except ValueError as error:
        raise CorruptedState(
            f"a line is not valid JSON ({error}); restore the file from a copy.", where=str(path)
        ) from None


def append_json_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Append whole lines and flush them to the disk; what a crash cut short before is removed first."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    with disk_errors(path), path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size:
            file.seek(max(0, size - 1))
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


class Run:
    """A run folder that exists: its record, its events, its places."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.record_file: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            hint = (
                "`luthier runs` lists the runs here."
                if folder.exists()
                else "There is no such folder; `luthier runs` lists the runs."
            )
            raise Mistake(f"not a run folder: it has no run.json. {hint}", where=str(folder)) from None
        except (ValueError, UnicodeDecodeError):
            raise CorruptedState(
                "not valid JSON; restore the file or start a new run.", where=str(folder / "run.json")
            ) from None
        self.listeners: list[Callable[[dict[str, Any]], None]] = []

    @classmethod
    def create(cls, folder: Path, **fields: object) -> "Run":
        """A new run folder; refuses one that holds other things."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Mistake("already exists and is not a run folder; choose another with --run.", where=str(folder))
        with disk_errors(folder):
            for name in (".", "data", "checkpoints", "evaluation"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / "events.jsonl").touch()
        record = {"state": "new", "reason": None, "created": now(), **fields}
        write_atomic(folder / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return cls(folder)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> State:
        """What run.json says, save that a `running` whose lock nobody holds was interrupted."""
        state = self.record_file["state"]
        assert state in get_args(State), state
        if state == "running" and not self.locked:
            return "interrupted"
        return state  # type: ignore[no-any-return]

    @property
    def locked(self) -> bool:
        """Whether a process holds the run's lock at this moment."""
        lock = FileLock(self.folder / ".lock")
        if lock.is_locked:
            return True
        try:
            with lock.acquire(blocking=False):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def update(self, **fields: object) -> None:
        """Change fields of run.json."""
        self.record_file.update(fields)
        write_atomic(self.folder / "run.json", json.dumps(self.record_file, indent=2, ensure_ascii=False) + "\n")

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Hold the lock while the body runs, and leave the state that the body's end means."""
        lock = FileLock(self.folder / ".lock")
        holder = self.folder / ".lock-holder.json"
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise EnvironmentMistake(_in_use(holder), where=str(self.folder)) from None
        with lock:
            write_atomic(holder, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now()}))
            self.update(state="running", reason=None)
            try:
                yield
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt) or getattr(error, "exit_code", 0) in (3, 4)
                with contextlib.suppress(EnvironmentMistake):
                    self.update(
                        state="interrupted" if interrupted else "failed", reason=str(error) or type(error).__name__
                    )
                raise
            self.update(state="complete", reason=None)
            holder.unlink(missing_ok=True)

    def record(self, kind: str, **fields: object) -> None:
        """Append an event, and tell it to the listeners; every screen and page is drawn from these."""
        event = {"time": now(), "kind": kind, **fields}
        path = self.folder / "events.jsonl"
        with disk_errors(path), path.open("ab") as file:
            file.write((json.dumps(event, ensure_ascii=False, default=str) + "\n").encode())
        for listener in self.listeners:
            listener(event)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The events so far, or those of one kind; a line torn by a crash is passed over."""
        events = []
        for line in (self.folder / "events.jsonl").read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if kind is None or event["kind"] == kind:
                    events.append(event)
        return events


def _in_use(holder: Path) -> str:
    """Who works on the run, as far as the holder's note tells."""
    try:
        note = json.loads(holder.read_text(encoding="utf-8"))
        who = f"process {note['pid']} on {note['host']} since {note['since'][:16].replace('T', ' ')} UTC"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return f"the run is in use by {who}; wait for it, or name another folder with --run."


def find(root: Path) -> list[Run]:
    """The runs in a folder, oldest first."""
    if not root.is_dir():
        return []
    runs = [Run(folder) for folder in root.iterdir() if (folder / "run.json").is_file()]
    return sorted(runs, key=lambda run: run.record_file.get("created", ""))


def free_space(folder: Path) -> int:
    """Bytes that can still be written where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
