"""Lamini's `finetune_args` and `peft_args` as settings of the recipe; what has no meaning here is refused by name."""

from collections.abc import Mapping
from typing import Any

from luthier.errors import nearest
from luthier.serve.errors import bad_request

SETTINGS = {
    "max_steps": "train.max_steps",
    "num_train_epochs": "train.epochs",
    "epochs": "train.epochs",
    "learning_rate": "train.learning_rate",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.clip_norm",
    "warmup_steps": "train.warmup_steps",
    "max_length": "train.max_tokens",
    "eval_steps": "train.check_every",
    "gradient_checkpointing": "train.gradient_checkpointing",
}
"""Arguments that a setting stands for, with the same meaning and unit."""
RANKS, ALPHAS = ("r_value", "r", "lora_r"), ("lora_alpha", "alpha")
OPTIMIZERS = {
    "adafactor": "adafactor", "adamw_torch": "adamw", "adamw_hf": "adamw", "adamw_torch_fused": "adamw", "adamw": "adamw",
}  # fmt: skip
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}
WITHOUT_EFFECT = {
    "save_steps", "logging_steps", "save_strategy", "logging_strategy", "evaluation_strategy", "eval_strategy",
    "early_stopping", "save_total_limit", "report_to", "gradient_accumulation_steps", "batch_size",
    "per_device_train_batch_size", "per_device_eval_batch_size", "dataloader_num_workers", "lora_dropout",
}  # fmt: skip
"""Taken and not needed: batches are measured in tokens, checkpoints and dev checks have their own times."""


def settings(arguments: Mapping[str, Any], peft: Mapping[str, Any], *, enable_peft: bool | None) -> dict[str, Any]:
    """The recipe's settings for both kinds of arguments."""
    found: dict[str, Any] = {}
    if enable_peft or peft:
        found["train.method"] = "lora"
    for name, value in {**arguments, **peft}.items():
        if name in WITHOUT_EFFECT or value is None or name == "seed":
            continue
        if name in RANKS:
            found |= {"train.method": "lora", "train.lora_rank": value}
        elif name in ALPHAS:
            found |= {"train.method": "lora", "train.lora_alpha": value}
        elif name == "optim":
            found["train.optimizer"] = _word(name, value, OPTIMIZERS)
        elif name == "lr_scheduler_type":
            found["train.schedule"] = _word(name, value, SCHEDULES)
        elif name in SETTINGS:
            found[SETTINGS[name]] = value
        else:
            raise bad_request(_unknown(name), f"finetune_args.{name}"[:100], "unknown_parameter")
    return found


def _word(name: str, value: object, words: Mapping[str, str]) -> str:
    if not isinstance(value, str) or value not in words:
        message = f"Invalid 'finetune_args.{name}': expected one of {', '.join(words)}."
        raise bad_request(message, f"finetune_args.{name}", "invalid_value")
    return words[value]


def _unknown(name: str) -> str:
    known = sorted({*SETTINGS, *RANKS, *ALPHAS, "optim", "lr_scheduler_type", "seed"})
    close = nearest(name, known)
    hint = f", did you mean '{close}'?" if close else "."
    return f"Unknown parameter: 'finetune_args.{name[:60]}'{hint} Known are {', '.join(known)}."
