"""Rows may be as long as the model's context where a training has the memory for that."""

import pytest
import torch
from transformers import LlamaConfig

from luthier.model.spec import MEASURED, ModelSpec
from luthier.pipeline import row_limit
from luthier.recipe import Train
from luthier.train import memory_estimate
from luthier.train.memory_estimate import LargestBatch


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return ModelSpec.of(
        LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, vocab_size=128)
    )


TRAIN = Train(precision="fp32", method="full")


def test_the_default_is_the_models_context_and_for_texts_a_piece() -> None:
    assert row_limit.by_default(8192, documents=False) == (8192, "the model's context")
    assert row_limit.by_default(8192, documents=True) == (2048, "texts are cut into pieces of at most 2,048 tokens")
    assert row_limit.by_default(512, documents=True)[0] == 512


def test_the_first_choice_of_a_run_stays() -> None:
    first = {"train.max_tokens": (4096, "memory")}
    assert row_limit.by_default(8192, documents=False, first=first) == (4096, "memory")
    assert row_limit.by_default(512, documents=False, first=first) == (512, "memory")


def test_rows_are_held_to_what_there_is_memory_for(spec: ModelSpec) -> None:
    def lowered(available: int, longest: int = 40_000, together: int = 1) -> tuple[int, str] | None:
        return row_limit.lowered(TRAIN, spec, 65_536, available, longest=longest, rows_together=together)

    needed = {tokens: row_limit._needed(TRAIN, spec, tokens) for tokens in (40_000, 32_768, 16_384)}
    assert lowered(2 * needed[40_000]) is None and lowered(0, longest=2048) is None
    between = int((needed[32_768] + needed[16_384]) / 2 / memory_estimate.SPARE)
    limit, why = lowered(between) or (0, "")
    assert limit == 16_384
    assert why.startswith("the model's context is 65,536 tokens, but the longest of these rows would take ")
    assert (lowered(between, together=2) or (0, ""))[0] == 8192
    assert (lowered(0) or (0, ""))[0] == 2048


def test_what_a_long_row_saves_is_told_by_two_shorter_ones(spec: ModelSpec) -> None:
    def saved(tokens: int) -> int:
        batch = LargestBatch((tokens,), 1)
        return memory_estimate.estimate_memory(spec, TRAIN, batch, torch.device("cuda")).parts["forward pass"]

    assert saved(3 * MEASURED) == pytest.approx(3 * saved(MEASURED), rel=0.02)
    assert saved(3 * MEASURED) == pytest.approx(spec.saved_activations([3 * MEASURED], "fp32"), rel=0.02)
