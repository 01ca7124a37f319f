"""One data file: what its name says it is, and its content, unpacked and decoded.

Everything that a disk, a packer or an encoding can do to a file turns into one message here; the parsers in `tables`
and `parquet` deal with sound content only.
"""

import contextlib
import importlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from luthier.errors import MachineError, UserError, nearest

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PACKED = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}
UNPACKERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "gzip": ("zlib", lambda zlib: zlib.decompressobj(31)),
    "xz": ("lzma", lambda lzma: lzma.LZMADecompressor()),
    "bzip2": ("bz2", lambda bz2: bz2.BZ2Decompressor()),
}
"""Python's own module for a codec, which a Python may have been built without, and what it unpacks with. zstd is Arrow's."""
PADDED = ("gzip", "xz")
"""Codecs behind whose packed pieces zeros may stand."""
NOT_UNPACKED = (".7z", ".br", ".lz4", ".lzma", ".rar", ".sz", ".tar", ".tgz", ".z", ".zip")
KNOWN = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}, each also packed as .gz, .zst, .xz or .bz2"
AT_ONCE = 1 << 16  # packed bytes
LARGEST_WINDOW = 1 << 27
"""Bytes that zstd's readers look back on by default; `zstd --long=28` and more need more."""


@dataclass(frozen=True)
class Source:
    """A file to read. `name` is how messages and locations call it, `kind` one of KINDS, `codec` a value of PACKED or None."""

    path: Path
    name: str
    kind: str
    codec: str | None

    @classmethod
    def of(cls, path: Path, name: str) -> "Source":
        """The file by its name's endings; raises a UserError for a kind that we do not read."""
        endings = [ending.lower() for ending in path.suffixes[-2:]]
        codec = PACKED.get(endings[-1]) if endings else None
        if codec is not None:
            endings.pop()
        ending = endings[-1] if endings else ""
        if ending in KINDS:
            return cls(path, name, ending, codec)
        guess = nearest(ending, KINDS)
        found = f'unknown kind of file "{ending}"' if ending else "a file whose name has no ending that says its kind"
        hint = f', did you mean "{guess}"?' if guess else "."
        advice = "Rename it, or save it as one of these; a spreadsheet saves as CSV (UTF-8)."
        if ending in NOT_UNPACKED:
            found, hint, advice = (
                f'a packed file of a kind that is not unpacked here, "{ending}"',
                ".",
                "Unpack it first.",
            )
        raise UserError(f"{found}{hint} Expected {KNOWN}. {advice}", where=name)

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The unpacked bytes, as a stream; whatever goes wrong while it is read becomes a message."""
        with trouble(self.name), open(self.path, "rb") as file:
            if self.codec is None:
                yield file
            elif self.codec == "zstd":
                # Arrow's reader refuses a file that was cut off; that of the zstandard package ends early in silence.
                with _unpacking(self, OSError), pa.CompressedInputStream(pa.PythonFile(file), self.codec) as unpacked:
                    yield io.BufferedReader(cast(io.RawIOBase, unpacked), 1 << 18)
            else:
                # Python's own file objects take what is damaged behind a packed piece for its end.
                name, start = UNPACKERS[self.codec]
                module = _module(name, self)
                with _unpacking(
                    self, EOFError, OSError, getattr(module, "error", EOFError), getattr(module, "LZMAError", EOFError)
                ):
                    parts = _unpacked(file, partial(start, module), padded=self.codec in PADDED)
                    yield io.BufferedReader(_Joined(parts), 1 << 18)

    def lines(self) -> Iterator[str]:
        """Decoded lines with their ends, one at a time; only LF ends a line, so U+2028 and the like stay text."""
        number = 0
        with self.open() as stream:
            for number, line in enumerate(stream, start=1):
                if number == 1:
                    self._expect_utf8(line)
                    line = line.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise self._not_utf8(number, error.start + 1, line[error.start]) from None
        if number == 0:
            raise self.empty()

    def text(self) -> str:
        """The whole content, decoded, not empty."""
        with self.open() as stream:
            content = stream.read()
        self._expect_utf8(content)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # error.object is what was decoded: the byte order mark, which the first line may have, is gone.
            before = error.object[: error.start]
            number, start = before.count(b"\n") + 1, before.rfind(b"\n") + 1
            raise self._not_utf8(number, error.start - start + 1, error.object[error.start]) from None
        if not text.strip():
            raise self.empty()
        return text

    def empty(self) -> UserError:
        return UserError(
            "the file is empty; expected at least one row. Check that the export or the download finished.",
            where=self.name,
        )

    def _expect_utf8(self, start: bytes) -> None:
        """Refuses UTF-16 by its mark or its zeros: as UTF-8 it would decode in part, or an innocent byte be blamed."""
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:4]:
            raise UserError(f"the file is in UTF-16, expected UTF-8. {_advice('UTF-16')}", where=self.name)

    def _not_utf8(self, line: int, byte: int, value: int) -> UserError:
        found = f"byte {byte} of this line (0x{value:02x}) is not UTF-8; the file is probably in Windows-1252."
        return UserError(f"{found} {_advice('WINDOWS-1252')}", where=f"{self.name}:{line}")


def _advice(encoding: str) -> str:
    return f"Save it as UTF-8: in a spreadsheet as “CSV UTF-8”, or with iconv -f {encoding} -t UTF-8."


@contextlib.contextmanager
def trouble(name: str) -> Iterator[None]:
    """Turns what the system says while `name` is read into a message that a user can act on."""
    try:
        yield
    except FileNotFoundError:
        raise UserError("no such file. A link whose target is gone, or a file removed just now?", where=name) from None
    except PermissionError:
        raise MachineError(
            "reading is not allowed. Change the permissions (chmod u+r, for a folder u+rx) or ask its owner.",
            where=name,
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise MachineError(f"cannot be read: {reason}. Check the disk, then try again.", where=name) from error


@contextlib.contextmanager
def _unpacking(source: Source, *faults: type[Exception]) -> Iterator[None]:
    """Turns what the unpacker says into a message; what the system says, which has a number, passes."""
    try:
        yield
    except faults as error:
        if getattr(error, "errno", None) is not None:
            raise
        special = _special_zstd(source.path) if source.codec == "zstd" else None
        message = special or (
            f"damaged or cut off {source.codec} file ({str(error).rstrip('.')}). "
            "Copy or download it again, or pack it again."
        )
        raise UserError(message, where=source.name) from None


def _unpacked(file: BinaryIO, start: Callable[[], Any], *, padded: bool) -> Iterator[bytes]:
    """What the packed pieces hold that follow each other in a file; `start` gives what unpacks a piece."""
    packed = b""
    while packed := (packed.lstrip(b"\0") if padded else packed) or file.read(AT_ONCE):
        if padded and not packed.lstrip(b"\0"):
            continue
        piece = start()
        while not piece.eof:
            if not (packed := packed or file.read(AT_ONCE)):
                raise EOFError("it ends in the middle")
            yield piece.decompress(packed)
            packed = piece.unused_data


class _Joined(io.RawIOBase):
    """Pieces of bytes as one stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and (piece := next(self._pieces, None)) is not None:
            self._rest = memoryview(piece)
        taken = min(len(buffer), len(self._rest))
        buffer[:taken], self._rest = self._rest[:taken], self._rest[taken:]
        return taken


def _special_zstd(path: Path) -> str | None:
    """What a sound zstd file needs that is not to be had here, by the header of its first frame (RFC 8878, 3.1.1)."""
    with path.open("rb") as file:
        magic = int.from_bytes(file.read(4), "little")
        while magic & 0xFFFFFFF0 == 0x184D2A50:  # a frame to be skipped
            file.seek(int.from_bytes(file.read(4), "little"), io.SEEK_CUR)
            magic = int.from_bytes(file.read(4), "little")
        if magic != 0xFD2FB528:
            return None
        (descriptor,) = file.read(1) or b"\0"
        single = descriptor >> 5 & 1
        (exponent,) = b"\0" if single else file.read(1) or b"\0"
        dictionary = int.from_bytes(file.read((0, 1, 2, 4)[descriptor & 3]), "little")
        content = file.read((single, 2, 4, 8)[descriptor >> 6])
    largest = int.from_bytes(content, "little") + 256 * (len(content) == 2)
    window = largest if single else (1 << 10 + (exponent >> 3)) * (8 + (exponent & 7)) // 8
    if dictionary:
        return (
            f"packed with the dictionary {dictionary}, without which nothing can be read. "
            "Unpack it where the dictionary is: zstd -d -D DICTIONARY."
        )
    if window > LARGEST_WINDOW:
        return (
            f"packed with a window of {window / 2**20:,.0f} MiB, more than the {LARGEST_WINDOW >> 20} MiB that are read. "
            "Unpack it with zstd -d --long=31, or pack it without --long."
        )
    return None


def _module(name: str, source: Source) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MachineError(
            f"this Python was built without {name}, which unpacks {source.codec}. Unpack the file first.",
            where=source.name,
        ) from None
