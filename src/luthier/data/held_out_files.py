"""Test and dev rows from files of the user's own, read like the data and entered into the same ledger."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.data import dataset as datasets
from luthier.data.dataset import Dataset, Item, Ledger
from luthier.data.readers.files import find
from luthier.errors import UserError
from luthier.recipe import Data

FEWEST = {"test": 2, "dev": 1}
"""Usable rows that a file must have: one question makes no paired comparison."""


@dataclass(frozen=True)
class HeldOut:
    """The items of `data.test_path` and `data.dev_path`; None where there is no such file."""

    test: list[Item] | None = None
    dev: list[Item] | None = None

    @property
    def items(self) -> list[Item]:
        """All of them."""
        return [*(self.test or ()), *(self.dev or ())]


def load(data: Data) -> tuple[Dataset, HeldOut]:
    """The data, and what the user holds out. The ledger, the files and the hash of the first account for all files."""
    main = datasets.load(data)
    parts = {name: _part(data, name, path, main) for name, path in _paths(data).items()}
    if not parts:
        return main, HeldOut()
    for part in parts.values():
        _join(main.ledger, part.ledger)
    digest = hashlib.sha256("\n".join(each.sha256 for each in (main, *parts.values())).encode()).hexdigest()
    files = [name for each in (main, *parts.values()) for name in each.files]
    return replace(main, sha256=digest, files=files), HeldOut(**{name: part.items for name, part in parts.items()})


def files(data: Data) -> list[str]:
    """The names of all files that are read for this data, in the order in which `load` reads them."""
    paths = [path for path in (data.path, *_paths(data).values()) if path is not None]
    return [source.name for path in paths for source in find(path).sources]


def _paths(data: Data) -> dict[str, Path]:
    paths = {"test": data.test_path, "dev": data.dev_path}
    return {name: path for name, path in paths.items() if path is not None}


def _part(data: Data, name: str, path: Path, main: Dataset) -> Dataset:
    """The rows of one file, checked against the data that is trained on."""
    key = f"data.{name}_path"
    for other in (data.path, data.test_path if name == "dev" else None):
        if other is not None and other.resolve() == path.resolve():
            raise UserError(f"{path} is named twice; what is held out must be another file.", where=key)
    part = datasets.load(data.model_copy(update={"path": path}))
    if len(part.items) < FEWEST[name]:
        raise UserError(
            f"only {len(part.items)} usable row: {part.ledger.summary()}. A comparison needs at least 2 test questions; "
            "100 see large differences, 300 see middling ones.",
            where=str(path),
        )
    kinds = {
        True: "documents (a text, nothing is asked)",
        False: "questions with answers",
    }
    training, held_out = (each.items[0].conversation.is_document for each in (main, part))
    if training != held_out:
        raise UserError(
            f"it has {kinds[held_out]}, but {data.path} has {kinds[training]}. Give both files the same columns.",
            where=str(path),
        )
    return part


def _join(ledger: Ledger, other: Ledger) -> None:
    """Add one ledger's rows to another; locations name their file."""
    ledger.read += other.read
    for reason, locations in other.dropped.items():
        ledger.dropped.setdefault(reason, []).extend(locations)
    for remark, locations in other.notes.items():
        ledger.notes.setdefault(remark, []).extend(locations)
    ledger.ignored.extend(other.ignored)
