"""For vLLM: an adapter beside its base where vLLM takes such an adapter, else the whole model; and the line that serves it.

vLLM's loader refuses DoRA, modules that were trained whole and biases, scales every layer by one alpha and one rank, and
serves ranks up to one of a few sizes (its documentation of LoRA adapters, and its `LoRAConfig`).
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import UserError
from luthier.export.source import Source
from luthier.model import folder as folders

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `--max-lora-rank`."""
TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class Fit:
    """What vLLM can do with a run's model: serve its adapter of this rank, or, for these reasons, only the whole model."""

    rank: int | None
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source) -> "Fit":
        if not source.reference.is_adapter:
            return cls(None)
        settings = json.loads((source.reference.folder / folders.ADAPTER).read_text(encoding="utf-8"))
        reasons = tuple(_reasons(settings))
        if source.recipe.train.method == "qlora":
            reasons += ("it was trained beside a base in 4 bits",)
        return cls(None if reasons else int(settings["r"]), reasons)

    @property
    def as_adapter(self) -> bool:
        return self.rank is not None


def _reasons(settings: Mapping[str, Any]) -> Iterator[str]:
    """Why vLLM would refuse these settings of an adapter, or compute something else with them."""
    if settings.get("peft_type") != "LORA":
        yield f"its kind is {settings.get('peft_type')}, not LORA"
    if settings.get("use_dora"):
        yield "DoRA is not supported"
    if settings.get("modules_to_save"):
        yield "modules that were trained whole are not supported"
    if settings.get("bias", "none") != "none":
        yield "biases are not supported"
    if settings.get("trainable_token_indices"):
        yield "trained tokens are not supported"
    if settings.get("rank_pattern") or settings.get("alpha_pattern"):
        yield "ranks and alphas by pattern are not read"
    if not isinstance(rank := settings.get("r"), int) or rank > RANKS[-1]:
        yield f"its rank is {rank}, at most {RANKS[-1]} can be served"


def serve_line(source: Source, fit: Fit, folder: Path) -> str:
    """The command that serves the exported folder under the run's name."""
    name = source.run.name
    if fit.rank is None:
        words = ["vllm", "serve", str(folder.absolute()), "--served-model-name", name]
    else:
        most = next(size for size in RANKS if size >= fit.rank)
        words = [
            "vllm", "serve", str(source.reference.base.folder), "--enable-lora", "--lora-modules",
            f"{name}={folder.absolute()}", "--max-lora-rank", str(most), "--chat-template",
            str(folder.absolute() / TEMPLATE),
        ]  # fmt: skip
    return shlex.join(words)


def expect_template(folder: Path) -> None:
    """Refuses a folder without the chat template that the line names."""
    if not (folder / TEMPLATE).is_file():
        raise UserError("the run's model has no chat template of its own.", where=str(folder / TEMPLATE))
