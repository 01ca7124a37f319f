"""A corpus as a stream of passages: plain texts, and rows with a `text`, such as The Pile's `.jsonl.zst`.

A document is read in passages of some thousand characters, so that memory does not grow with the longest of them. They are
cut where a word begins, behind a blank line if there is one: their tokens are those of the whole text.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from luthier.data.readers import files
from luthier.data.readers.kinds import METADATA, NotData
from luthier.data.readers.sources import Source, trouble
from luthier.data.readers.tables import READERS
from luthier.data.readers.values import Record, Value, as_text, shown
from luthier.errors import UserError

TEXTS = ("text", "content", "document", "body", "article", "story", "passage")
"""Columns that a document may stand in; the first that a row has."""
SMALLEST, LARGEST = 1 << 10, 1 << 14
PASSAGES_WANTED = 256
"""Characters of a passage: fewer where the corpus is so small that it would have too few to hold some out."""
HELD_OUT = {"val": "dev", "valid": "dev", "validation": "dev", "dev": "dev", "test": "test"}
"""Names of files and folders that are not trained on. A page of a manual may be called training or evaluation."""
MOST_SOURCES = 64
"""Entries of a folder that count as sources of their own; where there are more, the folder is one."""
UNPACKED = 3
"""How many times its size a packed file of text has, about."""
_CUTS = tuple(re.compile(pattern) for pattern in (r"\n(?=\n\S)", r"(?=\n\S)", r"(?=\s\S)"))
"""Where a text may be cut, the best first: before the blank that a word begins with, as byte-level tokenizers cut."""


@dataclass(frozen=True)
class Passage:
    """A document, or a part of it: `first` begins one and `last` ends it. `source` is what it counts for in a mixture."""

    text: str
    location: str
    source: str
    first: bool
    last: bool


@dataclass(frozen=True)
class Preview:
    """A document's beginning, where it stands, and its length in characters, where that is known without reading on."""

    location: str
    source: str
    text: str
    characters: int | None

    def to_json(self) -> dict[str, object]:
        """All of it, for programs."""
        return asdict(self)


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus by their sources, in order; `held_out` are those that are dev or test by their names."""

    path: Path
    train: list[tuple[str, Source]]
    held_out: list[tuple[str, Source]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[tuple[str, Source]]:
        """All that is read: what is trained on, then what is held out by its name."""
        return [*self.train, *self.held_out]

    @property
    def bytes(self) -> int:
        """About how many bytes of text there are, by the sizes of the files."""
        packed = (UNPACKED if source.codec else 1 for _, source in self.files)
        return sum(
            os.stat(source.path).st_size * factor for (_, source), factor in zip(self.files, packed, strict=True)
        )

    @property
    def passage_size(self) -> int:
        """Characters of a passage."""
        return max(SMALLEST, min(LARGEST, self.bytes // PASSAGES_WANTED))

    def passages(self, source: tuple[str, Source]) -> Iterator[Passage]:
        """The passages of one of its files. What breaks off the reading says how much was read before."""
        name, file = source
        documents = 0
        try:
            for record_name, location, pieces in _documents(file):
                parts = _with_last(_cut(pieces, self.passage_size))
                for number, (text, last) in enumerate(parts):
                    yield Passage(text, location, record_name or name, number == 0, last)
                documents += 1
        except UserError as error:
            if documents == 0:
                raise
            read = (
                f"{documents:,} whole document{'s' * (documents > 1)} of this file came before, the last at {location}"
            )
            raise type(error)(f"{error.message} {read}.", where=error.where) from None


def find(path: Path) -> Corpus:
    """The files below a path, however deep; in a folder, what is no text and no rows is named and left out."""
    with trouble(str(path)):
        if not path.is_dir():
            found = files.find(path)
            held_out = [(split, source) for split, inner in found.held_out.items() for source in inner.sources]
            name = re.split(r"[.#]", path.name)[0]
            return Corpus(path, [(name, source) for source in found.sources], held_out, found.ignored)
        return _in_folder(path)


def _in_folder(path: Path) -> Corpus:
    named: list[tuple[str, Source]] = []
    ignored: list[str] = []
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            file = Path(folder) / name
            try:
                if name in METADATA:
                    raise NotData("", where=name)
                named.append((file.relative_to(path).as_posix(), Source.of(file, str(file))))
            except NotData:
                ignored.append(str(file))
    if not named:
        what = f"no text to read in it, found {shown(ignored)}" if ignored else "the folder is empty"
        raise UserError(f"{what}. Expected .txt, .md or .jsonl files, each also packed (.zst, .gz).", where=str(path))
    splits = {name: _split(name) for name, _ in named}
    corpus = Corpus(
        path,
        [(_source_name(name, path, named), source) for name, source in named if splits[name] is None],
        [(split, source) for name, source in named if (split := splits[name])],
        ignored,
    )
    if not corpus.train:
        raise UserError("by their names all files are held out, and none is left to train on.", where=str(path))
    return corpus


def _split(name: str) -> str | None:
    """`dev` or `test`, where the whole name of a file, or of a folder that it lies in, says so; numbers do not count."""
    *folders, file = name.lower().split("/")
    stem = re.sub(r"[-_.]?\d+(-of-\d+)?$", "", file.split(".")[0])
    return next((HELD_OUT[word] for word in (stem, *folders) if word in HELD_OUT), None)


def _source_name(name: str, root: Path, named: list[tuple[str, Source]]) -> str:
    """The inner folder that a file lies in, or its own name; texts that lie in the corpus's folder itself are one source."""
    if len({PurePosixPath(other).parts[0] for other, _ in named}) > MOST_SOURCES:
        return root.name
    parts = PurePosixPath(name).parts
    if len(parts) > 1:
        return parts[0]
    is_text = next(source.kind == "text" for other, source in named if other == name)
    return root.name if is_text else parts[0].split(".")[0]


def preview(path: Path, count: int) -> Iterator[Preview]:
    """The first documents or rows of whatever lies at a path; no more of it is read."""
    corpus = find(path)
    for name, file in corpus.files:
        if file.kind == "text":
            found = iter([_preview_of_text(name, file)])
        else:
            found = (_preview_of_row(name, record) for record in READERS[file.kind](file))
        for each in itertools.islice(found, count):
            yield each
            count -= 1
        if not count:
            return


def _preview_of_text(name: str, file: Source) -> Preview:
    passages = _cut(file.lines(), SMALLEST)
    text = next(passages, "")
    more = next(passages, None) is not None
    return Preview(file.name, name, text, None if more else len(text))


def _preview_of_row(name: str, record: Record) -> Preview:
    named = next((column for column in TEXTS if column in record.values), None)
    if named is None:
        text = "\n".join(f"{column}: {_shown(value)}" for column, value in record.values.items())
    else:
        text = _shown(record.values[named])
    return Preview(record.location, _named_source(record) or name, text, len(text))


def _shown(value: Value) -> str:
    try:
        return as_text(value)
    except ValueError as error:
        return f"({error})"


def _documents(source: Source) -> Iterator[tuple[str | None, str, Iterable[str]]]:
    """The documents of a file: the source that a row names, where it stands, and its text piece by piece."""
    if source.kind == "text":
        yield None, source.name, source.lines()
        return
    for record in READERS[source.kind](source):
        yield _named_source(record), record.location, [_text(record)]


def _text(record: Record) -> str:
    """The document of a row; empty where it has none."""
    name = next((name for name in TEXTS if name in record.values), None)
    if name is None:
        raise UserError(
            f"a row without a text: it has {shown(list(record.values))}. Expected a document in a column such as text.",
            where=record.location,
        )
    try:
        return as_text(record.values[name])
    except ValueError as error:
        raise UserError(f"its {name} is no text: {error}.", where=record.location) from None


def _named_source(record: Record) -> str | None:
    """What The Pile says of where a document comes from."""
    meta = record.values.get("meta")
    name = meta.get("pile_set_name") if isinstance(meta, dict) else None
    return name if isinstance(name, str) and name else None


def _cut(pieces: Iterable[str], size: int) -> Iterator[str]:
    """A text in passages of about so many characters, never more; nothing of it is lost."""
    waiting = ""
    for piece in pieces:
        waiting += piece
        start = 0
        while len(waiting) - start > size:
            end = _end(waiting, start, size)
            yield waiting[start:end]
            start = end
        waiting = waiting[start:]
    if waiting:
        yield waiting


def _end(text: str, start: int, size: int) -> int:
    """Where a passage ends: in the second half of what it may have, at the best place there."""
    most = start + size
    for cut in _CUTS:
        ends = [match.end() for match in cut.finditer(text, start + size // 2, most + 2) if match.end() <= most]
        if ends:
            return ends[-1]
    return most


def _with_last(passages: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Each passage with whether it is the last; an empty document is one empty passage."""
    before = next(passages, "")
    for passage in passages:
        yield before, False
        before = passage
    yield before, True
