"""One data file: what its name says it is, and its content, unpacked and decoded.

Everything that a disk, a packer or an encoding can do to a file turns into one message here; the parsers in `tables`
and `parquet` deal with sound content only.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from luthier.errors import EnvironmentMistake, Mistake, nearest

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PACKED = {".gz": "gzip", ".zst": "zstd"}
KNOWN = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}, each also packed as .gz or .zst"


@dataclass(frozen=True)
class Source:
    """A file to read. `name` is how messages and places call it, `kind` one of KINDS, `codec` gzip, zstd or None."""

    path: Path
    name: str
    kind: str
    codec: str | None

    @classmethod
    def of(cls, path: Path, name: str) -> "Source":
        """The file by its name's endings; raises a Mistake for a kind that we do not read."""
        endings = [ending.lower() for ending in path.suffixes[-2:]]
        codec = PACKED.get(endings[-1]) if endings else None
        if codec is not None:
            endings.pop()
        ending = endings[-1] if endings else ""
        if ending in KINDS:
            return cls(path, name, ending, codec)
        guess = nearest(ending, KINDS)
        found = f'unknown kind of file "{ending}"' if ending else "a file without an ending that tells its kind"
        hint = f', did you mean "{guess}"?' if guess else "."
        advice = "Rename it, or save it as one of these; a spreadsheet saves as CSV (UTF-8)."
        raise Mistake(f"{found}{hint} Expected {KNOWN}. {advice}", where=name)

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The unpacked bytes, as a stream; whatever goes wrong while it is read becomes a message."""
        with trouble(self.name, self.codec), open(self.path, "rb") as file:
            if self.codec is None:
                yield file
            else:
                # Arrow's reader refuses a file that was cut off; that of the zstandard package ends early in silence.
                with pa.CompressedInputStream(pa.PythonFile(file), self.codec) as unpacked:
                    yield io.BufferedReader(cast(io.RawIOBase, unpacked), 1 << 18)

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

    def empty(self) -> Mistake:
        return Mistake(
            "the file is empty; expected at least one row. Check that the export or the download finished.",
            where=self.name,
        )

    def _expect_utf8(self, start: bytes) -> None:
        """Refuses UTF-16 by its mark or its zeros: as UTF-8 it would decode in part, or an innocent byte be blamed."""
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:4]:
            raise Mistake(f"the file is in UTF-16, expected UTF-8. {_advice('UTF-16')}", where=self.name)

    def _not_utf8(self, line: int, byte: int, value: int) -> Mistake:
        found = f"byte {byte} of this line (0x{value:02x}) is not UTF-8; the file is probably in Windows-1252."
        return Mistake(f"{found} {_advice('WINDOWS-1252')}", where=f"{self.name}:{line}")


def _advice(encoding: str) -> str:
    return f"Save it as UTF-8: in a spreadsheet as “CSV UTF-8”, or with iconv -f {encoding} -t UTF-8."


@contextlib.contextmanager
def trouble(name: str, codec: str | None = None) -> Iterator[None]:
    """Turns what the system or the unpacker says while `name` is read into a message that a user can act on."""
    try:
        yield
    except FileNotFoundError:
        raise Mistake("no such file. A link whose target is gone, or a file removed just now?", where=name) from None
    except PermissionError:
        raise EnvironmentMistake(
            "reading is not allowed. Change the permissions (chmod u+r, for a folder u+rx) or ask its owner.",
            where=name,
        ) from None
    except OSError as error:
        if codec is not None and error.errno is None:
            raise Mistake(
                f"damaged or cut off {codec} file ({error}). Copy or download it again, or pack it again.", where=name
            ) from None
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise EnvironmentMistake(f"cannot be read: {reason}. Check the disk, then try again.", where=name) from error
