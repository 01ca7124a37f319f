"""Each side in an environment of its own beside this folder, made on the first run: their requirements exclude each other."""

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TORCH = "torch==2.13.0"  # the same for all


class Unavailable(Exception):
    """A side cannot be installed or started here; says why in one line."""


@dataclass(frozen=True)
class Environment:
    """What to install, an import that shows that it is whole, and packages that come along and do not load on a processor."""

    requirements: tuple[str, ...]
    shown_by: str
    unwanted: tuple[str, ...] = ()


ENVIRONMENTS = {
    "trl": Environment(("trl>=1.16,<2", "transformers>=5.24,<6", "peft>=0.21"), "import trl, peft"),
    # these two releases of lightning were not its authors'
    "litgpt": Environment(("litgpt>=0.5.13,<0.6", "lightning!=2.6.2,!=2.6.3"), "import litgpt.finetune.full"),
    "unsloth": Environment(("unsloth>=2026.10",), "import unsloth", ("torchvision", "xformers", "torchao")),
}


def python(side: str) -> str:
    """The side's Python; ours is the one that runs this."""
    return sys.executable if side == "luthier" else str(HERE.parent / f".venv-{side}" / "bin" / "python")


def variables(side: str) -> dict[str, str]:
    """The environment variables of a side's process: nothing from the hub, and only ours sees our sources."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    own |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    own |= {"UNSLOTH_DISABLE_STATISTICS": "1", "UNSLOTH_FORCE_CPU": "1"}
    return own | {"PYTHONPATH": str(ROOT / "src")} if side == "luthier" else own


def prepare(side: str) -> None:
    """Make the side's environment unless it is there and whole. Raises Unavailable."""
    if side == "luthier" or not _problem(side):
        return
    folder = HERE.parent / f".venv-{side}"
    print(f"installing {side} into {folder.relative_to(ROOT)}, some minutes …", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    install = [python(side), "-m", "pip", "install", "--quiet", TORCH, *ENVIRONMENTS[side].requirements]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{side} does not install here: {last_line(done.stderr)}")
    if unwanted := ENVIRONMENTS[side].unwanted:
        subprocess.run([python(side), "-m", "pip", "uninstall", "--quiet", "--yes", *unwanted], check=True)
    if problem := _problem(side):
        raise Unavailable(f"{side} is installed and does not start here: {problem}")


def last_line(text: str) -> str:
    """The last line that says something, which of a traceback or of pip's output is the reason."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")


def _problem(side: str) -> str:
    """Why the side's environment cannot be used; empty if it can."""
    if not Path(python(side)).exists():
        return "it is not there"
    command = [python(side), "-c", ENVIRONMENTS[side].shown_by]
    done = subprocess.run(command, env=variables(side), capture_output=True, text=True, check=False)
    return last_line(done.stderr) if done.returncode else ""
