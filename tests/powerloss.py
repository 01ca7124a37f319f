"""What may be on a disk after the power is cut: a model of a file system that keeps no more than it has promised.

Promised is the content of a file at its last flush, and the names in a folder at the folder's last flush. Of what came later,
all, nothing, or of a file's bytes the first half, may have reached the disk. Compare Pillai et al. 2014, "All File Systems Are
Not Created Equal".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.runs.durable import Disk


@dataclass
class File:
    """A file's bytes as the processes see them, and as promised."""

    now: bytes = b""
    promised: bytes = b""

    def after_a_cut(self, data: str) -> bytes:
        if data == "half" and self.now.startswith(self.promised):
            return self.now[: (len(self.promised) + len(self.now)) // 2]
        return self.promised if data in ("nothing", "half") else self.now


@dataclass
class Folder:
    """A folder's names as the processes see them, and as promised."""

    now: "dict[str, File | Folder]" = field(default_factory=dict)
    promised: "dict[str, File | Folder]" = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "Folder":
        """What is there, all of it promised."""
        names: dict[str, File | Folder] = {
            entry.name: cls.of(entry) if entry.is_dir() else File(entry.read_bytes(), entry.read_bytes())
            for entry in path.iterdir()
        }
        return cls(dict(names), dict(names))

    def write(self, path: Path, *, names: str, data: str) -> None:
        """Put down what a cut may leave: of names and of data that were not flushed, all, nothing or half."""
        path.mkdir()
        for name, inner in (self.now if names == "all" else self.promised).items():
            if isinstance(inner, Folder):
                inner.write(path / name, names=names, data=data)
            else:
                (path / name).write_bytes(inner.after_a_cut(data))


class WatchedDisk(Disk):
    """A real disk, whose every call is followed in the model; `after` is called after each."""

    def __init__(self, root: Path, after: Any) -> None:
        self.root, self.after = root, after
        self.model = Folder.of(root)
        self._open: dict[int, File] = {}

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._open[descriptor] = File()
        self._names(path)[path.name] = self._open[descriptor]
        self.after()
        return descriptor

    def extend(self, path: Path) -> int:
        descriptor = super().extend(path)
        found = self._names(path).setdefault(path.name, File())
        assert isinstance(found, File)
        self._open[descriptor] = found
        self.after()
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        taken = super().write(descriptor, data)
        self._open[descriptor].now += bytes(data[:taken])
        self.after()
        return taken

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        self._open[descriptor].now = self._open[descriptor].now[:size]
        self.after()

    def flush(self, path: Path, descriptor: int) -> None:
        super().flush(path, descriptor)
        found = self._find(path)
        found.promised = dict(found.now) if isinstance(found, Folder) else found.now  # type: ignore[assignment]
        self.after()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._names(target)[target.name] = self._names(source).pop(source.name)
        self.after()

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self._names(path)[path.name] = Folder()
        self.after()

    def remove_file(self, path: Path) -> None:
        super().remove_file(path)
        del self._names(path)[path.name]
        self.after()

    def remove_folder(self, path: Path) -> None:
        super().remove_folder(path)
        del self._names(path)[path.name]
        self.after()

    def _find(self, path: Path) -> File | Folder:
        found: File | Folder = self.model
        for name in path.relative_to(self.root).parts:
            assert isinstance(found, Folder)
            found = found.now[name]
        return found

    def _names(self, path: Path) -> dict[str, File | Folder]:
        parent = self._find(path.parent)
        assert isinstance(parent, Folder)
        return parent.now


def cuts() -> Iterator[dict[str, str]]:
    """The ways in which a cut treats what was not flushed."""
    for names in ("all", "nothing"):
        for data in ("all", "half", "nothing"):
            yield {"names": names, "data": data}
