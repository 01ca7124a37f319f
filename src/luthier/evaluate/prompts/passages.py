"""The user's documents as passages, for the arm that looks things up before it answers (RAG), and the run's copy of them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from luthier.data.documents import reading
from luthier.data.documents.passages import Passage, passages, split_text
from luthier.data.readers import read_rows
from luthier.errors import UserError
from luthier.runs.durable import read_json_lines, write_atomic

KEY = "evaluate.documents"
_ROWS = ".jsonl"
KNOWN = f"{reading.KNOWN.replace(' or', ',')} or {_ROWS}"


def read(path: Path) -> tuple[list[Passage], dict[str, str]]:
    """The passages of a file, or of all files in a folder and its folders by name; and the files that have none, with why.

    Documents are cut at paragraphs, rows (JSON Lines) one by one; of a row counts `text`, or else all its texts.
    """
    files = _files(path)
    library = reading.read([file for file in files if reading.is_document(file)], path)
    if path.is_file() and library.unread:
        raise UserError(f"{library.unread[path.name]}; expected a document with text.", where=str(path))
    found = {document.name: list(passages(document)) for document in library.documents}
    for file in files:
        if file.suffix.lower() == _ROWS:
            name = file.name if file == path else file.relative_to(path).as_posix()
            found[name] = list(_of_rows(file, name))
    if not any(found.values()):
        unread = "".join(f"; {name}: {reason}" for name, reason in library.unread.items())
        raise UserError(f"the documents hold no text; expected at least a sentence{unread}.", where=str(path))
    return [passage for name in sorted(found) for passage in found[name]], library.unread


def save(kept: Sequence[Passage], path: Path) -> None:
    """Write the run's own copy of the passages."""
    records = [
        {"place": passage.location, "text": passage.text} | ({"heading": passage.heading} if passage.heading else {})
        for passage in kept
    ]
    write_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def load(path: Path) -> list[Passage]:
    """The passages that `save` wrote; none where there is no such file."""
    return [Passage(record["place"], record["text"], record.get("heading", "")) for record in read_json_lines(path)]


def _files(path: Path) -> list[Path]:
    """The files to read; a UserError where there are none."""
    if not path.exists():
        raise UserError(f'no such file or folder: "{path}". Expected documents ({KNOWN}).', where=KEY)
    if path.is_file():
        if path.suffix.lower() != _ROWS and not reading.is_document(path):
            raise UserError(f'cannot read documents from "{path.name}". Expected {KNOWN}, or a folder.', where=KEY)
        return [path]
    found = reading.files(path, _ROWS)
    if not found:
        raise UserError(f'no document in the folder "{path}". Expected files in {KNOWN}.', where=KEY)
    return found


def _of_rows(file: Path, name: str) -> Iterator[Passage]:
    """The passages of a file of rows, each with its line."""
    for row in read_rows(file):
        text = row.values.get("text")
        texts = [text] if isinstance(text, str) else [value for value in row.values.values() if isinstance(value, str)]
        location = f"{name}:{row.location.rpartition(':')[2]}"
        yield from (Passage(location, piece) for piece in split_text("\n".join(texts)))
