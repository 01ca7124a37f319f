"""GGUF files as plain Hugging Face folders: every value of the file is used and understood, or the file is refused.

A GGUF file says in its metadata what config.json and tokenizer.json say elsewhere. Three architectures are read, whose
meaning is the same in transformers and in llama.cpp (github.com/ggml-org/llama.cpp).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from gguf import MODEL_ARCH, get_tensor_name_map
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.utils import logging as transformers_logging

from luthier.errors import UserError
from luthier.model import gguf_file
from luthier.model.folder import readable
from luthier.runs.durable import make_folders, remove_leftovers, system_errors, whole_folder

USE_SAFETENSORS = "Take the model's folder with safetensors instead."
FREQUENCIES = "rope_freqs.weight"
CONTROL, USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type


@dataclass(frozen=True)
class Architecture:
    """How files of one architecture become a model of transformers."""

    config: Callable[..., PreTrainedConfig]
    arch: MODEL_ARCH
    interleaved_rope: bool = False
    """Whether the rows of query and key weights are in llama.cpp's interleaved RoPE order."""


ARCHITECTURES = {
    "llama": Architecture(LlamaConfig, MODEL_ARCH.LLAMA, interleaved_rope=True),
    "qwen2": Architecture(Qwen2Config, MODEL_ARCH.QWEN2),
    "qwen3": Architecture(Qwen3Config, MODEL_ARCH.QWEN3),
}
SETTINGS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
"""Metadata after the architecture's name → the field of transformers' configuration; without these nothing can be computed."""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(*before: pre_tokenizers.PreTokenizer, words: bool = True) -> pre_tokenizers.PreTokenizer:
    """Byte-level pieces behind other cuts; with `words`, cut at GPT-2's words as well."""
    return pre_tokenizers.Sequence([*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)])


def _llama3_pre_tokenizer(most: int) -> pre_tokenizers.PreTokenizer:
    """Llama 3's words, with numbers in pieces of at most so many digits."""
    words = Regex(_WORDS.replace("DIGITS", str(most)))
    return _byte_level(pre_tokenizers.Split(words, behavior="isolated"), words=False)


PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": _byte_level,
    "smollm": lambda: _byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "llama-bpe": lambda: _llama3_pre_tokenizer(3),
    "qwen2": lambda: _llama3_pre_tokenizer(1),
}
"""How text is cut before it is merged, by the word in `tokenizer.ggml.pre`."""


def unpack(file: Path, target: Path) -> None:
    """Turn a GGUF file into a plain Hugging Face folder, once; a half-written one never has the target's name."""
    make_folders(target.parent)
    with FileLock(target.with_name(f".{target.name}.lock")):  # a second process waits, and finds it done
        if target.is_dir():
            return
        remove_leftovers(target.parent)
        transformers_logging.disable_progress_bar()
        model, tokenizer = read(file)
        with whole_folder(target) as temporary, system_errors():
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)


def read(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model in a GGUF file, its weights widened to fp32, and its tokenizer with the chat template."""
    stored = gguf_file.read(file)
    metadata = stored.metadata
    name, parts = metadata.get("general.architecture"), metadata.get("split.count", 1)
    if parts > 1:
        message = (
            f"this is one of {parts} parts of a split GGUF file; Luthier does not read split files. {USE_SAFETENSORS}"
        )
        raise UserError(message, where=str(file))
    if name not in ARCHITECTURES:
        message = (
            f"a GGUF file of the architecture {name}; those of {', '.join(ARCHITECTURES)} are read. {USE_SAFETENSORS}"
        )
        raise UserError(message, where=str(file))
    with readable("the GGUF file", str(file), f" {USE_SAFETENSORS}"):
        weights = {each: torch.from_numpy(stored.numbers(each).copy()) for each in stored.tensors}
        config = _config(metadata, weights, file)
        model = _model_with_weights(config, ARCHITECTURES[name], weights, file)
        tokenizer = _tokenizer(metadata, file)
        model.generation_config = GenerationConfig(
            bos_token_id=config.bos_token_id, pad_token_id=config.pad_token_id, eos_token_id=_end_token_ids(metadata)
        )
    return model, tokenizer


def _config(metadata: Mapping[str, Any], weights: dict[str, Tensor], file: Path) -> PreTrainedConfig:
    """The configuration that the metadata describes; refuses whatever it has no place for."""
    name = metadata["general.architecture"]
    kind = ARCHITECTURES[name].config
    stated = {key.removeprefix(f"{name}."): value for key, value in metadata.items() if key.startswith(f"{name}.")}
    if lacking := [key for key in SETTINGS if key not in stated]:
        raise UserError(f"the GGUF file does not state {name}.{lacking[0]}. {USE_SAFETENSORS}", where=str(file))
    fields = {field: stated.pop(key) for key, field in SETTINGS.items()}
    blocks = {each.split(".")[1] for each in weights if each.startswith("blk.")}
    if fields["num_hidden_layers"] != len(blocks):  # before a model of that size is made
        raise UserError(
            f"the GGUF file states {name}.block_count = {fields['num_hidden_layers']:,}, and has {len(blocks):,} blocks. "
            f"{USE_SAFETENSORS}",
            where=str(file),
        )
    head_dim = stated.pop("attention.key_length", fields["hidden_size"] // fields["num_attention_heads"])
    theta = float(stated.pop("rope.freq_base", 10_000.0))
    expected = {
        "attention.value_length": head_dim, "rope.dimension_count": head_dim, "rope.scaling.type": "none", "expert_count": 0,
        "vocab_size": len(weights["token_embd.weight"]), "attention.causal": True,
    }  # fmt: skip
    odd = {key: value for key, value in stated.items() if key not in expected or value != expected[key]}
    if odd:
        message = ", ".join(f"{name}.{key} = {value}" for key, value in odd.items())
        raise UserError(
            f"the GGUF file has settings that Luthier does not support: {message}. {USE_SAFETENSORS}", where=str(file)
        )
    rope = {"rope_type": "default", "rope_theta": theta}
    if FREQUENCIES in weights:
        rope |= _llama3_rope(weights.pop(FREQUENCIES), head_dim, theta, file)
    numbers = {"bos": "bos", "eos": "eos", "pad": "padding"}
    config = kind(
        **fields, head_dim=head_dim, rope_parameters=rope, vocab_size=expected["vocab_size"],
        tie_word_embeddings="output.weight" not in weights,
        **{f"{ours}_token_id": metadata.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in numbers.items()},
    )  # fmt: skip
    if kind is LlamaConfig:
        config.attention_bias, config.mlp_bias = "blk.0.attn_q.bias" in weights, "blk.0.ffn_up.bias" in weights
    return config


def _llama3_rope(factors: Tensor, head_dim: int, theta: float, file: Path) -> dict[str, Any]:
    """Llama 3's scaling of positions, if that is what these factors of the frequencies come from.

    The file has the factors only. They are computed again from what Llama 3.1 and 3.2 were published with, and must agree.
    """
    low, high, original = 1.0, 4.0, 8192
    factor = float(factors.max())
    lengths = 2 * math.pi * theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    smooth = ((original / lengths - low) / (high - low)).clamp(0, 1)
    computed = 1 / ((1 - smooth) / factor + smooth)
    if factors.shape != computed.shape or not torch.allclose(factors.double(), computed, rtol=1e-4):
        message = f"its positions are scaled by {FREQUENCIES} in another way than Llama 3's"
        raise UserError(f"{message}, which Luthier does not read from a GGUF file. {USE_SAFETENSORS}", where=str(file))
    return {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }  # fmt: skip


def _model_with_weights(
    config: PreTrainedConfig, architecture: Architecture, weights: dict[str, Tensor], file: Path
) -> PreTrainedModel:
    """A model with the file's weights; refuses one that lacks any, or has more than the model has places for."""
    names = get_tensor_name_map(architecture.arch, config.num_hidden_layers)
    with torch.device("meta"):
        sizes = {ours: weight.shape for ours, weight in AutoModelForCausalLM.from_config(config).state_dict().items()}
    state, lacking = {}, []
    for ours in sizes:
        theirs = names.get_name(ours, try_suffixes=(".weight", ".bias"))
        if ours == "lm_head.weight" and config.tie_word_embeddings:
            theirs = "token_embd.weight"
        if theirs is None or theirs not in weights:
            lacking.append(ours)
        else:
            state[ours] = (
                _to_half_split_rope(weights[theirs], theirs, config)
                if architecture.interleaved_rope
                else weights[theirs]
            )
    used = {names.get_name(ours, try_suffixes=(".weight", ".bias")) for ours in state}
    left = sorted(weights.keys() - used)
    if lacking or left:
        faults = [f"lacks {name}" for name in lacking[:1]] + [f"holds {name}, which has no place" for name in left[:1]]
        raise UserError(f"the GGUF file {' and '.join(faults)}. {USE_SAFETENSORS}", where=str(file))
    for ours, size in sizes.items():  # before memory is taken for what the metadata claim
        if state[ours].shape != size:
            raise UserError(
                f"the GGUF file's weights do not fit its metadata: {ours} has the sizes {tuple(state[ours].shape)}, by these "
                f"it would have {tuple(size)}. {USE_SAFETENSORS}",
                where=str(file),
            )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(state)
    return model


def _to_half_split_rope(weight: Tensor, name: str, config: PreTrainedConfig) -> Tensor:
    """Queries' and keys' rows in transformers' order: first all first halves of a head's pairs, then all second ones."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return weight
    pairs = weight.reshape(heads, -1, 2, *weight.shape[1:])  # head, pair, one of two, …
    return pairs.transpose(1, 2).reshape(weight.shape)


def _end_token_ids(metadata: Mapping[str, Any]) -> list[int]:
    """The tokens that end an answer: of the text, of a turn, and of a message that calls a function."""
    keys = ("eos_token_id", "eot_token_id", "eom_token_id")
    return sorted({metadata[key] for end in keys if (key := f"tokenizer.ggml.{end}") in metadata})


def _tokenizer(metadata: Mapping[str, Any], file: Path) -> PreTrainedTokenizerFast:
    """The file's byte-level tokenizer; refuses one that cuts text in a way that is not known here."""
    stated = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    kind, cut = stated.get("model"), stated.get("pre")
    if kind != "gpt2" or cut not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        message = (
            f'its tokenizer is "{kind}" and cuts text as "{cut}" (tokenizer.ggml.pre); Luthier knows gpt2 with {known}'
        )
        raise UserError(f"{message}. {USE_SAFETENSORS}", where=str(file))
    tokens: list[str] = stated["tokens"]
    merges = [tuple(merge.split(" ")) for merge in stated["merges"]]
    coder = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    if cut == "qwen2":
        coder.normalizer = normalizers.NFC()
    coder.pre_tokenizer, coder.decoder = PRE_TOKENIZERS[cut](), decoders.ByteLevel()
    for special in (True, False):
        wanted = CONTROL if special else USER_DEFINED
        added = [token for token, kind in zip(tokens, stated["token_type"], strict=True) if kind == wanted]
        coder.add_tokens([AddedToken(token, special=special, normalized=False) for token in added])
    roles = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    named = {
        f"{ours}_token": tokens[stated[key]] for word, ours in roles.items() if (key := f"{word}_token_id") in stated
    }
    if stated.get("add_bos_token", cut == "llama-bpe") and "bos_token" in named:
        bos = named["bos_token"]
        coder.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, stated["bos_token_id"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=coder, chat_template=metadata.get("tokenizer.chat_template"), clean_up_tokenization_spaces=False,
        **named,
    )  # fmt: skip
