"""GGUF files read with bounds: one that is cut off, or whose sizes cannot be, says so in one message.

Nothing is allocated for a count that the file's own bytes could not hold.
"""

import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    GGUF_DEFAULT_ALIGNMENT,
    GGUF_MAGIC,
    GGMLQuantizationType,
    GGUFValueType,
    quants,
)

from luthier.errors import UserError

Type = GGMLQuantizationType
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

ALIGNMENT = GGUF_DEFAULT_ALIGNMENT
MOST_DIMENSIONS = 4
NUMBERS = frozenset(int(kind) for kind in GGMLQuantizationType)  # by which files name formats
PLAIN = {
    GGUFValueType.UINT8: "B", GGUFValueType.INT8: "b", GGUFValueType.UINT16: "H", GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I", GGUFValueType.INT32: "i", GGUFValueType.FLOAT32: "f", GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q", GGUFValueType.INT64: "q", GGUFValueType.FLOAT64: "d",
}  # fmt: skip


def is_file(name: str) -> bool:
    """Whether a name is that of a GGUF file on this machine."""
    path = Path(name).expanduser()
    return path.suffix.lower() == ".gguf" and path.is_file()


def size(shape: tuple[int, ...], kind: Type) -> int:
    """Bytes of a tensor in the file."""
    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    return math.prod(shape) // per_block * block_bytes


def decode(data: Bytes, kind: Type, shape: tuple[int, ...]) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The numbers that a tensor's bytes stand for."""
    plain = {Type.F32: np.float32, Type.F16: np.float16}.get(kind)
    found = data.view(plain).astype(np.float32) if plain else quants.dequantize(data.reshape(*shape[:-1], -1), kind)
    numbers: np.ndarray[Any, np.dtype[np.float32]] = found.reshape(shape)
    return numbers


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: where its bytes are."""

    name: str
    shape: tuple[int, ...]
    kind: Type
    offset: int

    @property
    def bytes(self) -> int:
        return size(self.shape, self.kind)


@dataclass(frozen=True)
class GGUF:
    """A file's metadata, and its tensors as they are asked for."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Stored]

    @property
    def arch(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def setting(self, key: str, default: float) -> float:
        """A setting that is a number; refuses another kind of value."""
        found = self.metadata.get(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise UserError(
                f"its setting {key} is {str(found)[:40]!r}, and a number was expected.", where=str(self.path)
            )
        return found

    def numbers(self, name: str) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """A tensor's numbers, widened to fp32."""
        tensor = self.tensors[name]
        with self.path.open("rb") as file:
            file.seek(tensor.offset)
            data = np.frombuffer(file.read(tensor.bytes), dtype=np.uint8)
        return decode(data, tensor.kind, tensor.shape)


class _Lying(Exception):
    """What a file says of itself that cannot be, in words."""


class _Reading:
    """A cursor that never goes past the end of the file, and never makes room for more than the file can hold."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self.file, self.size = file, size

    @property
    def left(self) -> int:
        return self.size - self.file.tell()

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise _Lying(
                f"{what} has {count:,} bytes by its own count, and {self.left:,} are left: the file is cut off or damaged"
            )
        return self.file.read(count)

    def number(self, kind: GGUFValueType, what: str) -> Any:
        form = "<" + PLAIN[kind]
        return struct.unpack(form, self.take(struct.calcsize(form), what))[0]

    def count(self, what: str, *, least_bytes: int) -> int:
        """How many things follow, each of at least so many bytes."""
        found = int(self.number(GGUFValueType.UINT64, what))
        if found * least_bytes > self.left:
            raise _Lying(f"it counts {found:,} {what}, which its {self.left:,} bytes cannot hold")
        return found

    def text(self, what: str) -> str:
        return self.take(self.count(f"bytes of {what}", least_bytes=1), what).decode("utf-8", "replace")

    def value(self, kind: int, what: str) -> Any:
        if kind == GGUFValueType.STRING:
            return self.text(what)
        if kind == GGUFValueType.ARRAY:
            inner = self.number(GGUFValueType.UINT32, what)
            count = self.count(f"entries of {what}", least_bytes=8 if inner == GGUFValueType.STRING else 1)
            if inner in PLAIN:
                form = f"<{count}{PLAIN[GGUFValueType(inner)]}"
                return list(struct.unpack(form, self.take(struct.calcsize(form), what)))
            if inner != GGUFValueType.STRING:
                raise _Lying(f"{what} is an array of an unknown kind ({inner})")
            return [self.text(what) for _ in range(count)]
        if kind not in PLAIN:
            raise _Lying(f"{what} is of an unknown kind ({kind})")
        return self.number(GGUFValueType(kind), what)


def read(path: Path) -> GGUF:
    """What a file holds; refuses one that is cut off, or whose sizes cannot be."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _read(path, _Reading(file, size))
    except FileNotFoundError:
        raise UserError("there is no such file.", where=str(path)) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}).", where=str(path)) from None
    except _Lying as problem:
        raise UserError(f"not a whole GGUF file: {problem}. Get it, or export it, again.", where=str(path)) from None


def _read(path: Path, reading: _Reading) -> GGUF:
    if reading.size < 4 or struct.unpack("<I", reading.take(4, "its beginning"))[0] != GGUF_MAGIC:
        raise _Lying("it does not begin with GGUF")
    version = reading.number(GGUFValueType.UINT32, "its version")
    if version not in (2, 3):
        raise _Lying(f"it is of version {version}, and 2 and 3 are read")
    count = reading.count("tensors", least_bytes=24)
    keys = reading.count("settings", least_bytes=13)
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = reading.text("a setting's name")
        metadata[key] = reading.value(reading.number(GGUFValueType.UINT32, key), key)
    found = list(_tensors(reading, count))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Lying(f"its tensors are aligned to {alignment}")
    begin = reading.file.tell() + -reading.file.tell() % alignment
    tensors = {}
    for name, shape, kind, offset in found:
        tensor = Stored(name, shape, kind, begin + offset)
        if tensor.offset + tensor.bytes > reading.size:
            raise _Lying(
                f"the tensor {name} ends {tensor.offset + tensor.bytes - reading.size:,} bytes behind the file's end"
            )
        tensors[name] = tensor
    return GGUF(path, metadata, tensors)


def _tensors(reading: _Reading, count: int) -> Iterator[tuple[str, tuple[int, ...], Type, int]]:
    for _ in range(count):
        name = reading.text("a tensor's name")
        dimensions = reading.number(GGUFValueType.UINT32, name)
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise _Lying(f"the tensor {name} has {dimensions} dimensions")
        shape = tuple(reversed([int(reading.number(GGUFValueType.UINT64, name)) for _ in range(dimensions)]))
        number = reading.number(GGUFValueType.UINT32, name)
        if number not in NUMBERS:
            raise _Lying(f"the tensor {name} is in an unknown number format ({number})")
        offset = reading.number(GGUFValueType.UINT64, name)
        kind = GGMLQuantizationType(number)
        if any(not 0 < side <= reading.size * 256 for side in shape) or shape[-1] % GGML_QUANT_SIZES[kind][0]:
            raise _Lying(f"the tensor {name} of {kind.name} has the sizes {shape}")
        yield name, shape, kind, int(offset)
