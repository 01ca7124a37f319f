"""Llama-shaped models of random weights, and rows of random tokens: what a GPU, or a look at whether things work, needs.

python random_model.py FOLDER        the tiny one
"""

import json
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from luthier.model.reference import find_folder


@dataclass(frozen=True)
class Shape:
    """A Llama's measures; the vocabulary is the tokenizer's."""

    width: int
    layers: int
    heads: int
    groups: int
    inner: int

    def config(self, vocabulary: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
            intermediate_size=self.inner,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        )


SHAPES = {
    "0.5b": Shape(width=1280, layers=24, heads=20, groups=5, inner=3456),
    "1b": Shape(width=2048, layers=16, heads=32, groups=8, inner=8192),
    "1.5b": Shape(width=1536, layers=28, heads=12, groups=2, inner=8960),
}
TINY = Shape(width=64, layers=2, heads=4, groups=2, inner=128)
VOCABULARY = 49_152


def make_model(shape: Shape, folder: Path, *, tokenizer: Path, seed: int) -> int:
    """A Hugging Face folder of random weights with another's tokenizer; returns the number of parameters."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(shape.config(VOCABULARY))
    model.save_pretrained(folder)
    for file in tokenizer.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "vocab", "merges", "chat_template")):
            shutil.copy(file, folder)
    return sum(weight.numel() for weight in model.parameters())


def make_rows(file: Path, folder: Path, *, rows: int, length: int, seed: int) -> None:
    """Rows of random tokens, all learnt, in the form that `records.py` gives, and two more to look at."""
    draw = random.Random(seed)
    made = [
        {"ids": [draw.randrange(VOCABULARY) for _ in range(length)], "answer": [True] * length} for _ in range(rows + 2)
    ]
    orders = [random.Random(number).sample(range(rows), rows) for number in range(32)]
    content = {"folder": str(folder), "train": made[:rows], "dev": made[rows:], "orders": orders}
    file.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    make_model(TINY, Path(sys.argv[1]), tokenizer=find_folder("smollm2-135m"), seed=0)
