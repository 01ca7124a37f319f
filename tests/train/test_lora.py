"""Adapters learn as in a plain loop over peft, and the frozen weights beside them stay as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.model import loading
from luthier.model.adapters import LoraLinear
from luthier.recipe import Train
from luthier.train import loop
from token_rows import Row, Rows

SIZE = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "llama": GROUPED,
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": GROUPED,
    "gemma3_text": GROUPED | {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "gpt_neox": {},
}
RATE, STEPS = 1e-2, 4


def counting(start: int, length: int) -> Row:
    return Row((start + 3 * np.arange(length)) % 300 + 10, np.arange(length) >= 2)


ROWS = Rows(counting(17 * number, 6 + 5 * number % 19) for number in range(8))


def adapted(family: str) -> Any:
    """A model of this family with adapters of rank 4."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = AutoConfig.for_model(family, **(SIZE | FAMILIES[family]))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return loading.add_adapters(model, rank=4, alpha=8, seed=0)


def train(model: Any, precision: str, folder: Path) -> list[dict[str, Any]]:
    """Our loop, all rows in each step; gives the events of its steps."""
    events: list[dict[str, Any]] = []
    settings = Train(
        epochs=1, max_steps=STEPS, learning_rate=RATE, schedule="constant", warmup_steps=0, tokens_per_step=4096,
        tokens_per_batch=4096, check_every=STEPS, precision=precision, patience=9,
    )  # type: ignore[arg-type]  # fmt: skip
    loop.train(
        model, ROWS, ROWS, settings, checkpoints=folder,
        record=lambda kind, **fields: events.append(fields) if kind == "step" else None,
    )  # fmt: skip
    return events


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_loop_is_a_plain_loop_over_peft(family: str, tmp_path: Path) -> None:
    """The same rows, one by one, through transformers' own loss, peft's own layers and torch's AdamW."""
    events = train(adapted(family), "fp32", tmp_path)
    model = adapted(family)
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=RATE, weight_decay=0.0)
    learnt = sum(int(row.loss_mask[1:].sum()) for row in ROWS)
    for event in events:
        total = 0.0
        for row in ROWS:
            labels = torch.tensor(np.where(row.loss_mask, row.ids, -100))[None]
            mean = model(input_ids=torch.tensor(row.ids)[None], labels=labels).loss
            loss = mean * row.loss_mask[1:].sum() / learnt
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert event["loss"] == pytest.approx(total, rel=1e-4)
        assert event["gradient_norm"] == pytest.approx(norm.item(), rel=1e-3)
    assert events[-1]["loss"] < events[0]["loss"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_weights_stay_to_the_last_bit_and_get_no_gradient(family: str, precision: str, tmp_path: Path) -> None:
    model = adapted(family)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    frozen = {name: weight.to(dtype) for name, weight in model.named_parameters() if not weight.requires_grad}
    frozen = {name: weight.clone() for name, weight in frozen.items()}
    train(model, precision, tmp_path)
    after = dict(model.named_parameters())
    assert frozen.keys() == {name for name, weight in after.items() if not weight.requires_grad}
    assert all(torch.equal(after[name], weight) and after[name].grad is None for name, weight in frozen.items())
    assert any(isinstance(module, LoraLinear) for module in model.modules())
