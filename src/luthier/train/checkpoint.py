"""Checkpoints that are complete or do not exist.

A checkpoint is written to a hidden folder beside its place, file by file, each flushed to the disk; then a manifest with the
SHA-256 of every file; then the folder is flushed, renamed, and its parent flushed. Only then are older ones removed. There is
no "latest" link: the newest folder whose manifest holds is the latest. Nothing is pickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from luthier.errors import CorruptedState, EnvironmentMistake, Mistake
from luthier.runs import disk_errors, free_space, sync

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the update after which it was made, and what its state.json says."""

    folder: Path
    step: int
    state: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Masters and optimizer state by name."""
        return safetensors.torch.load_file(self.folder / "tensors.safetensors")


def save(root: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, object]) -> Path:
    """Write the checkpoint of a step; on return its bytes are on the disk."""
    target = root / f"step-{step:08d}"
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if (free := free_space(root)) < needed * 1.02 + 2**20:
        raise EnvironmentMistake(
            f"the disk is full: a checkpoint needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. "
            "The checkpoints before it are kept; make room.",
            where=str(root),
        )
    temporary = root / f".tmp-{step:08d}-{os.getpid()}"
    with disk_errors(target):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _save_tensors(temporary / "tensors.safetensors", tensors)
            (temporary / "state.json").write_text(json.dumps(dict(state), indent=2) + "\n", encoding="utf-8")
            files = sorted(temporary.iterdir())
            for file in files:
                sync(file)
            manifest = {"format": FORMAT, "step": step, "files": {file.name: digest(file) for file in files}}
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            sync(temporary / "manifest.json")
            sync(temporary)
            if target.exists():  # made before an interruption, and the same bit for bit
                shutil.rmtree(target)
            os.replace(temporary, target)
            sync(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def newest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and what is wrong with each newer one."""
    wrong: list[str] = []
    for folder in sorted(root.glob("step-*"), reverse=True):
        try:
            return verify(folder), wrong
        except CorruptedState as mistake:
            wrong.append(str(mistake))
    return None, wrong


def verify(folder: Path) -> Checkpoint:
    """The checkpoint, after comparing every file's SHA-256 with the manifest."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] > FORMAT:
            raise Mistake("made by a newer Luthier; update Luthier to continue this run.", where=str(folder))
        for name, wanted in manifest["files"].items():
            if digest(folder / name) != wanted:
                raise CorruptedState(
                    "its SHA-256 is not the one that was recorded when it was written.", where=str(folder / name)
                )
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptedState(f"not a whole checkpoint ({error}).", where=str(folder)) from None
    return Checkpoint(folder, int(manifest["step"]), state)


def rotate(root: Path, *, best: int) -> None:
    """Keep the best step's checkpoint and the newest two; remove the others, and what an interrupted save left."""
    keep = {f"step-{best:08d}", *sorted(folder.name for folder in root.glob("step-*"))[-2:]}
    for folder in root.iterdir():
        if folder.name.startswith((".tmp-", "step-")) and folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)


def digest(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """safetensors reports a full disk in its own exception; give it back as the OSError that it was."""
    try:
        safetensors.torch.save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    except safetensors.SafetensorError as error:
        code = next((int(word) for word in str(error).replace(")", " ").split() if word.isdigit()), None)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error
