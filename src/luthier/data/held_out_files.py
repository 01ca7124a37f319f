"""Test and dev rows from files of the user's own, read like the data and entered into the same ledger."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.data import reading
from luthier.data.dataset import Dataset, Item, Progress
from luthier.data.documents.records import find_rows
from luthier.data.readers.files import Files
from luthier.data.readers.sources import Source
from luthier.data.reading import Reading
from luthier.errors import UserError
from luthier.recipe import Data

FEWEST = {"test": 2, "dev": 1}
"""Usable rows that a file must have: one question makes no paired comparison."""


@dataclass(frozen=True)
class HeldOut:
    """The items of test and dev that have files of their own, by the recipe or by their names; None where there are none."""

    test: Sequence[Item] | None = None
    dev: Sequence[Item] | None = None

    @property
    def items(self) -> list[Item]:
        """All of them."""
        return [*(self.test or ()), *(self.dev or ())]


def load(data: Data, *, progress: Progress | None = None) -> tuple[Dataset, HeldOut]:
    """The data, and what the user holds out. The ledger, the files and the hash of the first account for all files."""
    readings = open_data(data, progress=progress)
    items = {name: list(reading.items()) for name, reading in readings.items()}
    documents = {name: part[0].conversation.is_document for name, part in items.items()}
    for name in readings.keys() - {"data"}:
        check(name, readings, len(items[name]), documents=documents)
    return joined(readings, items["data"]), HeldOut(items.get("test"), items.get("dev"))


def open_data(data: Data, *, progress: Progress | None = None) -> dict[str, Reading]:
    """The data, and beside it "test" and "dev" where they have files of their own, to be read in this order."""
    if data.path is None:
        return {"data": reading.open_data(data, progress=progress)}
    found, held_out = _find(data)
    main = reading.open_data(data, found, progress=progress)
    parts = {name: reading.open_data(data, files, like=main.choice) for name, files in held_out.items()}
    return {"data": main, **parts}


def _find(data: Data) -> tuple[Files, dict[str, Files]]:
    """The files to train on, and those held out: named by the recipe, else by their own names."""
    assert data.path is not None
    found = find_rows(data, data.path)
    named = _paths(data)
    for name, path in named.items():
        for other in (data.path, data.test_path if name == "dev" else None):
            if other is not None and other.resolve() == path.resolve():
                raise UserError(
                    f"{path} is named twice; what is held out must be another file.", where=f"data.{name}_path"
                )
    held_out = {name: _split(find_rows(data, path), name) for name, path in named.items()}
    unused = [
        f"{source.name} (data.{name}_path is used)"
        for name, files in found.held_out.items()
        for source in files.sources
        if name in held_out and str(source.path) not in held_out[name].paths
    ]
    apart = {_identity(source) for files in held_out.values() for source in files.sources}
    sources = [source for source in found.sources if _identity(source) not in apart]
    held_out |= {name: files for name, files in found.held_out.items() if name not in held_out}
    return replace(found, sources=sources or found.sources, ignored=[*found.ignored, *unused]), held_out


def _split(files: Files, name: str) -> Files:
    """Of files that their names divide, those of this split."""
    return files.held_out.get(name, files)


def _identity(source: Source) -> tuple[Path, str | None, str | None]:
    return source.path.resolve(), source.member, source.part


def check(name: str, readings: Mapping[str, Reading], count: int, *, documents: Mapping[str, bool]) -> None:
    """Refuses "test" or "dev", all of whose `count` items are read, if it cannot be held out from the data."""
    reading = readings[name]
    if count < FEWEST[name]:
        raise UserError(
            f"only {count} usable row: {reading.ledger.summary()}. A comparison needs at least 2 test questions; "
            "100 see large differences, 300 see middling ones.",
            where=reading.found.name,
        )
    kinds = {
        True: "documents (a text, nothing is asked)",
        False: "questions with answers",
    }
    training, held_out = documents["data"], documents[name]
    if training != held_out:
        raise UserError(
            f"it has {kinds[held_out]}, but {readings['data'].found.name} has {kinds[training]}. Give both files the same "
            "columns.",
            where=reading.found.name,
        )


def joined(readings: Mapping[str, Reading], items: Sequence[Item]) -> Dataset:
    """The items of the data with an account of what was read for them and for what is held out."""
    main, *parts = readings.values()
    if not parts:
        return main.with_items(items)
    for part in parts:
        main.ledger.join(part.ledger)
    digest = hashlib.sha256("\n".join(each.sha256 for each in readings.values()).encode()).hexdigest()
    files = list(dict.fromkeys(name for each in readings.values() for name in each.files))
    remarks = list(dict.fromkeys(remark for each in readings.values() for remark in each.found.remarks))
    return Dataset(items, main.ledger, main.choice, digest, files, remarks)


def files(data: Data) -> list[str]:
    """The names of all files that are read for this data, in the order in which `load` reads them."""
    if data.path is None:
        return []
    found, held_out = _find(data)
    return list(dict.fromkeys(path for each in (found, *held_out.values()) for path in each.paths))


def _paths(data: Data) -> dict[str, Path]:
    paths = {"test": data.test_path, "dev": data.dev_path}
    return {name: path for name, path in paths.items() if path is not None}
