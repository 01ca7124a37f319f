"""From a path to rows: finds the files, and reads each with the reader for its kind."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luthier.data.readers.kinds import BESIDE_ROWS, KNOWN, METADATA, NotData
from luthier.data.readers.sources import Source, trouble
from luthier.data.readers.tables import READERS, columns
from luthier.data.readers.values import Record, shown
from luthier.errors import UserError, nearest


@dataclass(frozen=True)
class Files:
    """What a path leads to: the files to read, in order, and the names in the folder that are not data."""

    sources: list[Source]
    ignored: list[str]

    def rows(self) -> Iterator[Record]:
        """The rows of one file after the other, streaming where the format allows (not .json, .yaml and texts)."""
        for source in self.sources:
            yield from READERS[source.kind](source)

    def columns(self) -> list[str]:
        """The names of all columns that any row has, in the order in which they appear; no row is kept in memory.

        Tables say it in their heads; JSON Lines are read once more. What cannot be read is told when the rows are read.
        """
        return list(dict.fromkeys(name for source in self.sources for name in columns(source)))

    @property
    def remarks(self) -> list[str]:
        """What is to be said of how the files were read; complete when the rows have been."""
        return [remark for source in self.sources for remark in source.remarks]


def find(path: Path) -> Files:
    """The file, or the folder's files by name, hidden ones left out; a UserError where there is nothing to read.

    Behind a #, a path names a part of its file: the list in a JSON object, for example.
    """
    with trouble(str(path)):
        try:
            is_folder = _is_folder(path)
        except (FileNotFoundError, NotADirectoryError):
            whole, _, part = str(path).rpartition("#")
            if not whole or not os.path.isfile(whole):
                raise _missing(path) from None
            return Files([Source.of(Path(whole), str(path), part=part)], [])
        if not is_folder:
            return Files([Source.of(path, str(path))], [])
        inside = sorted(name for name in os.listdir(path) if not name.startswith("."))
        sources, ignored = [], []
        for name in inside:
            try:
                source = None if _is_folder(path / name) else Source.of(path / name, str(path / name))
            except (NotData, FileNotFoundError):
                source = None
            sources += [source] if source else []
            ignored += [] if source else [str(path / name)]
    if not inside:
        raise UserError(f"the folder is empty. Expected files: {KNOWN}.", where=str(path))
    if not sources:
        raise UserError(
            f"no file to read in this folder, found {shown(inside)}. Expected {KNOWN}; inner folders are not searched.",
            where=str(path),
        )
    return _rows_first(sources, ignored)


def _rows_first(sources: list[Source], ignored: list[str]) -> Files:
    """The files of rows alone, where there are any: a text or a YAML file beside them is a note or a setting."""
    rows = [source for source in sources if source.kind not in BESIDE_ROWS and Path(source.name).name not in METADATA]
    if not rows:
        return Files(sources, ignored)
    return Files(rows, sorted([*ignored, *(source.name for source in sources if source not in rows)]))


def read_rows(path: Path) -> Iterator[Record]:
    """The rows of a file, or of a folder's files by name."""
    return find(path).rows()


def _is_folder(path: Path) -> bool:
    """Unlike Path.is_dir, raises where the path is missing or closed to us."""
    return stat.S_ISDIR(os.stat(path).st_mode)


def _missing(path: Path) -> UserError:
    """The message for a path that leads nowhere, with the name in its folder that was probably meant."""
    try:
        names = sorted(name for name in os.listdir(path.parent) if not name.startswith("."))
    except PermissionError:
        names = []
    except OSError:
        return UserError(f'no such file, nor is there a folder "{path.parent}". Check the path.', where=str(path))
    guess = nearest(path.name, names)
    if guess:
        return UserError(f'no such file or folder, did you mean "{path.parent / guess}"?', where=str(path))
    found = f" There are {shown(names)}." if names else ""
    return UserError(f'no such file or folder in "{path.parent}".{found} Check the path.', where=str(path))
