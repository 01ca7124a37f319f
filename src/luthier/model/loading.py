"""A model with its tokenizer and template, ready to answer; and how it is saved."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from luthier.chat import Template
from luthier.durable import digest, system_errors, whole_folder, write_atomic
from luthier.errors import Mistake, optional
from luthier.model import memory
from luthier.model.blueprint import Blueprint
from luthier.model.device import pick_device
from luthier.model.head import CausalModel
from luthier.model.reference import check, resolve
from luthier.model.tokenizer import template_of

WEIGHED = ("*.safetensors", "*config.json")
MADE_OF = (*WEIGHED, "tokenizer.*", "*vocab.*", "merges.txt", "*.jinja", "*_token*.json", "*.index.json")

BASE_BITS = "base_quantization_config.json"  # beside an adapter: in what form its base was read when it learnt
BF16_KERNEL = "support_avx512bf16_for_cpu"
"""bitsandbytes' switch for a kernel on processors that rounds answers to bf16 and after which weights pass no gradient."""


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


def load(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    quantised: bool = False,
    merged: bool = False,
) -> LanguageModel:
    """The model of this name on the device, in evaluation mode.

    `quantised` reads a whole model's matrices in 4 bits (NF4); an adapter's base is read as it was when the adapter learnt.
    `merged` makes one whole model of an adapter and its base.

    Answers are computed in fp32 unless the caller asks otherwise: then a question gets the same answer alone, in any batch and
    in plain transformers, which bf16's rounding does not give.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    folder = resolve(name)
    device = device or pick_device()
    try:
        with memory.errors(f"to load the model {name}"):
            if _is_adapter(folder):
                in_bits = (folder / BASE_BITS).is_file()
                plain = _whole(check(_base_of(folder), str(folder)), dtype, device, quantised=in_bits)
                if merged and in_bits:
                    plain = plain.dequantize(dtype)
                with _older_words():
                    model: CausalModel = PeftModel.from_pretrained(plain, str(folder))
                if merged:
                    model = model.merge_and_unload()  # type: ignore[operator]
            else:
                model = _whole(folder, dtype, device, quantised=quantised)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise Mistake(f"cannot load the model: {str(error).strip().splitlines()[0]}", where=name) from error
    model.eval()
    return LanguageModel(name, folder, model, tokenizer, template_of(tokenizer))


def _whole(folder: Path, dtype: torch.dtype, device: torch.device, *, quantised: bool) -> PreTrainedModel:
    """A whole model; with `quantised`, its linear layers but the head in 4 bits, which compute in `dtype`."""
    named: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    if not quantised:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, **named)
        nn.Module.to(model, device)
        return model
    optional("bitsandbytes", "quantised", where=str(folder))
    bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=bits, device_map={"": device}, **named)
    for module in model.modules():
        if hasattr(module, BF16_KERNEL):
            setattr(module, BF16_KERNEL, False)
    return model


def load_adapters(name: str, adapters: Sequence[str]) -> tuple[LanguageModel, list[str]]:
    """One base model with several adapters beside it, and peft's names for them in their order.

    Refuses an adapter that learnt beside another base, or beside this one in another form.
    """
    folders = [resolve(adapter) for adapter in adapters]
    for adapter, folder in zip(adapters, folders, strict=True):
        if not _is_adapter(folder):
            raise Mistake(
                "a whole model, not an adapter; tune with train.method=lora to share one base.", where=adapter
            )
    bits = {adapter: (folder / BASE_BITS).is_file() for adapter, folder in zip(adapters, folders, strict=True)}
    lm = load(name, quantised=any(bits.values()))
    wanted = fingerprint(lm.folder)
    for adapter in adapters:
        if fingerprint(_base_of(resolve(adapter))) != wanted or bits[adapter] != any(bits.values()):
            how = " in 4 bits" if bits[adapter] else ""
            raise Mistake(f"this adapter learnt beside another base{how}, not beside {name}.", where=adapter)
    names = [f"adapter{number}" for number in range(len(folders))]
    with _older_words():
        model = PeftModel.from_pretrained(lm.model, str(folders[0]), adapter_name=names[0])
        for folder, own_name in zip(folders[1:], names[1:], strict=True):
            model.load_adapter(str(folder), adapter_name=own_name)
    model.eval()
    return replace(lm, model=model), names


def merge(name: str, folder: Path) -> None:
    """Write the whole model that an adapter and its base make together, in fp32."""
    if not is_adapter(name):
        raise Mistake("there is nothing to merge: this is a whole model, not an adapter.", where=name)
    lm = load(name, merged=True, device=torch.device("cpu"))
    save(lm.model, lm.tokenizer, lm.template, folder, {})


def is_adapter(name: str) -> bool:
    """Whether a model is an adapter beside a base, and not whole."""
    return _is_adapter(resolve(name))


def load_template(name: str) -> tuple[Template, int]:
    """A model's template and context length, without its weights."""
    folder = resolve(name)
    config_folder = _base_of(folder) if _is_adapter(folder) else folder
    config = AutoConfig.from_pretrained(config_folder, trust_remote_code=False)
    context = int(getattr(config, "max_position_embeddings", None) or 2048)
    return template_of(AutoTokenizer.from_pretrained(folder, trust_remote_code=False)), context


def blueprint_of(name: str) -> Blueprint:
    """What a model is made of, for which its configuration is enough; of an adapter, what its base is made of."""
    folder = resolve(name, weights=False)
    config = AutoConfig.from_pretrained(_base_of(folder) if _is_adapter(folder) else folder, trust_remote_code=False)
    return Blueprint.of(config)


def add_adapters(model: CausalModel, *, rank: int, alpha: int, seed: int, dora: bool = False) -> PeftModel:
    """The model with fresh LoRA or DoRA adapters beside every linear layer of its blocks; only they can learn."""
    torch.manual_seed(seed if seed < 2**32 else _mixed(seed))
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0, use_dora=dora
    )
    with _older_words():
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def _mixed(seed: int) -> int:
    """32 bits that depend on all of a larger seed's; torch's generator on a processor would take the lower ones."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


@contextmanager
def _older_words() -> Iterator[None]:
    """Inside, peft asks transformers in words that these call deprecated, which no user of ours can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def save(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    folder: Path,
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Write a Hugging Face folder (or peft adapter folder) with these fp32 weights and the template, whole or not at all."""
    tokenizer.chat_template = template.portable_source
    with whole_folder(folder) as unborn:
        with torch.no_grad():
            if not isinstance(model, PeftModel):
                nn.Module.to(model, torch.float32)
            for name, parameter in model.named_parameters():
                if name in weights:
                    parameter.data = parameter.data.float().copy_(weights[name])  # adapters may have computed in bf16
        with system_errors():
            model.save_pretrained(str(unborn), safe_serialization=True)
            if isinstance(model, PeftModel):
                _note_base(model, unborn, folder)
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


def _note_base(model: PeftModel, temporary: Path, folder: Path) -> None:
    """How an adapter finds its base again: by a relative path where both are in one run, and in 4 bits if it was so."""
    path = temporary / "adapter_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    base = Path(str(settings["base_model_name_or_path"]))
    if base.resolve().parent == folder.resolve().parent:
        settings["base_model_name_or_path"] = f"../{base.name}"
        write_atomic(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")
    bits = getattr(model.config, "quantization_config", None)
    if bits is not None:
        text = json.dumps({**bits.to_dict(), "bnb_4bit_compute_dtype": "float32"}, indent=2)
        write_atomic(temporary / BASE_BITS, text + "\n")


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _base_of(folder: Path) -> Path:
    """The base model's folder of an adapter."""
    settings: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    name = str(settings["base_model_name_or_path"])
    beside = folder / name
    return resolve(str(beside) if name.startswith("../") and beside.is_dir() else name)
