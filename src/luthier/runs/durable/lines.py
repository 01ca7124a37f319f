"""Files that grow: JSON Lines, appended to in whole lines and flushed; a crash can cut the last line short."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState
from luthier.runs.durable import disk
from luthier.runs.durable.pinned import disk_errors, expect_same_folder


def append_json_lines(path: Path, lines: list[dict[str, Any]], *, flush: bool = True) -> None:
    """Append whole lines, and flush them to the disk; what a crash cut short before is removed first."""
    text = "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines).encode()
    with disk_errors(path):
        descriptor = disk.current.extend(path)
        try:
            expect_same_folder(path)
            size = whole = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                whole = os.pread(descriptor, size, 0).rfind(b"\n") + 1
                disk.current.truncate(descriptor, whole)
            try:
                _write_all(descriptor, text)
                if flush:
                    disk.current.flush(path, descriptor)
            except OSError:  # what is not surely on the disk counts as not written
                with contextlib.suppress(OSError):
                    disk.current.truncate(descriptor, whole)
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


def repair(path: Path) -> int:
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
            descriptor = disk.current.extend(path)
            try:
                disk.current.truncate(descriptor, whole)
                disk.current.flush(path, descriptor)
            finally:
                os.close(descriptor)
    return len(content) - whole


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[disk.current.write(descriptor, view[: disk.CHUNK]) :]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
