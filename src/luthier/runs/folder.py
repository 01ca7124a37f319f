"""A run folder: the only state there is.

    runs/NAME/
      run.json          state, versions, hashes, the command
      recipe.toml       the resolved recipe, each default with its reason
      events.jsonl      append-only; everything a screen ever shows
      data/ checkpoints/ model/ evaluation/ report.html report.md report.json

A folder is always in one of the states new, running (its lock is held), interrupted, complete, failed. `runs.durable` writes
files so that a crash leaves either the old one or the new one. run.json keeps the SHA-256 of every file that is finished,
and of itself.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from luthier.errors import CorruptedState, Interrupted, MachineError, UserError
from luthier.runs import durable, events
from luthier.runs.durable import append_json_lines, write_atomic
from luthier.runs.events import Event, EventLog, now
from luthier.runs.locking import is_locked, lock

FORMAT = 1  # of a run folder; a newer one is refused
FOLDERS = ("data", "checkpoints", "evaluation")
State = Literal["new", "running", "interrupted", "complete", "failed"]


class Run:
    """A run folder that exists: run.json, its events, the checksums of its files, its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = _read(folder)
        self.log = EventLog(folder / "events.jsonl")
        self.listeners: list[Callable[[Event], None]] = []

    @classmethod
    def create(cls, folder: Path, **fields: object) -> "Run":
        """A new run folder; refuses one that holds other things."""
        if not _unused(folder):
            raise UserError("already exists and is not a run folder; choose another with --run.", where=str(folder))
        for name in FOLDERS:
            durable.make_folders(folder / name)
        with lock(folder):
            if (folder / "run.json").exists():
                raise MachineError(
                    "another process has begun a run here meanwhile; the same command continues it.", where=str(folder)
                )
            record = {"format": FORMAT, "state": "new", "reason": None, "created": now(), **fields}
            append_json_lines(folder / "events.jsonl", [])
            write_atomic(folder / "run.json", _with_checksum(record))  # last: from here on it is a run
        return cls(folder)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> State:
        """The state in run.json; "running" without a held lock counts as interrupted."""
        state = self.metadata["state"]
        assert state in get_args(State), state
        if state == "running" and not self.is_locked:
            return "interrupted"
        return state  # type: ignore[no-any-return]

    @property
    def is_locked(self) -> bool:
        """Whether a process holds the run's lock at this moment, as far as we are allowed to see."""
        return is_locked(self.folder)

    def update(self, **fields: object) -> None:
        """Change fields of run.json."""
        self.metadata.update(fields)
        write_atomic(self.folder / "run.json", _with_checksum(self.metadata))

    def record_checksums(self, files: Iterable[Path]) -> None:
        """Note the SHA-256 of finished files, those of a folder one by one, so that `mismatch` can find a change."""
        named = {path.relative_to(self.folder).as_posix(): durable.digest(path) for path in _files(files)}
        self.update(files={**self.checksums, **named})

    def forget_checksums(self, folder: str) -> None:
        """Forget the SHA-256 of a folder's files, which are about to change."""
        others = {name: digest for name, digest in self.checksums.items() if not name.startswith(f"{folder}/")}
        if others != self.checksums:
            self.update(files=others)

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each finished file, by its path in the folder."""
        return dict(self.metadata.get("files", {}))

    def mismatch(self, name: str) -> str | None:
        """How a finished file differs from what was recorded, in words, or None."""
        wanted = self.checksums[name]
        try:
            found = durable.digest(self.folder / name)
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return None if found == wanted else f"its SHA-256 is {found[:12]}…, when it was written it was {wanted[:12]}…"

    def expect_whole(self, *folders: str) -> None:
        """Raises CorruptedState if a finished file in one of these folders, or of this name, is not as it was written."""
        names = [
            name
            for name in self.checksums
            if name.startswith(tuple(f"{folder}/" for folder in folders)) or name in folders
        ]
        wrong = [f"{name}: {mismatch}" for name in names if (mismatch := self.mismatch(name))]
        if wrong:
            raise CorruptedState(
                f"{'; '.join(wrong)}. Restore it from a copy, or start a new run.", where=str(self.folder)
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock while the body runs: no other writes here, and this one stops if the folder has been replaced."""
        with lock(self.folder):
            self.metadata = _read(self.folder)  # another process may have worked until now
            self._repair()
            yield

    @contextlib.contextmanager
    def working(self, at_end: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Hold the lock while the body runs, then set the state to complete, interrupted or failed, and call `at_end`."""
        with self.lock():
            self.update(state="running", reason=None)
            try:
                yield
            except BaseException as error:
                interrupted = isinstance(error, (KeyboardInterrupt, Interrupted, MachineError))
                try:
                    self.update(
                        state="interrupted" if interrupted else "failed", reason=str(error) or type(error).__name__
                    )
                    at_end()
                except Exception as second:  # what stopped the run is the thing to report
                    self._note(
                        f"the report could not be written at the end of the run: {type(second).__name__}: {second}"
                    )
                raise
            self.update(state="complete", reason=None)
            at_end()

    def _note(self, message: str) -> None:
        """A warning where it can still be written."""
        with contextlib.suppress(UserError, MemoryError):
            self.record("warning", message=message)

    def record(self, kind: str, **fields: object) -> None:
        """Append an event, and emit it; every screen and page is drawn from these."""
        event = events.new(kind, **fields)
        self.log.append(event)
        self._emit(event)

    def emit(self, kind: str, **fields: object) -> None:
        """Pass an event to the listeners without writing it down."""
        self._emit(events.new(kind, **fields))

    def _emit(self, event: Event) -> None:
        for listener in list(self.listeners):
            try:
                listener(event)
            except OSError:  # the terminal is gone; the run is not
                self.listeners.remove(listener)

    def events(self, kind: str | None = None) -> list[Event]:
        """The events so far, or those of one kind."""
        found, _ = self.log.tail()
        return [event for event in found if kind is None or event["kind"] == kind]

    def _repair(self) -> None:
        """Put right what a crash left behind, and record it: half-written files, a line cut short."""
        for sentence in durable.remove_leftovers(self.folder):
            self.record("mended", message=sentence)
        for path in [self.log.path, *sorted((self.folder / "evaluation").glob("*.jsonl"))]:
            name = path.relative_to(self.folder).as_posix()
            if path.exists() and name not in self.checksums and (cut := durable.repair(path)):
                self.record(
                    "mended", message=f"{name} ended in a line that a crash cut short; its {cut} bytes are removed."
                )


def _read(folder: Path) -> dict[str, Any]:
    """A run's run.json; raises where there is none, or none that this version understands."""
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        hint = (
            "`luthier runs` lists the runs here."
            if folder.exists()
            else "There is no such folder; `luthier runs` lists the runs."
        )
        raise UserError(f"not a run folder: it has no run.json. {hint}", where=str(folder)) from None
    except OSError as error:
        raise MachineError(f"cannot be read ({error.strerror}).", where=str(folder / "run.json")) from None
    except ValueError:
        raise CorruptedState(
            "not valid JSON; restore the file or start a new run.", where=str(folder / "run.json")
        ) from None
    if {"format", "sha256"} & record.keys() and record.get("sha256") != _checksum(record):
        raise CorruptedState(
            "its checksum does not match its content; restore the file from a copy, or start a new run.",
            where=str(folder / "run.json"),
        )
    if record.get("format", FORMAT) > FORMAT:
        newer = f"made by Luthier {record.get('luthier')}, which is newer than this one"
        raise UserError(f"{newer}; update Luthier to continue this run.", where=str(folder))
    return record


def _unused(folder: Path) -> bool:
    """Whether the folder is missing or empty, or has only what a crash left of a run that had not begun."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        entry.name in (*FOLDERS, "events.jsonl") or entry.name.startswith(".lock") or entry.name.endswith(".tmp")
        for entry in folder.rglob("*")
    )


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and those in folders."""
    for path in paths:
        yield from sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]


def _checksum(record: dict[str, Any]) -> str:
    """SHA-256 over run.json without its own field "sha256"."""
    rest = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _with_checksum(record: dict[str, Any]) -> str:
    """run.json as text, its own hash in it."""
    record["sha256"] = _checksum(record)
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def find(root: Path) -> tuple[list[Run], list[UserError]]:
    """The runs in a folder, oldest first; and what keeps others from being read, one UserError for each."""
    runs, unreadable = [], []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if os.path.lexists(folder / "run.json"):
            try:
                runs.append(Run(folder))
            except UserError as user_error:
                unreadable.append(user_error)
    return sorted(runs, key=lambda run: str(run.metadata.get("created", ""))), unreadable
