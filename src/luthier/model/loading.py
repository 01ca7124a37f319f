"""A model's weights with its tokenizer and template, ready to answer or to be trained; and how it is saved."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import BitsAndBytesConfig, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from luthier.chat import Template
from luthier.errors import UserError
from luthier.extensions import import_optional
from luthier.model import folder as folders
from luthier.model import identity, memory, weights
from luthier.model.causal import CausalModel
from luthier.model.device import pick_device
from luthier.model.reference import ModelReference
from luthier.runs.durable import system_errors, whole_folder, write_atomic

BASE_QUANTIZATION = "base_quantization_config.json"
"""Beside an adapter that was trained on a base in 4 bits: how the base is to be read."""
BF16_KERNEL = "support_avx512bf16_for_cpu"
"""bitsandbytes' switch for a kernel on processors that rounds answers to bf16 and after which weights pass no gradient."""


@dataclass(eq=False)
class LanguageModel:
    """A loaded model with its tokenizer and its chat template."""

    reference: ModelReference
    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    template: Template
    notes: tuple[str, ...] = ()
    """What is worth knowing about its files: names that were repaired, weights that nothing uses."""

    @property
    def name(self) -> str:
        return self.reference.name

    @property
    def folder(self) -> Path:
        """Where its files are; of an adapter, the adapter's."""
        return self.reference.folder

    @property
    def context(self) -> int:
        """Most tokens that the model can look back on."""
        return folders.context_of(self.model.config)

    @property
    def device(self) -> torch.device:
        return self.model.device


def load(
    reference: ModelReference | str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    quantised: bool = False,
    merged: bool = False,
    variables: Mapping[str, object] | None = None,
    today: date | None = None,
) -> LanguageModel:
    """The model on the device, in evaluation mode; its chat template sees these variables and this date.

    `quantised` reads a whole model's matrices in 4 bits (NF4); an adapter's base is read as it was when the adapter was
    trained. `merged` makes one whole model of an adapter and its base.

    Answers are computed in fp32 unless the caller asks otherwise. Its rounding is too small to decide between two tokens
    unless they are nearly equal, so that a greedy answer is the same alone, in any batch and in plain transformers; in
    bf16 it often is not.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if isinstance(reference, str):
        reference = ModelReference.of(reference)
    name, folder, device = reference.name, reference.folder, device or pick_device()
    with memory.explain_out_of_memory(f"to load the model {name}"):
        if reference.is_adapter:
            base_in_4bit = (folder / BASE_QUANTIZATION).is_file()
            base, notes = _read_full_model(reference.base.folder, name, dtype, device, quantised=base_in_4bit)
            if merged and base_in_4bit:
                base = base.dequantize(dtype)
            adapted, more = weights.adapt(base, folder, name)
            notes += more
            weights.expect_finite(adapted, name)
            model: CausalModel = adapted.merge_and_unload() if merged else adapted
        else:
            model, notes = _read_full_model(folder, name, dtype, device, quantised=quantised)
            weights.expect_finite(model, name)
    model.eval()
    template = reference.template(variables=variables, today=today)
    return LanguageModel(reference, model, reference.tokenizer, template, tuple(notes))


def _read_full_model(
    folder: Path, name: str, dtype: torch.dtype, device: torch.device, *, quantised: bool
) -> tuple[PreTrainedModel, list[str]]:
    """A whole model; with `quantised`, its linear layers but the head in 4 bits, which compute in `dtype`."""
    if not quantised:
        model, notes = weights.read(folder, name, dtype=dtype)
        nn.Module.to(model, device)
        return model, notes
    import_optional("bitsandbytes", "quantised", where=str(folder))
    bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model, notes = weights.read(folder, name, dtype=dtype, quantization_config=bits, device_map={"": device})
    for module in model.modules():
        if hasattr(module, BF16_KERNEL):
            setattr(module, BF16_KERNEL, False)
    return model, notes


def load_adapters(
    base: str, adapters: Sequence[str], *, variables: Mapping[str, object] | None = None, today: date | None = None
) -> tuple[LanguageModel, list[str]]:
    """One base model with several adapters beside it, and peft's names for them in their order.

    Refuses an adapter that was trained on another base, or on this one in another form.
    """
    references = [ModelReference.of(adapter) for adapter in adapters]
    for adapter in references:
        if not adapter.is_adapter:
            raise UserError(
                "a whole model, not an adapter; tune with train.method=lora to share one base.", where=adapter.name
            )
    base_in_4bit = [(adapter.folder / BASE_QUANTIZATION).is_file() for adapter in references]
    lm = load(base, quantised=any(base_in_4bit), variables=variables, today=today)
    wanted = identity.fingerprint(lm.folder)
    for adapter, bits in zip(references, base_in_4bit, strict=True):
        if identity.fingerprint(adapter.base.folder) != wanted or bits != any(base_in_4bit):
            how = " in 4 bits" if bits else ""
            raise UserError(
                f"this adapter was trained beside another base{how}, not beside {base}.", where=adapter.name
            )
    names = [f"adapter{number}" for number in range(len(references))]
    for adapter, own_name in zip(references, names, strict=True):
        model, notes = weights.adapt(lm.model, adapter.folder, adapter.name, adapter=own_name)
        weights.expect_finite(model, adapter.name)
        model.set_adapter(names[0])
        lm = replace(lm, model=model.eval(), notes=(*lm.notes, *notes))
    return lm, names


def merge(
    adapter: ModelReference, folder: Path, *, variables: Mapping[str, object] | None = None, today: date | None = None
) -> None:
    """Write the whole model that an adapter and its base make together, in fp32."""
    if not adapter.is_adapter:
        raise UserError("there is nothing to merge: this is a whole model, not an adapter.", where=adapter.name)
    lm = load(adapter, merged=True, device=torch.device("cpu"), variables=variables, today=today)
    save(lm.model, lm.tokenizer, lm.template, folder, {})


def add_adapters(model: CausalModel, *, rank: int, alpha: int, seed: int, dora: bool = False) -> PeftModel:
    """The model with fresh LoRA or DoRA adapters beside every linear layer of its blocks; only they are trained."""
    torch.manual_seed(seed if seed < 2**32 else _mixed(seed))
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0, use_dora=dora
    )
    with _without_future_warnings():
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def _mixed(seed: int) -> int:
    """32 bits that depend on all of a larger seed's; torch's generator on a processor would take the lower ones."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


@contextmanager
def _without_future_warnings() -> Iterator[None]:
    """Silences FutureWarnings: peft calls deprecated parts of transformers, and a user cannot change that."""
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
    """Write a Hugging Face folder (or peft adapter folder) with these fp32 weights and the template, whole or not at all.

    Its generation_config.json names every token that ends an answer, so that other programs stop where ours do.
    """
    generation = _generation(model, template)
    with whole_folder(folder) as temporary, _chat_template(tokenizer, template.portable_source):
        with torch.no_grad():
            if not isinstance(model, PeftModel):
                nn.Module.to(model, torch.float32)
            for name, parameter in model.named_parameters():
                if name in weights:
                    parameter.data = parameter.data.float().copy_(weights[name])  # adapters may have computed in bf16
        with system_errors(), _default_generation_config(model):
            model.save_pretrained(str(temporary), safe_serialization=True)
            if isinstance(model, PeftModel):
                _write_base_reference(model, temporary, folder)
            tokenizer.save_pretrained(temporary)
        write_atomic(temporary / folders.GENERATION, json.dumps(generation, indent=2, sort_keys=True) + "\n")


@contextmanager
def _chat_template(tokenizer: PreTrainedTokenizerBase, source: str) -> Iterator[None]:
    """Inside, the tokenizer has this chat template."""
    own = tokenizer.chat_template
    tokenizer.chat_template = source
    try:
        yield
    finally:
        tokenizer.chat_template = own


@contextmanager
def _default_generation_config(model: CausalModel) -> Iterator[None]:
    """Inside, the model has no settings to generate with: transformers refuses to save some that it has read."""
    known = model.generation_config
    model.generation_config = GenerationConfig()
    yield
    model.generation_config = known


def _generation(model: CausalModel, template: Template) -> dict[str, Any]:
    """The model's own generation_config.json, as it was but for the ends: all that answers were trained to end with."""
    known = model.generation_config
    assert isinstance(known, GenerationConfig)
    ends = known.eos_token_id if isinstance(known.eos_token_id, list) else [known.eos_token_id]
    settings: dict[str, Any] = known.to_diff_dict()
    return settings | {"eos_token_id": sorted({*template.stop_ids, *(end for end in ends if isinstance(end, int))})}


def _write_base_reference(model: PeftModel, temporary: Path, folder: Path) -> None:
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
        write_atomic(temporary / BASE_QUANTIZATION, text + "\n")
