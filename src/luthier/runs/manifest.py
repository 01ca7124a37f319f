"""A checkpoint's manifest: the SHA-256 of its files and of itself, by which anybody can tell that it is whole.

Nothing of a training is needed for that: whoever checks a run folder reads the files and loads no tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from luthier.errors import CorruptedState, UserError
from luthier.runs import durable

FORMAT = 1
FILES = ({"tensors.safetensors", "state.json"}, {".metadata", "state.json"})
"""What a checkpoint of whole tensors has, and one of shards at least."""


def path(root: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return root / f"step-{step:08d}"


def folders(root: Path) -> list[Path]:
    """All checkpoints, whole or not, the newest first."""
    return sorted(root.glob("step-*"), reverse=True)


def write(folder: Path, step: int, hashes: Mapping[str, str]) -> None:
    """The manifest of a step's checkpoint, whose files have these SHA-256."""
    content = {"format": FORMAT, "luthier": version("luthier"), "step": step, "files": dict(hashes)}
    write_json(folder / "manifest.json", {**content, "sha256": checksum(content)})


def verify(folder: Path) -> int:
    """The step of a whole checkpoint; raises CorruptedState where a file or the manifest is not as it was written."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest.pop("sha256") != checksum(manifest):
            raise CorruptedState("its SHA-256 is not the one that was recorded in it.", where=f"{folder}/manifest.json")
        if manifest["format"] > FORMAT:
            raise UserError(
                f"made by Luthier {manifest['luthier']}, which is newer than this one ({version('luthier')}); "
                "update Luthier to continue this run.",
                where=str(folder),
            )
        if not any(files <= manifest["files"].keys() for files in FILES):
            raise KeyError("files")
        for name in manifest["files"]:
            if durable.digest(folder / name) != manifest["files"][name]:
                raise CorruptedState(
                    "its SHA-256 is not the one that was recorded when it was written.", where=str(folder / name)
                )
        if path(folder.parent, manifest["step"]) != folder:
            raise CorruptedState(f"this is the checkpoint of step {manifest['step']}.", where=str(folder))
        json.loads((folder / "state.json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (
            f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        )
        raise CorruptedState(f"not a whole checkpoint ({reason}).", where=str(folder)) from None
    return int(manifest["step"])


def checksum(content: Mapping[str, object]) -> str:
    """SHA-256 over a manifest without its own."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(file: Path, content: Mapping[str, object]) -> str:
    """Write a file of JSON whose bytes are on the disk on return; its SHA-256."""
    with durable.flushed_file(file) as out:
        out.write(json.dumps(dict(content), indent=2).encode())
    return out.sha256
