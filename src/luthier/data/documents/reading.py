"""The one reader of documents: text, Markdown, HTML, PDF and DOCX, for pairs and for the arm that looks things up.

PDF, DOCX and HTML need the extra `docs`, and are parsed in a process with little time and memory. What cannot be read is
named with its reason, and the others go on.
"""

import importlib.util
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from luthier.chat import limited_process
from luthier.chat.limited_process import Limits
from luthier.data.documents import extract, markdown
from luthier.data.documents.blocks import Block
from luthier.data.readers.sources import Source, trouble
from luthier.errors import UserError
from luthier.extensions import not_installed
from luthier.runs.durable import format_bytes

TEXTS = {".txt": True, ".md": False, ".markdown": False}
"""Endings that need no package, and whether the words are plain."""
PACKAGES = {".pdf": "pypdf", ".docx": "docx", ".html": "trafilatura", ".htm": "trafilatura"}
ENDINGS = (*TEXTS, *PACKAGES)
KNOWN = ".txt, .md, .html, .pdf or .docx"
LARGEST = 256 << 20
"""Bytes of a document; a longer text than this has another purpose."""
LIMITS = Limits(seconds=60, memory=2 << 30, output=64 << 20, clock=600)
AT_ONCE = 2
"""Processes that parse at the same time; each may take the memory of LIMITS."""


@dataclass(frozen=True)
class Document:
    """A document by the name that locations begin with."""

    name: str
    blocks: tuple[Block, ...]

    def location(self, block: Block) -> str:
        """Where a reader finds a block: `guide.md:12`, `guide.pdf:page 3`."""
        return f"{self.name}:{block.position}"

    @property
    def title(self) -> str:
        """Its first heading, or else its name."""
        return next((block.text for block in self.blocks if block.kind == "heading"), self.name)


@dataclass(frozen=True)
class Library:
    """The documents of a path by name, and those that could not be read, each with the reason."""

    documents: tuple[Document, ...]
    unread: dict[str, str]

    def expect_any(self, path: Path) -> None:
        """Raises a UserError that names what is wrong with each, where none could be read."""
        if not self.documents:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.unread.items())
            raise UserError(f"no document could be read. {reasons}.", where=str(path))


def is_document(path: Path) -> bool:
    """Whether the name has the ending of a document."""
    return path.suffix.lower() in ENDINGS


def files(path: Path, *others: str) -> list[Path]:
    """The documents of a folder and its folders by name, and files with `others` as ending; hidden ones are left out.

    With "" for others, all files.
    """
    if path.is_file():
        return [path]
    endings = (*ENDINGS, *others)
    found = (file for file in path.rglob("*") if file.suffix.lower().endswith(endings) and file.is_file())
    return sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts))


def read(paths: Sequence[Path], root: Path) -> Library:
    """The documents, named from `root`; the same files are parsed once in a process."""
    missing = {PACKAGES[path.suffix.lower()]: path for path in paths if path.suffix.lower() in PACKAGES}
    for package, path in missing.items():
        if importlib.util.find_spec(package) is None:
            raise not_installed(package, "docs", where=str(path))
    read_one = [(path, _name(path, root), *_version(path)) for path in paths]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda each: _read(*each), read_one))
    documents = tuple(each for each in results if isinstance(each, Document))
    return Library(documents, dict(each for each in results if isinstance(each, tuple)))


def _name(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def _version(path: Path) -> tuple[int, int]:
    with trouble(str(path)):
        found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4096)
def _read(path: Path, name: str, size: int, changed: int) -> Document | tuple[str, str]:
    """The document, or its name and why there is none; `changed` tells versions of a file apart."""
    if size > LARGEST:
        return name, f"larger than {format_bytes(LARGEST)}"
    ending = path.suffix.lower()
    try:
        blocks = _text_blocks(path, name, plain=TEXTS[ending]) if ending in TEXTS else _extracted(path, ending)
    except UserError as error:
        return name, error.message.rstrip(".")
    except extract.Unreadable as why:
        return name, str(why)
    return Document(name, tuple(blocks)) if blocks else (name, "no text in it")


def _text_blocks(path: Path, name: str, *, plain: bool) -> list[Block]:
    if not path.stat().st_size:
        return []
    return markdown.blocks(Source(path, name, path.suffix.lower(), None).text(), plain=plain)


def _extracted(path: Path, ending: str) -> list[Block]:
    """What the limited process makes of the file."""
    request = json.dumps({"path": str(path.absolute()), "kind": ".html" if ending == ".htm" else ending})
    outcome = limited_process.call(f"{extract.__name__}:extract", request, LIMITS)
    if outcome.met is not None:
        limits = {
            "processor": f"{LIMITS.seconds} seconds of processor time",
            "clock": f"{LIMITS.clock:.0f} seconds",
            "memory": f"{format_bytes(LIMITS.memory)} of memory",
            "output": f"{format_bytes(LIMITS.output)} of text",
        }
        raise extract.Unreadable(f"parsing it takes more than {limits[outcome.met]}")
    if outcome.failure is not None:
        raise extract.Unreadable(f"cannot be parsed ({outcome.failure.rstrip('.')})")
    found = json.loads(outcome.result)
    if "unreadable" in found:
        raise extract.Unreadable(found["unreadable"])
    return [Block.of(values) for values in found["blocks"]]
