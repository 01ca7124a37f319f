"""Folders of data as they lie on a disk or in an archive, and what their names say: splits, shards, notes beside rows.

Inner folders are searched only where they plainly are the data: named as splits, `data`, the only one, or written by
Hugging Face's `save_to_disk`.
"""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from luthier.data.readers import archives
from luthier.data.readers.kinds import BESIDE_ROWS, KNOWN, METADATA, NotData
from luthier.data.readers.sources import Source
from luthier.data.readers.split_names import exact_split
from luthier.data.readers.values import decode_only, shown
from luthier.errors import UserError

DEEPEST = 4
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""What `save_to_disk` of Hugging Face's datasets writes beside the rows of a dataset, and of a DatasetDict."""


@dataclass(frozen=True)
class Folder:
    """A folder's names, hidden ones left out; `source` opens one of its files, `inner` one of its folders."""

    name: str
    files: list[str]
    folders: list[str]
    source: Callable[[str], Source]
    inner: Callable[[str], "Folder"]


@dataclass
class Found:
    """The files of a folder by their names in it, and what is not read."""

    sources: list[tuple[str, Source]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def on_disk(path: Path) -> Folder:
    files: list[str] = []
    folders: list[str] = []
    for name in sorted(name for name in os.listdir(path) if not name.startswith(".")):
        try:
            (folders if stat.S_ISDIR(os.stat(path / name).st_mode) else files).append(name)
        except FileNotFoundError:  # a link to nowhere
            files.append(name)
    return Folder(
        str(path),
        files,
        folders,
        lambda name: Source.of(path / name, str(path / name)),
        lambda name: on_disk(path / name),
    )


def in_archive(path: Path, name: str) -> Folder:
    """The members of an archive as a folder."""
    members = archives.members(path, name)

    def folder(inside: str) -> Folder:
        here = [member[len(inside) :] for member in members if member.startswith(inside)]
        return Folder(
            f"{name}/{inside}".rstrip("/"),
            [member for member in here if "/" not in member.strip("/")],
            list(dict.fromkeys(member.split("/", 1)[0] for member in here if "/" in member.strip("/"))),
            lambda file: Source.of(path, f"{name}/{inside}{file}", member=inside + file),
            lambda inner: folder(f"{inside}{inner}/"),
        )

    return folder("")


def search(folder: Folder, depth: int = 0) -> Found:
    """The data files of a folder; a UserError where there is none."""
    if SAVED_SPLITS in folder.files:
        return _inside(folder, [name for name in folder.folders if SAVED in folder.inner(name).files], depth)
    if SAVED in folder.files:
        return _saved(folder)
    found = Found()
    found.ignored += [f"{folder.name}/{name}" for name in folder.files if name in METADATA]
    for name in [name for name in folder.files if name not in METADATA]:
        try:
            found.sources.append((name, folder.source(name)))
        except (NotData, FileNotFoundError):
            found.ignored.append(f"{folder.name}/{name}")
    found = _rows_first(found)
    if any(source.kind not in BESIDE_ROWS for _, source in found.sources) or not folder.folders:
        found.ignored += [f"{folder.name}/{name}" for name in folder.folders]
    else:
        found = _deeper(folder, found, depth)
    if not found.sources:
        raise _nothing(folder)
    found.ignored.sort()
    return found


def _deeper(folder: Folder, found: Found, depth: int) -> Found:
    """The inner folders that are the data, where the folder itself has no rows."""
    splits = [name for name in folder.folders if exact_split(name)]
    inner = splits or [name for name in folder.folders if name == "data"] or folder.folders
    if depth < DEEPEST and (splits or len(inner) == 1):
        try:
            below = _inside(folder, inner, depth)
        except UserError:
            if not found.sources:
                raise
            below = None
        if below and (not found.sources or any(source.kind not in BESIDE_ROWS for _, source in below.sources)):
            notes = [source.name for _, source in found.sources]
            below.ignored += [
                *notes,
                *found.ignored,
                *(f"{folder.name}/{name}" for name in folder.folders if name not in inner),
            ]
            return below
    found.ignored += [f"{folder.name}/{name}" for name in folder.folders]
    return found


def _inside(folder: Folder, names: Sequence[str], depth: int) -> Found:
    """What the inner folders hold, under their names."""
    found = Found()
    for name in names:
        below = search(folder.inner(name), depth + 1)
        found.sources += [(f"{name}/{file}", source) for file, source in below.sources]
        found.ignored += below.ignored
    return found


def _rows_first(found: Found) -> Found:
    """The files of rows alone, where there are any: a text or a YAML file beside them is a note or a setting."""
    rows = [(name, source) for name, source in found.sources if source.kind not in BESIDE_ROWS]
    if not rows:
        return found
    return Found(rows, [*found.ignored, *(source.name for name, source in found.sources if (name, source) not in rows)])


def _saved(folder: Folder) -> Found:
    """The files that `save_to_disk` lists, in its order."""
    state = decode_only(folder.source(SAVED).text())
    listed = state.get("_data_files") if isinstance(state, dict) else None
    names = (
        [str(entry.get("filename")) for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    )
    if not names or any(name not in folder.files for name in names):
        raise UserError(
            f"{SAVED} names {shown(names) or 'no file'}, and the folder has {shown(folder.files)}. Copy the folder again.",
            where=folder.name,
        )
    return Found([(name, folder.source(name)) for name in names])


def _nothing(folder: Folder) -> UserError:
    inside = sorted([*folder.files, *folder.folders])
    if not inside:
        return UserError(f"the folder is empty. Expected files: {KNOWN}.", where=folder.name)
    return UserError(
        f"no file to read in this folder, found {shown(inside)}. Expected {KNOWN}; of inner folders only those are searched "
        "that are named as splits, data, or alone.",
        where=folder.name,
    )
