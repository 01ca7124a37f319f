"""The user's documents as passages of about 200 words, for the arm that looks things up before it answers (RAG)."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.data.readers.files import read_rows
from luthier.errors import MachineError, UserError
from luthier.runs.durable import read_json_lines, write_atomic

WORDS = 200  # of a passage: long enough to hold a thought, short enough that four fit beside a question
KEY = "evaluate.documents"
_TEXTS, _ROWS = (".txt", ".md"), (".jsonl",)
KNOWN = ", ".join((*_TEXTS, *_ROWS))
_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?。])\s+")


@dataclass(frozen=True)
class Passage:
    """A piece of a document; its location is `handbook.md`, or for a row `handbook.jsonl:12`."""

    location: str
    text: str


def read(path: Path) -> list[Passage]:
    """The passages of a file, or of all files in a folder and its folders, by name.

    Text files are cut at paragraphs, rows (JSON Lines) one by one; of a row counts `text`, or else all its texts.
    """
    passages = [
        Passage(location, piece)
        for file in _files(path)
        for location, text in _texts(file, path)
        for piece in split_text(text)
    ]
    if not passages:
        raise UserError("the documents hold no text; expected at least a sentence.", where=str(path))
    return passages


def split_text(text: str) -> Iterator[str]:
    """The text in pieces of at most 200 words: whole paragraphs, whole sentences where one is longer, words if need be.

    A heading stays with what follows it.
    """
    piece: list[str] = []
    size = 0
    for unit in _units(text):
        words = len(unit.split())
        heading = bool(piece) and piece[-1].startswith("#") and len(piece) > 1
        if piece and size + words > WORDS:
            carried = [piece.pop()] if heading else []
            yield "\n\n".join(piece)
            piece, size = carried, sum(len(part.split()) for part in carried)
        piece.append(unit)
        size += words
    if piece:
        yield "\n\n".join(piece)


def save(passages: Sequence[Passage], path: Path) -> None:
    """Write the run's own copy of the passages."""
    records = [{"place": passage.location, "text": passage.text} for passage in passages]
    write_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def load(path: Path) -> list[Passage]:
    """The passages that `save` wrote; none where there is no such file."""
    return [Passage(record["place"], record["text"]) for record in read_json_lines(path)]


def _units(text: str) -> Iterator[str]:
    """Paragraphs; of one that is too long the sentences; of such a sentence runs of words."""
    for paragraph in _PARAGRAPH.split(text):
        if len(paragraph.split()) <= WORDS:
            yield from [paragraph.strip()] if paragraph.strip() else []
            continue
        for sentence in _SENTENCE.split(paragraph.strip()):
            words = sentence.split()
            if len(words) <= WORDS:
                yield sentence
            else:
                yield from (" ".join(words[at : at + WORDS]) for at in range(0, len(words), WORDS))


def _files(path: Path) -> list[Path]:
    """The files to read; a UserError where there are none."""
    if not path.exists():
        raise UserError(f'no such file or folder: "{path}". Expected documents ({KNOWN}).', where=KEY)
    if path.is_file():
        if path.suffix.lower() not in (*_TEXTS, *_ROWS):
            raise UserError(f'cannot read documents from "{path.name}". Expected {KNOWN}, or a folder.', where=KEY)
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in (*_TEXTS, *_ROWS) and file.is_file())
    if not found:
        raise UserError(f'no document in the folder "{path}". Expected files in {KNOWN}.', where=KEY)
    return found


def _texts(file: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Each text of a file with its location, named from `root`."""
    name = file.name if file == root else str(file.relative_to(root))
    if file.suffix.lower() in _ROWS:
        for row in read_rows(file):
            text = row.values.get("text")
            texts = (
                [text] if isinstance(text, str) else [value for value in row.values.values() if isinstance(value, str)]
            )
            yield f"{name}:{row.location.rpartition(':')[2]}", "\n".join(texts)
        return
    try:
        yield name, file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("the document is not in UTF-8; save it as UTF-8.", where=str(file)) from None
    except OSError as error:
        raise MachineError(f"the document cannot be read: {error.strerror}.", where=str(file)) from None
