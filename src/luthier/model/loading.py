"""A model with its tokenizer and template, ready to answer; and how it is saved."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from luthier.chat import Template
from luthier.durable import digest, system_errors, whole_folder
from luthier.errors import Mistake
from luthier.model import memory
from luthier.model.device import pick_device
from luthier.model.head import CausalModel
from luthier.model.reference import check, resolve
from luthier.model.tokenizer import template_of

WEIGHED = ("*.safetensors", "*config.json")
MADE_OF = (*WEIGHED, "tokenizer.*", "*vocab.*", "merges.txt", "*.jinja", "*_token*.json", "*.index.json")


@dataclass(eq=False)
class LanguageModel:
    """A loaded model. `folder` is where its files are; of an adapter, the adapter's."""

    name: str
    folder: Path
    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    template: Template

    @property
    def context(self) -> int:
        """Most tokens that the model can look back on."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or 2048)

    @property
    def device(self) -> torch.device:
        return self.model.device


def load(name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> LanguageModel:
    """The model of this name on the device, in evaluation mode.

    Answers are computed in fp32 unless the caller asks otherwise: then a question gets the same answer alone, in any batch and
    in plain transformers, which bf16's rounding does not give.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    folder = resolve(name)
    device = device or pick_device()
    try:
        with memory.errors(f"to load the model {name}"):
            if (folder / "adapter_config.json").is_file():
                base = check(_base_of(folder), str(folder))
                plain = AutoModelForCausalLM.from_pretrained(
                    base, dtype=dtype, use_safetensors=True, trust_remote_code=False
                )
                model: CausalModel = PeftModel.from_pretrained(plain, str(folder))
            else:
                model = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=dtype, use_safetensors=True, trust_remote_code=False
                )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise Mistake(f"cannot load the model: {str(error).strip().splitlines()[0]}", where=name) from error
    nn.Module.to(model, device)
    model.eval()
    return LanguageModel(name, folder, model, tokenizer, template_of(tokenizer))


def load_template(name: str) -> tuple[Template, int]:
    """A model's template and context length, without its weights."""
    folder = resolve(name)
    config_folder = _base_of(folder) if (folder / "adapter_config.json").is_file() else folder
    config = AutoConfig.from_pretrained(config_folder, trust_remote_code=False)
    context = int(getattr(config, "max_position_embeddings", None) or 2048)
    return template_of(AutoTokenizer.from_pretrained(folder, trust_remote_code=False)), context


def parameters_of(name: str) -> int:
    """How many parameters a model has, from its configuration alone; tied weights count once."""
    folder = resolve(name)
    config = AutoConfig.from_pretrained(_base_of(folder) if (folder / "adapter_config.json").is_file() else folder)
    with torch.device("meta"):
        return sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())


def add_adapters(model: CausalModel, *, rank: int, alpha: int, seed: int) -> PeftModel:
    """The model with fresh LoRA adapters (Hu et al. 2021) beside every linear layer of its blocks; only they can learn."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0)
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def save(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    folder: Path,
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Write a Hugging Face folder (or peft adapter folder) with these fp32 weights and the template, whole or not at all."""
    tokenizer.chat_template = template.source
    with whole_folder(folder) as unborn:
        with torch.no_grad():
            nn.Module.to(model, torch.float32)
            for name, parameter in model.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        with system_errors():
            model.save_pretrained(str(unborn), safe_serialization=True)
            tokenizer.save_pretrained(unborn)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that makes a model: weights, configuration, tokenizer, template; of an adapter, its base's too."""
    found = {path.name: digest(path) for pattern in MADE_OF for path in sorted(folder.glob(pattern))}
    if (folder / "adapter_config.json").is_file():
        base = _base_of(folder)
        found |= {str(base / name): value for name, value in digests(base).items()}
    return found


def fingerprint(folder: Path) -> str:
    """SHA-256 over a model folder's weights and configuration, file by file in the order of their names."""
    return fingerprint_of({file.name: digest(file) for pattern in WEIGHED for file in folder.glob(pattern)})


def fingerprint_of(files: Mapping[str, str]) -> str:
    """The fingerprint of a folder from the SHA-256 of its files."""
    names = sorted(name for name in files if "/" not in name and any(fnmatch(name, pattern) for pattern in WEIGHED))
    return hashlib.sha256("".join(f"{name}:{files[name]}\n" for name in names).encode()).hexdigest()


def _base_of(folder: Path) -> Path:
    """The base model's folder of an adapter."""
    settings: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return resolve(str(settings["base_model_name_or_path"]))
