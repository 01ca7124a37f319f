"""A LoRA adapter as a GGUF file, which llama.cpp puts beside a GGUF file of the base.

The format has pairs of matrices and one alpha for all; llama.cpp scales each pair by alpha through its rank. So rsLoRA, and
alphas or ranks by pattern, are written as that alpha or into the second matrix. What it has no place for is refused.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM

from luthier.errors import UserError
from luthier.export.gguf import file as files
from luthier.export.gguf import types
from luthier.export.gguf.families import Family, Metadata, family_of
from luthier.export.gguf.file import NewTensor
from luthier.export.source import Source
from luthier.model.folder import readable
from luthier.model.loading import BASE_QUANTIZATION

WEIGHTS = "adapter_model.safetensors"
PAIR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
FORMATS = ("f32", "f16", "bf16")
MERGE = "Export the merged model instead: --to gguf."
KEYS = {
    "lora_magnitude_vector": "DoRA's magnitudes",
    "lora_embedding": "an adapter of the embeddings",
    "modules_to_save": "a module that was trained whole",
    "token_adapter": "embeddings of single tokens",
    "lora_B.bias": "biases of the adapter's own",
}
"""Parts of names in an adapter's file for which GGUF has no place, in words."""


def write(source: Source, out: Path, *, number_format: str) -> None:
    """Write the run's adapter; refuses one that does more than to add pairs of matrices to linear layers."""
    if number_format not in FORMATS:
        raise UserError(f"an adapter is written as {', '.join(FORMATS)}, not as {number_format}.", where="--type")
    config = source.reference.config.get_text_config()
    family = family_of(config, source.name)
    pairs = read(source, config, family)
    ranks = {len(down) for down, _, _ in pairs.values()}
    scales = {scale for _, _, scale in pairs.values()}
    alpha = scales.copy().pop() * ranks.copy().pop() if len(scales) == len(ranks) == 1 else 1.0
    metadata: Metadata = {
        "general.type": "adapter", "general.finetune": source.run.name, "adapter.type": "lora", "adapter.lora.alpha": alpha,
        "general.file_type": int(types.TYPES[number_format][1]),
    }  # fmt: skip
    files.write(out, family.word, metadata, _tensors(pairs, alpha, types.TYPES[number_format][0]))


def _tensors(pairs: dict[str, tuple[Tensor, Tensor, float]], alpha: float, kind: types.Type) -> Iterator[NewTensor]:
    """Both halves of each pair; what a pair's scale is beyond alpha through its rank goes into the second."""
    for name, (down, up, scale) in pairs.items():
        rest = scale * len(down) / alpha
        for half, weight in (("a", down), ("b", up if rest == 1 else up.float() * rest)):
            yield NewTensor(f"{name}.lora_{half}", tuple(weight.shape), kind, partial(_piece, weight, kind, name))


def _piece(weight: Tensor, kind: types.Type, name: str) -> Iterator[types.Bytes]:
    yield types.encode(weight, kind, name)


def read(source: Source, config: Any, family: Family) -> dict[str, tuple[Tensor, Tensor, float]]:
    """The adapter's pairs of matrices in llama.cpp's layout by the weight's name in the file, and each pair's scale."""
    folder, name = source.reference.folder, source.name
    if (folder / BASE_QUANTIZATION).is_file():
        raise UserError(
            f"the adapter was trained beside a base in 4 bits, which a GGUF file of the base is not. {MERGE}",
            where=name,
        )
    with readable("the adapter", name), safe_open(folder / WEIGHTS, framework="pt", device="cpu") as opened:
        halves: dict[str, dict[str, Tensor]] = {}
        for key in sorted(opened.keys()):
            match = PAIR.fullmatch(key)
            if match is None:
                what = next(
                    (words for part, words in KEYS.items() if part in key), "a weight beside its pairs of matrices"
                )
                raise UserError(f"a GGUF adapter has no place for {what} ({key}). {MERGE}", where=name)
            halves.setdefault(match["module"], {})[match["half"]] = opened.get_tensor(key)
        scales, theirs = _scales(folder, config), family.names(config)
        pairs = {}
        for module, both in halves.items():
            target = theirs(f"{module}.weight")
            if target is None or not target.startswith("blk."):
                raise UserError(f"a GGUF adapter has no place for a pair beside {module}. {MERGE}", where=name)
            up = family.layout(f"{module}.weight", both["B"], config)
            pairs[target] = both["A"], up, scales[module]
    return pairs


def _scales(folder: Path, config: Any) -> dict[str, float]:
    """By what peft multiplies each pair: it decides that itself, on a model without numbers."""
    settings = PeftConfig.from_pretrained(str(folder))
    assert isinstance(settings, LoraConfig)
    with torch.device("meta"):
        adapted: Any = get_peft_model(AutoModelForCausalLM.from_config(config), settings)
    modules = adapted.base_model.model.named_modules()
    return {name: float(module.scaling["default"]) for name, module in modules if hasattr(module, "lora_A")}
