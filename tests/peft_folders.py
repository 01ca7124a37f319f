"""Folders with adapters as peft writes them, of random weights that are large enough to change answers."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from luthier.model import loading


def write_adapter(base: Path, folder: Path, seed: int, **settings: object) -> Path:
    """A peft adapter of random weights, large enough to change answers."""
    lm = loading.load(str(base))
    config = LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings})  # type: ignore[arg-type]
    model = get_peft_model(lm.model, config)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(str(folder))
    lm.tokenizer.save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(base)}))
    return folder
