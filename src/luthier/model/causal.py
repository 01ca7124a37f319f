"""A causal language model from outside: what peft put around it, its decoder, and what it does to the products of its head."""

import inspect
from typing import Any

from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.model import attention
from luthier.model.packed import Packed

CausalModel = PreTrainedModel | PeftModel


def base_model(model: CausalModel) -> PreTrainedModel:
    """The model without what peft put around it; adapters inside it stay."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    return inner


def decoder(model: CausalModel) -> nn.Module:
    """The model without its head; adapters inside it stay."""
    headless = base_model(model).get_decoder()
    assert isinstance(headless, nn.Module)
    return headless


def is_plain(head: nn.Module | None) -> bool:
    """Whether the head is one matrix product and nothing else."""
    return type(head) is nn.Linear and head.bias is None


def logit_transform(model: CausalModel) -> tuple[float | None, float]:
    """What some families do to the head's products: a soft cap on them (Gemma), and a factor before it (Cohere, Granite)."""
    config = model.config.get_text_config()
    factor = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    return getattr(config, "final_logit_softcapping", None), factor


def keeps_logits(model: CausalModel) -> bool:
    """Whether the model can be asked for the logits of some places only."""
    return "logits_to_keep" in inspect.signature(base_model(model).forward).parameters


def inputs(model: CausalModel, batch: Packed) -> dict[str, Any]:
    """What the model, or its decoder, is called with."""
    named: dict[str, Any] = {
        "input_ids": batch.tokens[None],
        "position_ids": batch.segments.positions,
        "use_cache": False,
    }
    if model.config._attn_implementation == attention.NAME:
        named["segments"] = batch.segments
    return named


def states(model: CausalModel, batch: Packed) -> Float[Tensor, "tokens width"]:
    """What the decoder gives for each token of a batch."""
    with attention.packed_segments(batch.segments):
        return decoder(model)(**inputs(model, batch)).last_hidden_state[0]  # type: ignore[no-any-return]
