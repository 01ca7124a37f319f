"""Packed bytes to plain ones: gzip, zstd, xz and bzip2, with no row lost in silence and no more memory than a buffer."""

import contextlib
import importlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, cast

import pyarrow as pa

from luthier.errors import MachineError, UserError

PACKED = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}
UNPACKERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "gzip": ("zlib", lambda zlib: zlib.decompressobj(31)),
    "xz": ("lzma", lambda lzma: lzma.LZMADecompressor()),
    "bzip2": ("bz2", lambda bz2: bz2.BZ2Decompressor()),
}
"""Python's own module for a codec, which a Python may have been built without, and what it unpacks with. zstd is Arrow's."""
PADDED = ("gzip", "xz")
"""Codecs behind whose packed pieces zeros may stand."""
AT_ONCE = 1 << 16  # packed bytes
LARGEST_WINDOW = 1 << 27
"""Bytes that zstd's readers look back on by default; `zstd --long=28` and more need more."""
TRUSTED = 1 << 30
HIGHEST_RATIO = 200
"""Past so many unpacked bytes, a packed file that holds so many times its size is made to fill memory and disks."""


@contextlib.contextmanager
def unpacked(file: BinaryIO, codec: str, name: str, size: int) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file of `size` bytes, as a stream; what the unpacker says becomes a message about `name`."""
    if codec == "zstd":
        start = file.read(AT_ONCE)
        file = joined(chunks(file, start))
        # Arrow's reader refuses a file that was cut off; that of the zstandard package ends early in silence.
        with (
            _explained(codec, name, OSError, start=start),
            pa.CompressedInputStream(pa.PythonFile(file), codec) as stream,
        ):
            yield bounded(chunks(cast(BinaryIO, stream)), name, size)
        return
    # Python's own file objects take what is damaged behind a packed piece for its end.
    module_name, unpacker = UNPACKERS[codec]
    module = _module(module_name, codec, name)
    faults = (EOFError, OSError, getattr(module, "error", EOFError), getattr(module, "LZMAError", EOFError))
    with _explained(codec, name, *faults):
        yield bounded(_unpacked(file, partial(unpacker, module), padded=codec in PADDED), name, size)


def bounded(pieces: Iterator[bytes], name: str, size: int) -> BinaryIO:
    """Pieces of bytes as one stream, that ends in a message where they are absurdly more than the `size` they came from."""

    def counted() -> Iterator[bytes]:
        total = 0
        for piece in pieces:
            total += len(piece)
            if total > max(TRUSTED, HIGHEST_RATIO * size):
                raise UserError(
                    f"its {size:,} bytes unpack to more than {HIGHEST_RATIO} times as many, which no data do. "
                    "If you trust it, unpack it first.",
                    where=name,
                )
            yield piece

    return joined(counted())


def joined(pieces: Iterator[bytes]) -> BinaryIO:
    """Pieces of bytes as one stream."""
    return io.BufferedReader(_Joined(pieces), 1 << 18)


def chunks(stream: BinaryIO, start: bytes = b"") -> Iterator[bytes]:
    """What was read of a stream already, and the rest of it, in pieces."""
    if start:
        yield start
    while piece := stream.read(1 << 18):
        yield piece


@contextlib.contextmanager
def _explained(codec: str, name: str, *faults: type[Exception], start: bytes = b"") -> Iterator[None]:
    """Turns what the unpacker says into a message; what the system says, which has a number, passes."""
    try:
        yield
    except faults as error:
        if getattr(error, "errno", None) is not None:
            raise
        special = _special_zstd(io.BytesIO(start)) if codec == "zstd" else None
        message = special or (
            f"damaged or cut off {codec} file ({str(error).rstrip('.')}). Copy or download it again, or pack it again."
        )
        raise UserError(message, where=name) from None


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
    """Pieces of bytes, to be read."""

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


def _special_zstd(file: BinaryIO) -> str | None:
    """What a sound zstd file needs that is not to be had here, by the header of its first frame (RFC 8878, 3.1.1)."""
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


def _module(module: str, codec: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MachineError(
            f"this Python was built without {module}, which unpacks {codec}. Unpack the file first.", where=name
        ) from None
