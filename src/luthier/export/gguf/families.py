"""Families of models that are written as GGUF: how llama.cpp names their settings, and how it lays out their weights.

A setting of a configuration that llama.cpp has no place for is refused by name, never left out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map
from torch import Tensor

from luthier.errors import UserError

Value = bool | int | float | str | list[Any]
Metadata = dict[str, Value]
FREQUENCIES = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
GEMMA_PATTERN = 6  # in llama.cpp, of Gemma 3: five layers with a window, then one without
GEMMA_LOCAL_THETA = 10_000.0  # and their frequencies there
SUFFIXES = (".weight", ".bias")
YARN = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"}
"""What YaRN may state: for all else llama.cpp takes what transformers takes by itself."""


@dataclass(frozen=True)
class Family:
    """A family of models in transformers, and how llama.cpp knows it."""

    arch: MODEL_ARCH
    settings: Callable[[Any], Metadata]
    """From the configuration to llama.cpp's settings without the architecture's name in front."""
    layout: Callable[[str, Tensor, Any], Tensor] = lambda name, weight, config: weight
    """A weight by its name in transformers, as llama.cpp has it."""
    separate_head: bool = False
    """Whether llama.cpp wants a head of its own where a model shares it with its embeddings."""

    @property
    def word(self) -> str:
        """The architecture's name in the file."""
        return MODEL_ARCH_NAMES[self.arch]

    def names(self, config: Any) -> Callable[[str], str | None]:
        """From a weight's name in transformers to its name in the file; None where there is no place for it."""
        found = get_tensor_name_map(self.arch, config.num_hidden_layers)
        return lambda name: found.get_name(name, try_suffixes=SUFFIXES)


def family_of(config: Any, name: str) -> Family:
    """The family of a configuration; refuses one that is not written here."""
    kind = config.model_type
    if kind not in FAMILIES:
        raise UserError(
            f'the architecture "{kind}" cannot be written as GGUF and checked: Luthier knows {", ".join(FAMILIES)}. '
            "Export it as safetensors (--to merged), and convert that with llama.cpp's own script.",
            where=name,
        )
    return FAMILIES[kind]


def metadata_of(config: Any, family: Family, name: str) -> Metadata:
    """All settings of a model with the architecture's name in front."""
    settings = {
        "context_length": config.max_position_embeddings, "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "vocab_size": config.vocab_size,
    }  # fmt: skip
    try:
        settings |= family.settings(config)
    except Unwritable as problem:
        raise UserError(
            f"llama.cpp has no place for {problem}; the file would compute something else.", where=name
        ) from None
    return {f"{family.word}.{key}": value for key, value in settings.items()}


def frequency_factors(config: Any) -> dict[str, Tensor]:
    """Tensors that scale the frequencies of positions, where a model has such (Llama 3's, Phi-3's long ones)."""
    rope = _rope(config)
    if rope["rope_type"] == "llama3":
        return {FREQUENCIES: _llama3_factors(rope, head_dim(config))}
    if rope["rope_type"] == "longrope":
        return {LONG: torch.tensor(rope["long_factor"]), SHORT: torch.tensor(rope["short_factor"])}
    return {}


def head_dim(config: Any) -> int:
    """Numbers of a head's queries."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


class Unwritable(Exception):
    """A setting for which the format has no place, in words."""


def _expect(config: Any, **wanted: Any) -> None:
    """Refuses a setting with another value than the only one that llama.cpp computes with."""
    for key, value in wanted.items():
        found = getattr(config, key, value)
        if found != value and found is not None:
            raise Unwritable(f"{key} = {found} (it computes with {value})")


def _rope(config: Any, layer_type: str | None = None) -> dict[str, Any]:
    parameters = dict(config.rope_parameters or {})
    if layer_type in parameters:
        parameters = dict(parameters[layer_type])
    return {"rope_type": "default", "rope_theta": 10_000.0, **parameters}


def _attention(config: Any, epsilon: str = "layer_norm_rms_epsilon", field: str = "rms_norm_eps") -> Metadata:
    """What most families share: heads and the size of their keys, the norms' epsilon, the positions."""
    size = head_dim(config)
    return {
        "attention.head_count_kv": getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        f"attention.{epsilon}": float(getattr(config, field)),
        "attention.key_length": size, "attention.value_length": size, "rope.dimension_count": size,
    }  # fmt: skip


def _positions(rope: Mapping[str, Any]) -> Metadata:
    """Settings of the positions; of Llama 3's scaling there are none, because its factors stand in a tensor."""
    kind = rope["rope_type"]
    settings: Metadata = {"rope.freq_base": float(rope["rope_theta"])}
    if kind in ("default", "llama3"):
        return settings
    stretched: Metadata = {"rope.scaling.type": kind, "rope.scaling.factor": float(rope.get("factor", 1.0))}
    if kind == "linear":
        return settings | stretched
    if kind == "yarn" and set(rope) <= YARN:
        stretched["rope.scaling.original_context_length"] = int(rope["original_max_position_embeddings"])
        return settings | stretched
    raise Unwritable(f"the scaling of positions {dict(rope)}")


def _within_window(config: Any) -> Metadata:
    """The context cut to the window: inside it, attention with a window and without one are the same."""
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) and window and window < config.max_position_embeddings:
        return {"context_length": int(window)}
    return {}


def _llama(config: Any) -> Metadata:
    _expect(config, hidden_act="silu")
    return _attention(config) | _positions(_rope(config)) | _within_window(config)


def _gemma3(config: Any) -> Metadata:
    _expect(config, hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=head_dim(config))
    _expect(config, final_logit_softcapping=None, attn_logit_softcapping=None, use_bidirectional_attention=False)
    kinds = [
        "full_attention" if (n + 1) % GEMMA_PATTERN == 0 else "sliding_attention"
        for n in range(config.num_hidden_layers)
    ]
    if list(config.layer_types) != kinds:
        raise Unwritable("layers with a window in another order than five with one, then one without")
    local = _rope(config, "sliding_attention")
    if local["rope_theta"] != GEMMA_LOCAL_THETA or local["rope_type"] != "default":
        raise Unwritable(f"the positions {local} in layers with a window")
    for field in ("final_logit_softcapping", "attn_logit_softcapping"):
        if getattr(config, field, None) is not None:
            raise Unwritable(f"{field} = {getattr(config, field)}")
    window = {"attention.sliding_window": int(config.sliding_window)}
    return _attention(config) | _positions(_rope(config, "full_attention")) | window


def _phi3(config: Any) -> Metadata:
    _expect(config, hidden_act="silu")
    rope = _rope(config)
    share = rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    size = int(head_dim(config) * share)
    settings = _attention(config) | _within_window(config) | {"rope.dimension_count": size}
    if rope["rope_type"] != "longrope":
        return settings | _positions({key: value for key, value in rope.items() if key != "partial_rotary_factor"})
    original = int(rope.get("original_max_position_embeddings") or config.original_max_position_embeddings)
    stretched = config.max_position_embeddings / original
    usual = math.sqrt(1 + math.log(stretched) / math.log(original)) if stretched > 1 else 1.0
    return settings | {
        # In a longer context llama.cpp takes the long factors from the first token on, transformers only beyond this length.
        "context_length": original,
        "rope.freq_base": float(rope["rope_theta"]), "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": float(rope.get("attention_factor") or usual),
    }  # fmt: skip


def _neox(config: Any) -> Metadata:
    _expect(config, hidden_act="gelu")
    rope = _rope(config)
    share = rope.pop("partial_rotary_factor", None) or getattr(config, "rotary_pct", 1.0)
    settings = _attention(config, "layer_norm_epsilon", "layer_norm_eps") | _positions(rope)
    parallel = {"use_parallel_residual": bool(config.use_parallel_residual)}
    return settings | parallel | {"rope.dimension_count": int(head_dim(config) * share)}


def _interleaved(name: str, weight: Tensor, config: Any) -> Tensor:
    """Rows of queries and keys in llama.cpp's order for Llama: the two of a pair beside each other."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return weight
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _norms_plus_one(name: str, weight: Tensor, config: Any) -> Tensor:
    """Gemma's norms multiply by one more than their weight."""
    changed: Tensor = weight.float() + 1
    return changed if name.endswith("norm.weight") else weight


def _apart(name: str, weight: Tensor, config: Any) -> Tensor:
    """All queries, all keys, all values, where NeoX has the three of each head together."""
    if ".query_key_value." not in name:
        return weight
    heads = config.num_attention_heads
    return weight.reshape(heads, 3, -1, *weight.shape[1:]).transpose(0, 1).reshape(weight.shape)


FAMILIES: dict[str, Family] = {
    "llama": Family(MODEL_ARCH.LLAMA, _llama, _interleaved),
    "mistral": Family(MODEL_ARCH.LLAMA, _llama, _interleaved),
    "qwen2": Family(MODEL_ARCH.QWEN2, _llama),
    "qwen3": Family(MODEL_ARCH.QWEN3, _llama),
    "gemma3_text": Family(MODEL_ARCH.GEMMA3, _gemma3, _norms_plus_one),
    "phi3": Family(MODEL_ARCH.PHI3, _phi3, separate_head=True),
    "gpt_neox": Family(MODEL_ARCH.GPTNEOX, _neox, _apart, separate_head=True),
}
"""By transformers' `model_type`."""


def _llama3_factors(rope: Mapping[str, Any], size: int) -> Tensor:
    """By what each frequency is divided (as transformers' `_compute_llama3_parameters` scales them)."""
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    lengths = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    smooth = ((original / lengths - low) / (high - low)).clamp(0, 1)
    factors: Tensor = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return factors.float()
