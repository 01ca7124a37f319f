"""How long a row may be where nobody said so: as long as the model's context, if a training has the memory for that."""

from luthier.model import device, machine
from luthier.model.spec import ModelSpec
from luthier.pipeline.defaults import FirstChoices, default_method
from luthier.recipe import Train
from luthier.runs.durable import format_bytes
from luthier.train import memory_estimate
from luthier.train.memory_estimate import LargestBatch

SHORT_ROW = 2048  # tokens of a row that a training always takes, and of the pieces of texts


def by_default(context: int, *, documents: bool, first: FirstChoices | None = None) -> tuple[int, str]:
    """`train.max_tokens` with its reason; of texts it is the length of their pieces, of which there should be many.

    What an earlier preparation of the same run took stays.
    """
    if first and "train.max_tokens" in first:
        limit, why = first["train.max_tokens"]
        return min(int(limit), context), why
    if documents:
        return min(context, SHORT_ROW), f"texts are cut into pieces of at most {SHORT_ROW:,} tokens"
    return context, "the model's context"


def lowered(
    train: Train, spec: ModelSpec, context: int, available: int, *, longest: int, rows_together: int = 1
) -> tuple[int, str] | None:
    """A lower limit, where a training on the longest row needs more memory than is available: half of it, and so on.

    `longest` is in tokens, of the `rows_together` that have to share a batch. None: the row fits as it is, or is short.
    """
    needed = _needed(train, spec, longest) if longest > SHORT_ROW * rows_together else 0
    if needed <= memory_estimate.SPARE * available:
        return None
    why = f"the model's context is {context:,} tokens, but the longest of these rows would take {format_bytes(needed)}"
    limit = context
    while limit > SHORT_ROW and needed > memory_estimate.SPARE * available:
        limit = max(SHORT_ROW, limit // 2)
        needed = _needed(train, spec, min(longest, limit * rows_together))
    return limit, f"{why} of memory, and {format_bytes(available)} is available"


def _needed(train: Train, spec: ModelSpec, tokens: int) -> int:
    """Bytes that a training needs whose longest row has so many tokens, with the settings that it would have."""
    settings = train.model_copy(
        update={
            "method": train.method or default_method(spec.parameters),
            "precision": train.precision or machine.precision(device.pick_device())[0],
            "tokens_per_batch": 1,
            "tokens_per_step": tokens,
        }
    )
    batch = LargestBatch((tokens,), batches_per_step=3)
    return memory_estimate.estimate_memory(spec, settings, batch, device.pick_device()).training
