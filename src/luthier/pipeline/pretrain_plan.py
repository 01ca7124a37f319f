"""What a pretraining will need, before it starts: its size and settings, memory, disk, and time by three real steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luthier.data import corpora
from luthier.data.prepared import PreparedRow
from luthier.model import device, memory, new_tokenizer
from luthier.model.fresh import Shape
from luthier.model.reference import ModelReference
from luthier.model.spec import ModelSpec
from luthier.model.tokenizer import HubTokenizer
from luthier.pipeline import continued, opening, scaling, vocabulary
from luthier.pipeline.pretraining import estimate_memory, whole_recipe
from luthier.pipeline.scaling import Existing, Scaled
from luthier.pipeline.trial import tokens_per_second
from luthier.recipe import Recipe, Train
from luthier.runs import durable
from luthier.train import memory_estimate
from luthier.train.memory_estimate import MemoryEstimate


@dataclass(frozen=True)
class PretrainPlan:
    """All that is known of a pretraining before it starts; memory and disk in bytes."""

    scaled: Scaled
    corpus_tokens: int
    """About how many tokens the corpus has, by its size and its first million characters."""
    memory: MemoryEstimate
    available: int
    disk: dict[str, int]
    free: int
    tokens_per_second: float | None
    """Measured with three steps; None where they were not made."""

    @property
    def fits(self) -> bool:
        return self.memory.fits(self.available)

    @property
    def seconds(self) -> float | None:
        """Of all the steps."""
        tokens = self.scaled.recipe.pretrain.tokens or 0
        return tokens / self.tokens_per_second if self.tokens_per_second else None


class _Rows:
    """The first tokens of a corpus as rows of one length."""

    def __init__(self, ids: np.ndarray, context: int) -> None:
        self._ids, self._context = ids, context
        self.lengths = [context] * max(1, len(ids) // context)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> PreparedRow:
        start = number * self._context
        ids = np.resize(self._ids[start : start + self._context], self._context)
        return PreparedRow(ids, np.ones(len(ids), dtype=bool))

    def location(self, number: int) -> str:
        return f"row {number}"


def plan(asked: Recipe, *, try_steps: bool = True) -> PretrainPlan:
    """The plan for this recipe, from the first million characters of the corpus; nothing is written."""
    recipe = whole_recipe(asked)
    scaling.check(recipe)
    if recipe.continues:
        continued.check(recipe)
    assert recipe.data.path is not None
    corpus = corpora.find(recipe.data.path)
    texts = vocabulary.first_texts(corpus)
    if recipe.continues:
        tokenizer = ModelReference.of(recipe.model).tokenizer
    elif (own := recipe.pretrain.tokenizer) is not None:
        tokenizer = new_tokenizer.read(own)
    else:
        entries, _ = scaling.vocabulary(recipe.pretrain)
        tokenizer = new_tokenizer.train(texts, entries, where=str(corpus.path), fewer=True)
    ids = _flat(HubTokenizer(tokenizer).encode_texts(texts))
    seen = sum(len(text.encode()) for text in texts)
    tokens = max(1, round(corpus.bytes * len(ids) / max(1, seen)))
    beside = opening.default_folder(recipe).parent

    def measure(shape: Shape | Existing, settings: Train) -> float:
        return tokens_per_second(scaling.config_of(shape), _Rows(ids, shape.context), settings, beside=beside)

    if recipe.continues:
        mixed = continued.tokens_of_rows(recipe)
        scaled = scaling.resolve_existing(
            recipe, continued.existing(recipe), tokens=tokens, mixed=mixed, measure=measure
        )
    else:
        made = recipe.pretrain.tokenizer is None
        scaled = scaling.resolve(recipe, tokens=tokens, vocabulary=len(tokenizer), made=made, measure=measure)
    needed, available = estimate_memory(scaled), memory.available(device.pick_device())
    spec = ModelSpec.of(scaling.config_of(scaled.shape))
    disk = {"tokens": tokens * (2 if len(tokenizer) <= 1 << 16 else 4)}
    disk |= memory_estimate.estimate_disk(spec, scaled.recipe.train)
    speed = measure(scaled.shape, scaled.recipe.train) if try_steps and needed.fits(available) else None
    return PretrainPlan(scaled, tokens, needed, available, disk, durable.free_space(Path(beside)), speed)


def _flat(ids: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter((token for each in ids for token in each), np.int32, sum(map(len, ids)))
