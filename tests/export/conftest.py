"""Runs with a model of any family, as training would have left them: a tenth of a second each, and real in every file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen3Config,
)

from luthier import recipe as recipes
from luthier.chat import Conversation, Message
from luthier.data import prepared
from luthier.data.dataset import Item
from luthier.evaluate.context import Context
from luthier.evaluate.prompts.arms import TUNED
from luthier.model import loading
from luthier.model.causal import CausalModel
from luthier.model.tokenizer import template_of
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import make_folders, write_atomic

pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LONG = {"rope_type": "longrope", "rope_theta": 10_000.0, "long_factor": [1.5] * 8, "short_factor": [1.1] * 8}
FAMILIES: dict[str, Callable[[dict[str, Any]], PreTrainedConfig]] = {
    "llama": lambda sizes: LlamaConfig(**sizes, tie_word_embeddings=True),
    "llama, untied, with biases and Llama 3's positions": lambda sizes: LlamaConfig(
        **sizes, tie_word_embeddings=False, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3
    ),
    "mistral with wide heads": lambda sizes: MistralConfig(**sizes, sliding_window=None, head_dim=32),
    "qwen2": lambda sizes: Qwen2Config(**sizes, rope_parameters=YARN),
    "qwen3": lambda sizes: Qwen3Config(**sizes, head_dim=32),
    "gemma3": lambda sizes: Gemma3TextConfig(
        **{**sizes, "num_hidden_layers": 7}, head_dim=32, query_pre_attn_scalar=32, sliding_window=16
    ),
    "phi3": lambda sizes: Phi3Config(**sizes, sliding_window=None),
    "phi3 with long positions": lambda sizes: Phi3Config(
        **sizes, sliding_window=None, original_max_position_embeddings=256, rope_parameters=LONG
    ),
    "gpt-neox": lambda sizes: GPTNeoXConfig(
        **{key: value for key, value in sizes.items() if key != "num_key_value_heads"}, rotary_pct=0.25
    ),
}
ROWS = [
    Item(
        id=f"id{number}",
        conversation=Conversation(
            (Message("user", f"What is {number} and {number * 37}?"), Message("assistant", f"It is {number}."))
        ),
        location=f"d.jsonl:{number}",
        group=f"group{number}",
    )
    for number in range(12)
]

MakeRun = Callable[..., Run]


def noise(config: PreTrainedConfig) -> CausalModel:
    """A model that knows nothing, always the same one; its norms and biases are not those that it would begin with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: CausalModel = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 1:
                    weight += 0.1 * torch.randn_like(weight)
                assert name
    return model


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    return found


@pytest.fixture
def make_run(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> MakeRun:
    """Makes a run with this model, its rows as test rows, and on wish its answers to them."""

    def make(
        model: CausalModel | PreTrainedConfig | str = "llama",
        *,
        own: PreTrainedTokenizerBase | None = None,
        answered: bool = False,
        name: str = "run",
        rows: list[Item] = ROWS,
    ) -> Run:
        coder = own or tokenizer
        if isinstance(model, str):
            model = FAMILIES[model]({**SIZES, "vocab_size": len(coder)})
        if isinstance(model, PreTrainedConfig):
            model = noise(model)
        template = template_of(coder)
        run = Run.create(tmp_path / name, hashes={"template": template.sha256, "model": ""})
        loading.save(model, coder, template, run.folder / "model", {})
        encoded = [(item, row) for item in rows for row in template.rows(item.conversation)]
        prepared.write(run.folder / "data" / "test.arrow", encoded)
        values = {"model": "made", "evaluate.metric": "token_f1", "evaluate.max_new_tokens": 8}
        write_atomic(run.folder / "recipe.toml", recipes.render(recipes.replace(Recipe(), values)))
        make_folders(run.folder / "evaluation")
        if answered:
            context = Context(run, recipes.load(run.folder / "recipe.toml"))
            lm = loading.load(str(run.folder / "model"))
            context.ask(
                lm, context.items("test"), TUNED, lambda item: item.conversation.prompt, split="test", file="answers"
            )
        return run

    return make


@pytest.fixture
def adapter_run(make_run: MakeRun, tiny_model: Path) -> Any:
    """A run with a LoRA adapter on the tiny model, whose second halves are not zero."""
    model = loading.add_adapters(AutoModelForCausalLM.from_pretrained(tiny_model), rank=4, alpha=8, seed=0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return make_run(model)
