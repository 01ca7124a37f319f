"""One training with Unsloth's backend for processors, measured. Called by compare.py with the Python of .venv-unsloth.

It prepares the model and changes TRL's trainer; from there on everything is as in run_trl.py.
"""

from dataclasses import replace
from importlib.metadata import version
from typing import Any

from unsloth import FastLanguageModel  # type: ignore[import-not-found] # isort: skip  (before TRL: it changes TRL)

import run_trl
from task import ALPHA, RANK, Result, Task, main

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FP32: dict[str, Any] = {"dtype": "float32"}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    # where all weights learn, they are in bf16 without fp32 masters, as are Adam's moments
    "default": ("default", {}),
    "fp32-weights": ("default", FP32),
    "fp32-grouped": ("grouped", FP32 | {"use_gradient_checkpointing": False}),
}
"""TRL's setting, and what the model is loaded with."""


def run(task: Task) -> Result:
    full = task.method == "full"
    setting, loaded = SETTINGS[task.setting]
    model, tokenizer = FastLanguageModel.from_pretrained(
        task.read_rows().folder, max_seq_length=1024, load_in_4bit=False, full_finetuning=full, **loaded
    )
    if not full:
        model = FastLanguageModel.get_peft_model(
            model, r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS, random_state=task.seed
        )
    found = run_trl.run(replace(task, setting=setting), "unsloth", model=model, processing_class=tokenizer)
    return replace(
        found,
        arm=f"unsloth {task.setting}",
        versions=found.versions | {"unsloth": version("unsloth")},
        setting=loaded | found.setting,
    )


if __name__ == "__main__":
    main(run)
