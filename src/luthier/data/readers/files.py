"""From a path to rows: finds the files, and reads each with the reader for its kind."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from luthier.data.readers import archives, folders, split_names
from luthier.data.readers.sources import Source, trouble
from luthier.data.readers.tables import READERS
from luthier.data.readers.values import Record, shown
from luthier.errors import UserError, nearest


@dataclass(frozen=True)
class Files:
    """What a path leads to: the files to read, in order, and the names in the folder that are not data.

    `held_out` are files that are dev or test by their names, and `sentence` says so; they are no part of the rows.
    """

    name: str
    sources: list[Source]
    ignored: list[str] = field(default_factory=list)
    held_out: dict[str, "Files"] = field(default_factory=dict)
    sentence: str | None = None

    def rows(self) -> Iterator[Record]:
        """The rows of one file after the other, streaming where the format allows (not .json, .yaml and texts)."""
        for source in self.sources:
            yield from READERS[source.kind](source)

    @property
    def remarks(self) -> list[str]:
        """What is to be said of how the files were read; complete when the rows have been."""
        said = [self.sentence] if self.sentence else []
        return said + [remark for source in self.sources for remark in source.remarks]

    @property
    def paths(self) -> list[str]:
        """The files on the disk, each once, without those held out."""
        return list(dict.fromkeys(str(source.path) for source in self.sources))


def find(path: Path) -> Files:
    """The file, or the files of a folder or an archive by name; a UserError where there is nothing to read.

    Behind a #, a path names a part of its file (a table, a sheet, the list in a JSON object), or files of its folder by a word.
    """
    with trouble(str(path)):
        whole, part = path, None
        try:
            is_folder = _is_folder(path)
        except (FileNotFoundError, NotADirectoryError):
            before, _, part = str(path).rpartition("#")
            if not before or not os.path.exists(before):
                raise _missing(path) from None
            whole = Path(before)
            is_folder = _is_folder(whole)
        if is_folder:
            return _divided(folders.search(folders.on_disk(whole)), str(path), part)
        if archives.is_archive(whole):
            return _divided(folders.search(folders.in_archive(whole, str(whole))), str(path), part)
        return Files(str(path), [Source.of(whole, str(path), part=part)])


def _divided(found: folders.Found, where: str, word: str | None) -> Files:
    """The files by their splits; of those with a `word` in their names, if one is given."""
    sources = [(name, source) for name, source in found.sources if word is None or word in name]
    if not sources:
        names = shown([name for name, _ in found.sources])
        raise UserError(f'no file with "{word}" in its name. There are {names}.', where=where)
    parts = split_names.divide(sources, where)
    held_out = {split: Files(sources[0].name, sources) for split, sources in parts.held_out.items()}
    ignored = [*found.ignored, *(f"{source.name} (its name tells no split)" for source in parts.left)]
    return Files(where, parts.train, ignored, held_out, parts.sentence)


def read_rows(path: Path) -> Iterator[Record]:
    """The rows of a file, or of a folder's files by name; those held out by their names are not among them."""
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
