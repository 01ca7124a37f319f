"""Checkpoints that are complete or do not exist.

    checkpoints/step-00000120/
      tensors.safetensors   master weights and optimizer state
      state.json            where the training stands
      manifest.json         the SHA-256 of both, and of itself

It is written beside its place, each file flushed to the disk, then the folder renamed and its parent flushed. Only when it has
been read back and is what was written are older ones removed. There is no "latest" link: the newest folder whose manifest
holds is the latest. Nothing is pickled.
"""

import errno
import json
import os
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.distributed import checkpoint as dcp

from luthier.errors import CorruptedState
from luthier.runs import durable, manifest
from luthier.runs.manifest import folders, path

KEPT = 2  # the newest two, beside the best one
MOST_AT_ONCE = KEPT + 2  # with the best one, and one that is being written
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
"""The format's names; see the README of safetensors."""


@dataclass(frozen=True)
class Deferred:
    """A tensor that exists only while it is written: what is known of it before, and what makes it."""

    dtype: torch.dtype
    shape: torch.Size
    make: Callable[[], Tensor]


Stored = Tensor | Deferred
"""What a checkpoint can hold under a name."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the update after which it was made, and what its state.json says."""

    folder: Path
    step: int
    state: dict[str, Any]

    @property
    def is_sharded(self) -> bool:
        """Whether each process wrote its own part (`sharding`)."""
        return not (self.folder / "tensors.safetensors").exists()

    def tensors(self) -> dict[str, Tensor]:
        """Master weights and optimizer state by name, whole also where they were written in shards."""
        if self.is_sharded:
            reader = dcp.FileSystemReader(self.folder)  # type: ignore[attr-defined]
            known: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
            found = {name: torch.empty(one.size, dtype=one.properties.dtype) for name, one in known.items()}
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # which is what we want
                dcp.load(found, storage_reader=reader, no_dist=True)  # type: ignore[attr-defined]
            return found
        return safetensors.torch.load_file(self.folder / "tensors.safetensors")


def as_tensor(stored: Stored) -> Tensor:
    """The tensor, made now if it was deferred."""
    return stored.make() if isinstance(stored, Deferred) else stored.detach()


def bytes_of(tensors: Mapping[str, Stored]) -> int:
    """Bytes that a checkpoint of these tensors takes."""
    return sum(map(_bytes_of_one, tensors.values())) + 4096 * (3 + len(tensors) // 16)


def _bytes_of_one(stored: Stored) -> int:
    return stored.shape.numel() * stored.dtype.itemsize


def save(root: Path, step: int, tensors: Mapping[str, Stored], state: Mapping[str, object]) -> Path:
    """Write the checkpoint of a step, and read it back; on return its bytes are on the disk."""
    target = path(root, step)
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))  # so that each is aligned
    durable.require_space(root, bytes_of(tensors), "a checkpoint needs")
    durable.make_folders(root)
    with durable.whole_folder(target) as temporary:
        file = temporary / "tensors.safetensors"
        hashes = {
            file.name: _write_tensors(file, ordered),
            "state.json": manifest.write_json(temporary / "state.json", state),
        }
        _read_back(file, ordered)
        manifest.write(temporary, step, hashes)
    return target


def verify(folder: Path) -> Checkpoint:
    """The checkpoint, after comparing every file's SHA-256 with the manifest, and the manifest's with itself."""
    step = manifest.verify(folder)
    return Checkpoint(folder, step, json.loads((folder / "state.json").read_bytes()))


def newest(
    root: Path, *, companion: Callable[[Checkpoint], int] = lambda found: found.step
) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest checkpoint that verifies, and what is wrong with each newer one.

    `companion` gives the step of another checkpoint without which this one is of no use; it is verified too.
    """
    wrong: dict[Path, str] = {}
    for folder in folders(root):
        try:
            found = verify(folder)
            if (other := companion(found)) != found.step:
                verify(path(root, other))
            return found, wrong
        except CorruptedState as error:
            wrong[folder] = str(error)
    return None, wrong


def rotate(root: Path, *, best: int, verified: int | None = None) -> str | None:
    """Keep the newest two and the best step's, and remove the others; what is wrong with the newest, or None.

    While the newest is not what was written, nothing is removed: one of the others may be the only good one. `verified` is a
    step whose checkpoint `save` has just read back, which need not be hashed again.
    """
    found = folders(root)
    keep = {*found[:KEPT], path(root, best)}
    old = [folder for folder in found if folder not in keep]
    if not old:
        return None
    if verified is None or found[0] != path(root, verified):
        try:
            verify(found[0])
        except CorruptedState as error:
            return str(error)
    for folder in old:
        durable.remove(folder)
    return None


def _content(stored: Stored) -> memoryview:
    """A tensor's numbers as they stand in memory."""
    return as_tensor(stored).cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _write_tensors(file: Path, ordered: Sequence[tuple[str, Stored]]) -> str:
    """Write a safetensors file, tensor by tensor and without a second copy in memory; gives its SHA-256.

    The format: 8 bytes of length, a header in JSON padded to a multiple of 8, then the numbers. safetensors' own writer would
    tell neither which write failed nor what it wrote.
    """
    header: dict[str, object] = {}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + _bytes_of_one(tensor)
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with durable.flushed_file(file) as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in ordered:
            out.write(_content(tensor))
    return out.sha256


def _read_back(file: Path, ordered: Sequence[tuple[str, Stored]]) -> None:
    """Raises where the file does not hold these tensors: comparing with memory takes a fifth of the time of hashing."""
    with file.open("rb") as written:
        (length,) = struct.unpack("<Q", written.read(8))
        written.seek(length, os.SEEK_CUR)
        buffer = bytearray(durable.CHUNK)
        for name, tensor in ordered:
            content = _content(tensor)
            for start in range(0, len(content), len(buffer)):
                piece = content[start : start + len(buffer)]
                read = written.readinto(memoryview(buffer)[: len(piece)])
                if read != len(piece) or not np.array_equal(
                    np.frombuffer(buffer, np.uint8, read), np.frombuffer(piece, np.uint8)
                ):
                    raise OSError(errno.EIO, f"{name} reads back otherwise than it was written")
