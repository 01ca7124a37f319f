"""The weights of a Hugging Face folder as llama.cpp lays them out, one at a time, without a model in memory."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from luthier.errors import UserError
from luthier.export.gguf.families import Family, frequency_factors
from luthier.model.folder import readable

EMBEDDINGS = "token_embd.weight"
HEAD = "output.weight"
BUFFERS = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias", ".attn.masked_bias")
"""Ends of names in older files that are no weights: transformers computes them."""


@dataclass(frozen=True)
class Weights:
    """A folder's weights by the names that they have in a GGUF file."""

    config: Any
    family: Family
    sources: dict[str, str]
    """Name in the file → name in transformers."""
    opened: dict[str, Any]
    """Name in transformers → the safetensors file that holds it."""
    extra: dict[str, Tensor]
    """What the configuration says in words, and llama.cpp wants as a tensor."""

    @property
    def tied(self) -> bool:
        """Whether the head is the embeddings' matrix."""
        return HEAD not in self.sources

    @property
    def names(self) -> list[str]:
        return [*self.extra, *self.sources]

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self.extra:
            return tuple(self.extra[name].shape)
        source = self.sources[name]
        return tuple(self.opened[source].get_slice(source).get_shape())

    def read(self, name: str) -> Tensor:
        """A weight in llama.cpp's layout."""
        if name in self.extra:
            return self.extra[name]
        source = self.sources[name]
        return self.family.layout(source, self.opened[source].get_tensor(source), self.config)


@contextmanager
def opened_weights(folder: Path, config: Any, family: Family, name: str) -> Iterator[Weights]:
    """The weights of a folder; refuses one that has no place in the file."""
    with ExitStack() as files, readable("the weights", name):
        opened: dict[str, Any] = {}
        for path in _files(folder):
            file = files.enter_context(safe_open(path, framework="pt", device="cpu"))
            opened |= dict.fromkeys(file.keys(), file)
        theirs, sources, left = family.names(config), {}, []
        for source in opened:
            target = theirs(source)
            if source.endswith(BUFFERS) or (target == HEAD and _shared(config)):
                continue
            if target is None:
                left.append(source)
            else:
                sources[target] = source
        if left:
            raise UserError(
                f"llama.cpp's {family.word} has no place for the weight {left[0]} ({len(left)} such); nothing was written.",
                where=name,
            )
        if HEAD not in sources and family.separate_head:
            sources[HEAD] = sources[EMBEDDINGS]
        yield Weights(config, family, _in_order(sources), opened, frequency_factors(config))


def _shared(config: Any) -> bool:
    return bool(config.tie_word_embeddings)


def _files(folder: Path) -> list[Path]:
    """The files of weights that the index names, or all."""
    index = next(iter(folder.glob("*.safetensors.index.json")), None)
    if index is None:
        return sorted(folder.glob("*.safetensors"))
    return sorted({folder / part for part in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})


def _in_order(sources: dict[str, str]) -> dict[str, str]:
    """Embeddings first, then block by block, as llama.cpp's own converter has them."""

    def key(name: str) -> tuple[int, int, str]:
        parts = name.split(".")
        if parts[0] == "blk":
            return 1, int(parts[1]), name
        return (0 if name.startswith("token_embd") else 2), 0, name

    return {name: sources[name] for name in sorted(sources, key=key)}


def chunks(weight: Tensor, rows_of: int = 1 << 22) -> Iterator[Tensor]:
    """A weight in groups of whole rows, of about so many numbers each, so that its copies stay small."""
    if weight.ndim < 2:
        yield weight
        return
    flat = weight.reshape(-1, weight.shape[-1])
    step = max(1, rows_of // flat.shape[-1])
    yield from torch.split(flat, step)
