"""Which weights of a model are trained: a table from the word in `train.method` to what prepares the model."""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedConfig

from luthier import extensions
from luthier.errors import UserError
from luthier.extensions import import_optional
from luthier.model.causal import CausalModel
from luthier.model.loading import add_adapters
from luthier.recipe import Train

Prepare = Callable[[CausalModel, Train], CausalModel]
"""From the base model to the one that is trained: its frozen weights as they were, its trainable ones in fp32."""


@dataclass(frozen=True)
class Method:
    """How a model is prepared."""

    prepare: Prepare
    quantised: bool = False
    """Frozen weights are read in 4 bits, which needs the package bitsandbytes."""
    keep_fp32: bool = False
    """Trainable weights stay in fp32 even where the rest computes in bf16."""


def full(model: CausalModel, settings: Train) -> CausalModel:
    """All weights are trained."""
    return model.requires_grad_(True)


def lora(model: CausalModel, settings: Train) -> CausalModel:
    """Low-rank adapters (Hu et al. 2021) beside frozen weights."""
    return add_adapters(model, rank=settings.lora_rank, alpha=settings.lora_alpha, seed=settings.seed)


def dora(model: CausalModel, settings: Train) -> CausalModel:
    """The same with a trainable magnitude for each row of a matrix (Liu et al. 2024)."""
    return add_adapters(model, rank=settings.lora_rank, alpha=settings.lora_alpha, seed=settings.seed, dora=True)


def qlora(model: CausalModel, settings: Train) -> CausalModel:
    """LoRA beside weights in 4 bits (Dettmers et al. 2023), which are dequantised to compute."""
    return lora(model, settings)


METHODS: dict[str, Method] = {
    "full": Method(full),
    "lora": Method(lora),
    "dora": Method(dora, keep_fp32=True),  # its gradient comes from ratios of magnitudes that bf16 rounds to 1
    "qlora": Method(qlora, quantised=True),
}
"""Methods by the word in `train.method`; a dotted name "package.module:function" reaches your own."""


def resolve(word: str) -> Method:
    """The method of this name; refuses one whose package is missing."""
    if ":" in word:
        return Method(extensions.import_function(word, where="train.method"))
    method = extensions.look_up("method", word, METHODS, where="train.method")
    if method.quantised:
        import_optional("bitsandbytes", "quantised", where="train.method")
    return method


def check_trainable(settings: Train, config: PreTrainedConfig) -> None:
    """Refuses to tune all weights of a model whose files have them in 4 bits: such numbers cannot be trained."""
    if getattr(config, "quantization_config", None) and settings.method == "full":
        raise UserError(
            "the model's weights are in 4 bits in its files, which cannot be trained; adapters beside them can: "
            "train.method=qlora.",
            where="train.method",
        )
