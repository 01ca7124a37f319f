"""GGUF files written tensor by tensor, whole or not at all; `luthier.model.gguf_file` reads them."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFWriter, WriterState

from luthier.export.gguf import types
from luthier.export.gguf.families import Metadata, Value
from luthier.export.gguf.types import Bytes, Type
from luthier.model.gguf_file import ALIGNMENT
from luthier.model.gguf_file import GGUF as GGUF
from luthier.model.gguf_file import read as read
from luthier.runs.durable import NewFile, whole_file


@dataclass(frozen=True)
class NewTensor:
    """A tensor that will be written: its sizes, its format, and the pieces of its bytes when their turn comes."""

    name: str
    shape: tuple[int, ...]
    kind: Type
    pieces: Callable[[], Iterable[Bytes]]

    @property
    def bytes(self) -> int:
        return types.size(self.shape, self.kind)


def write(path: Path, arch: str, metadata: Metadata, tensors: Iterable[NewTensor] = ()) -> None:
    """Write a file that takes its name when all of it is on the disk."""
    with whole_file(path) as file:
        write_to(file, arch, metadata, list(tensors))


def write_to(file: NewFile, arch: str, metadata: Metadata, tensors: list[NewTensor]) -> None:
    """The file's beginning, then each tensor's bytes as they are made."""
    begun = beginning(arch, metadata, tensors)
    file.write(begun + bytes(-len(begun) % ALIGNMENT))
    for tensor in tensors:
        written = 0
        for piece in tensor.pieces():
            file.write(piece.reshape(-1).data)
            written += piece.nbytes
        assert written == tensor.bytes, f"{tensor.name}: {written} bytes, expected {tensor.bytes}"
        file.write(bytes(-written % ALIGNMENT))


def beginning(arch: str, metadata: Metadata, tensors: Iterable[NewTensor] = ()) -> bytes:
    """All that stands before the tensors' bytes; alone, a file that holds a tokenizer and no model."""
    writer, begun = GGUFWriter(None, arch), io.BytesIO()
    for key, value in metadata.items():
        _add(writer, key, value)
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name, _byte_shape(tensor), np.dtype(np.uint8), tensor.bytes, raw_dtype=tensor.kind
        ) if tensor.kind not in (Type.F32, Type.F16) else writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32 if tensor.kind is Type.F32 else np.float16), tensor.bytes
        )
    writer.fout, writer.state = [begun], WriterState.EMPTY  # type: ignore[list-item]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return begun.getvalue()


def _byte_shape(tensor: NewTensor) -> tuple[int, ...]:
    per_block, block_bytes = GGML_QUANT_SIZES[tensor.kind]
    return (*tensor.shape[:-1], tensor.shape[-1] // per_block * block_bytes)


def _add(writer: GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
