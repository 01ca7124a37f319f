"""Whether a run folder is still what Luthier wrote: every checkpoint, the model, the prepared data, answers and records.

Reads and changes nothing. What a crash may leave (a last line cut short, a file half written under a hidden name) is no
fault: it is noted, and put right when the run goes on.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luthier.errors import MachineError, UserError
from luthier.runs import Run, durable, manifest


@dataclass(frozen=True)
class Finding:
    """One file or folder: what is wrong with it, or what else is worth knowing; both None if all is well."""

    name: str
    bytes: int = 0
    problem: str | None = None
    note: str | None = None


def verify(current: Run) -> Iterator[Finding]:
    """Every part of the run in turn; hashing takes about a second per gigabyte."""
    if current.is_locked:
        raise MachineError("a process is at work in it; verify it when that has ended.", where=str(current.folder))
    yield Finding("run.json", _size(current.folder / "run.json"))  # its own hash is checked whenever it is read
    for name in sorted(current.checksums):
        yield Finding(name, _size(current.folder / name), current.mismatch(name))
    yield from _checkpoints(current.folder / "checkpoints")
    yield from _growing(current)
    yield from _quotes(current.folder / "data" / "pairs.jsonl")
    yield from _without_checksum(current)
    yield from _outside(current)


def _checkpoints(root: Path) -> Iterator[Finding]:
    for folder in reversed(manifest.folders(root)):
        problem = None
        try:
            manifest.verify(folder)
        except UserError as error:
            problem = str(error)
        yield Finding(f"checkpoints/{folder.name}", sum(_size(file) for file in folder.iterdir()), problem)


def _growing(current: Run) -> Iterator[Finding]:
    """Files of lines that may still grow: each line is whole, save perhaps the last."""
    for file in [current.folder / "events.jsonl", *sorted((current.folder / "evaluation").glob("*.jsonl"))]:
        name = file.relative_to(current.folder).as_posix()
        if name in current.checksums:
            continue
        if not file.exists():
            yield Finding(name, 0, "is missing")
            continue
        bad, ends = _lines(file)
        if bad and not ends:
            yield Finding(name, _size(file), f"line {bad} is not valid JSON")
        else:
            yield Finding(
                name, _size(file), note="the last line was cut short; repaired when the run continues" if bad else None
            )


def _lines(file: Path) -> tuple[int, bool]:
    """The first line, from 1, that is not whole (0: none), and whether only bad ones follow it."""
    bad, good_after = 0, False
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line:
            break
        try:
            json.loads(line)
            whole = number < len(lines)
        except ValueError:
            whole = False
        bad, good_after = (bad or number, good_after) if not whole else (bad, good_after or bool(bad))
    return bad, not good_after


def _quotes(file: Path) -> Iterator[Finding]:
    """Of a run made from documents: each answer's quote stands in its passage, at the offsets that were stored."""
    if not file.exists():
        return
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    wrong = [row["row"] for row in rows if row["passage"][int(row["start"]) : int(row["end"])] != row["quote"]]
    problem = (
        f"{len(wrong)} of {len(rows)} quotes do not stand in their passages: {', '.join(wrong[:3])}" if wrong else None
    )
    yield Finding("quotes in data/pairs.jsonl", 0, problem, f"{len(rows)} quotes stand in their passages")


def _without_checksum(current: Run) -> Iterator[Finding]:
    """Files without a checksum, because the run has not come so far; JSON must at least be JSON."""
    for file in sorted(current.folder.rglob("*")):
        name = file.relative_to(current.folder).as_posix()
        if file.name.endswith(".tmp"):
            yield Finding(name, note="left by an interrupted write; removed when the run continues")
        elif any(part.endswith(".tmp") for part in file.parts) or not file.is_file() or name in current.checksums:
            continue
        elif name.startswith(("evaluation/", "review/")) and file.suffix == ".json":
            yield Finding(name, _size(file), None if _is_json(file) else "not valid JSON")
        elif name.startswith(("model/", "data/")):
            yield Finding(name, _size(file), note="its hash is not recorded yet")


def _outside(current: Run) -> Iterator[Finding]:
    """The base model and the data files, which are not the run's own."""
    base = current.metadata.get("base")
    if base:
        needed = current.state != "complete" or (current.folder / "model" / "adapter_config.json").exists()
        changed = [
            name
            for name, wanted in base["files"].items()
            if (found := _digest(Path(base["folder"]) / name)) and found != wanted
        ]
        change = f"changed since the run began: {', '.join(changed)}" if changed else None
        gone = None if Path(base["folder"]).is_dir() else f"{base['folder']} is not on this machine"
        size = sum(_size(Path(base["folder"]) / name) for name in base["files"])
        yield Finding(
            f"base model {base['name']}", size, change if needed else None, gone or (None if needed else change)
        )
    for name, source in current.metadata.get("sources", {}).items():
        found = _digest(Path(name))
        change = "is not here" if found is None else "has changed since the run began"
        yield Finding(
            f"data file {name}",
            _size(Path(name)),
            note=None if found == source["sha256"] else f"{change}; the run has its own copy",
        )


def _digest(file: Path) -> str | None:
    try:
        return durable.digest(file)
    except OSError:
        return None


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True
