"""Archives (.zip, .tar and its packed kinds): their members read as the files of a folder, and never written to the disk.

A member's name serves in messages only, so one like `../../etc/passwd` reaches nothing.
"""

import contextlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from luthier.data.readers import packing
from luthier.errors import UserError

MOST_MEMBERS = 1_000
PACKED_TARS = ([".tgz"], [".tbz2"], [".txz"])
FAULTS = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError)


def is_archive(path: Path) -> bool:
    """Whether the file is a collection of files, by its content; spreadsheets and the like are zip files of another use."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(512)
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return endings[-1:] == [".zip"]
    is_packed = any(head.startswith(magic) for magic in packing.MAGIC)
    return head[257:262] == b"ustar" or (is_packed and (endings[-1:] in PACKED_TARS or endings[:1] == [".tar"]))


def members(path: Path, name: str) -> list[str]:
    """The names of the files in an archive, hidden ones left out, in order."""
    with explained(name):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = [each for each in archive.infolist() if not each.is_dir()]
                if any(each.flag_bits & 1 for each in found):
                    raise UserError(
                        "the archive has a password. Unpack it first: unzip FILE.zip -d FOLDER.", where=name
                    )
                names = [each.filename for each in found]
        else:
            with tarfile.open(path) as tar:
                names = [each.name for each in tar if each.isreg()]
    if len(names) > MOST_MEMBERS:
        raise UserError(f"the archive has {len(names):,} files. Unpack it and keep those that hold data.", where=name)
    return sorted({each for each in names if not _hidden(each)})


@contextlib.contextmanager
def opened(path: Path, name: str, member: str) -> Iterator[tuple[BinaryIO, int]]:
    """A member's bytes as a stream, and how many bytes they take in the archive."""
    with explained(name):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = archive.getinfo(member).compress_size
                with archive.open(member) as file:
                    yield packing.bounded(packing.chunks(cast(BinaryIO, file)), name, size), size
        else:
            with tarfile.open(path) as tar:
                file_or_none = tar.extractfile(member)
                assert file_or_none is not None
                with file_or_none as content:
                    size = path.stat().st_size
                    yield packing.bounded(packing.chunks(cast(BinaryIO, content)), name, size), size


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns what the unpacker of an archive says into a message."""
    try:
        yield
    except FAULTS as error:
        raise UserError(
            f"damaged or cut off archive, or packed in a way that is not read ({str(error).rstrip('.')}). "
            "Copy or download it again, or unpack it first.",
            where=name,
        ) from None


def _hidden(member: str) -> bool:
    """Files that begin with a dot, and what macOS packs beside each file."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in PurePosixPath(member).parts
    )
