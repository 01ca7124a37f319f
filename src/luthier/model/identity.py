"""Whether a model is still the one it was: hashes of its files, and a look at them that is as cheap as git's."""

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from luthier.errors import CorruptedState
from luthier.runs.durable import digest

WEIGHED = ("*.safetensors", "*config.json")
COMPUTES = ("*.safetensors", "config.json")
"""Files that an adapter's answers depend on; it has its own tokenizer and template."""
MADE_OF = (*WEIGHED, "tokenizer.*", "*vocab.*", "merges.txt", "*.jinja", "*_token*.json", "*.index.json")


def files(folder: Path) -> list[Path]:
    """Every file that makes a model: weights, configuration, tokenizer, template."""
    return sorted({path for pattern in MADE_OF for path in folder.glob(pattern)})


def fingerprint(folder: Path) -> str:
    """SHA-256 over a model folder's weights and configuration, file by file in the order of their names."""
    return fingerprint_of({file.name: digest(file) for pattern in WEIGHED for file in folder.glob(pattern)})


def fingerprint_of(hashes: Mapping[str, str]) -> str:
    """The fingerprint of a folder from the SHA-256 of its files."""
    names = sorted(name for name in hashes if "/" not in name and any(fnmatch(name, pattern) for pattern in WEIGHED))
    return hashlib.sha256("".join(f"{name}:{hashes[name]}\n" for name in names).encode()).hexdigest()


def stamp(file: Path) -> list[int]:
    """Size and time of change of a file: while these stay, so does what is in it."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def expect_same(base: Path, noted: Mapping[str, Any], *, where: str) -> None:
    """Refuses a base model that is not the one that was noted: `files` by SHA-256, `stamps` by size and time.

    A file with its old stamp is not read again. Any other is hashed, which takes about a second per gigabyte.
    """
    stamps, changed = noted.get("stamps", {}), []
    for name, wanted in noted["files"].items():
        if not any(fnmatch(name, pattern) for pattern in COMPUTES):
            continue
        file = base / name
        if not file.is_file():
            changed.append(f"{name} is gone")
        elif stamps.get(name) != stamp(file) and digest(file) != wanted:
            changed.append(f"{name} is another")
    if changed:
        raise CorruptedState(
            f"the base model in {base} is not the one that the adapter was trained beside ({'; '.join(changed)}), and beside "
            "another its answers mean nothing. Put that one back.",
            where=where,
        )


def changed_hash(before: str | None, now: str | None) -> str:
    """Two hashes, shortened: "was 12ab34cd, now 56ef7890"."""
    if before is None or now is None:
        return "is gone" if now is None else "is new"
    return f"was {before[:8]}, now {now[:8]}"
