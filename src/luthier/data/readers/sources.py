"""One data file: what it is, and its content, unpacked and decoded.

Everything that a disk, an encoding or a second writer can do to a file turns into one message here (packers have theirs
in `packing` and `archives`); the readers deal with sound content only.
"""

import codecs
import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from luthier.data.readers import archives, kinds, packing
from luthier.errors import MachineError, UserError

HEAD = 1 << 16
"""Bytes that tell what a file is."""
LONGEST_LINE = 1 << 26
LARGEST_DOCUMENT = 1 << 30
"""Bytes of a line, and of a file that is read as a whole: what a machine can hold several times over."""
MOST_REMARKS = 20
MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks of encodings other than UTF-8."""


@dataclass(frozen=True)
class Source:
    """A file to read. `name` is how messages and locations call it; `kind` a value of ENDINGS, `codec` one of PACKED or None.

    `member` is its name in the archive at `path`. `part` is the table, sheet or list in it that is read, where there are
    several. `remarks` are what a reader has to say of the whole file, complete when it has been read.
    """

    path: Path
    name: str
    kind: str
    codec: str | None = None
    member: str | None = None
    part: str | None = None
    remarks: list[str] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def of(cls, path: Path, name: str, *, member: str | None = None, part: str | None = None) -> "Source":
        """The file by its content and its name's endings; raises a UserError for a kind that we do not read."""
        endings = [ending.lower() for ending in PurePosixPath(member or path.name).suffixes[-2:]]
        codec = packing.PACKED.get(endings[-1]) if endings else None
        if codec is not None:
            endings.pop()
        ending = endings[-1] if endings else ""
        found = cls(path, name, "", codec, member, part)
        head = found.head()
        if codec is None:
            codec = next((codec for magic, codec in packing.MAGIC.items() if head.startswith(magic)), None)
            if codec is not None:
                found = replace(found, codec=codec)
                head = found.head()
        encoding = _marked(head)
        if encoding:
            head = head.decode(encoding, errors="ignore").encode("utf-8")
        return replace(found, kind=kinds.identify(name, ending, head))

    def remark(self, text: str) -> None:
        """Have this said of the file, once, and not without end."""
        if text not in self.remarks and len(self.remarks) < MOST_REMARKS:
            self.remarks.append(text)

    def head(self) -> bytes:
        """The first unpacked bytes."""
        with self.open(whole=False) as stream:
            return stream.read(HEAD)

    @contextlib.contextmanager
    def open(self, *, whole: bool = True) -> Iterator[BinaryIO]:
        """The unpacked bytes, as a stream; whatever goes wrong while it is read becomes a message.

        Read as a `whole`, the file must at the end be the one that was opened.
        """
        with trouble(self.name):
            before = expect_file(self.path, self.name)
            with self._raw() as (file, size):
                if self.codec is None:
                    yield file
                else:
                    with packing.unpacked(file, self.codec, self.name, size) as stream:
                        yield stream
            if whole:
                self.expect_unchanged(before)

    def expect_unchanged(self, before: os.stat_result) -> None:
        """Raises a UserError where the file is no longer what it was when it was opened."""
        if _identity(os.stat(self.path)) != _identity(before):
            raise UserError(
                "the file changed while it was being read. Wait until it is written, then try again.", where=self.name
            )

    @contextlib.contextmanager
    def _raw(self) -> Iterator[tuple[BinaryIO, int]]:
        """The bytes as they lie in the folder or the archive, and their number there."""
        if self.member is not None:
            with archives.opened(self.path, self.name, self.member) as (file, size):
                yield file, size
        else:
            with open(self.path, "rb") as file:
                yield file, os.fstat(file.fileno()).st_size

    def lines(self) -> Iterator[str]:
        """Decoded lines with their ends, one at a time; only LF ends a line, so U+2028 and the like stay text.

        A file that has CR for every line end, as old Mac files, gives lines too.
        """
        number = 0
        with self.open() as raw:
            stream = self._as_utf8(raw)
            for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE + 1), b""), start=1):
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"the line is longer than {LONGEST_LINE >> 20} MiB; expected one row a line. Are there line ends?",
                        where=f"{self.name}:{number}",
                    )
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise self._not_utf8(number, error.start + 1, line[error.start]) from None
        if number == 0:
            raise self.empty()

    def text(self) -> str:
        """The whole content, decoded, not empty."""
        with self.open() as stream:
            content = self._as_utf8(stream, lines=False).read(LARGEST_DOCUMENT + 1)
            if len(content) > LARGEST_DOCUMENT:
                raise UserError(
                    f"larger than the {LARGEST_DOCUMENT >> 30} GiB that are read at once. Write the rows as JSON Lines, "
                    "for a list with jq -c '.[]' FILE > FILE.jsonl, or divide the file.",
                    where=self.name,
                )
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

    def _as_utf8(self, stream: BinaryIO, *, lines: bool = True) -> BinaryIO:
        """The stream in UTF-8 where a mark says that it is in another Unicode encoding, and with LF at the ends of lines."""
        start = stream.read(HEAD)
        rest = packing.chunks(stream, start)
        encoding = _marked(start)
        if encoding is None and b"\0" in start[:4]:
            raise UserError(f"the file is in UTF-16, expected UTF-8. {_advice('UTF-16')}", where=self.name)
        if encoding is not None:
            rest = self._recoded(rest, encoding)
        elif lines and b"\r" in start and b"\n" not in start:
            rest = (piece.replace(b"\r", b"\n") for piece in rest)
        return packing.joined(rest)

    def _recoded(self, pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            for piece in pieces:
                yield decoder.decode(piece).encode("utf-8")
            yield decoder.decode(b"", final=True).encode("utf-8")
        except UnicodeError as error:
            name = encoding.upper()
            found = f"its first bytes say that the file is in {name}, and it is not ({error})."
            raise UserError(f"{found} {_advice(name)}", where=self.name) from None

    def _not_utf8(self, line: int, byte: int, value: int) -> UserError:
        found = f"byte {byte} of this line (0x{value:02x}) is not UTF-8; the file is probably in Windows-1252."
        return UserError(f"{found} {_advice('WINDOWS-1252')}", where=f"{self.name}:{line}")


def expect_file(path: Path, name: str) -> os.stat_result:
    """What the system knows of the file; a UserError where it is a pipe or a device, which cannot be read twice."""
    found = os.stat(path)
    if stat.S_ISREG(found.st_mode):
        return found
    what = "a pipe" if stat.S_ISFIFO(found.st_mode) else "a device or a socket"
    raise kinds.NotData(
        f"this is {what}, expected a file. Save what it gives first: cat {path} > rows.jsonl.", where=name
    )


def _marked(start: bytes) -> str | None:
    """The encoding that a byte order mark names, other than UTF-8."""
    return next((encoding for mark, encoding in MARKS.items() if start.startswith(mark)), None)


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _advice(encoding: str) -> str:
    return f"Save it as UTF-8: in a spreadsheet as “CSV UTF-8”, or with iconv -f {encoding} -t UTF-8."


@contextlib.contextmanager
def trouble(name: str) -> Iterator[None]:
    """Turns what the system says while `name` is read into a message that a user can act on."""
    try:
        yield
    except FileNotFoundError:
        raise kinds.NotData(
            "no such file. A link whose target is gone, or a file removed just now?", where=name
        ) from None
    except PermissionError:
        raise MachineError(
            "reading is not allowed. Change the permissions (chmod u+r, for a folder u+rx) or ask its owner.",
            where=name,
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise MachineError(f"cannot be read: {reason}. Check the disk, then try again.", where=name) from error
