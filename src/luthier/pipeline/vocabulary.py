"""The verb `luthier tokenizer`: a tokenizer out of a corpus, with how much it compresses beside others."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from luthier.data import corpora
from luthier.data.corpora import Corpus
from luthier.errors import MachineError, UserError
from luthier.model import new_tokenizer, reference
from luthier.model.new_tokenizer import Compression
from luthier.recipe import Recipe

VOCABULARY = 8192
LOOKED_AT = 1 << 20
"""Characters that compression is told of, and that must come back as they were."""
NEOX = "LUTHIER_NEOX_TOKENIZER"
"""Environment variable with the folder or tokenizer.json of GPT-NeoX, which many papers count by."""


@dataclass(frozen=True)
class NewTokenizer:
    """A tokenizer that was made, and how it does beside others on the first texts of its corpus."""

    folder: Path
    vocabulary: int
    characters: int
    """That it was made from."""
    compressions: list[Compression]


def make(
    path: Path, out: Path, *, vocabulary: int = VOCABULARY, beside: str | None = None,
    progress: Callable[[int], None] = lambda characters: None,
) -> NewTokenizer:  # fmt: skip
    """Train a tokenizer on a corpus and write it to a new folder; `beside` is a model whose tokenizer it is compared with."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("already exists; name a new folder.", where=str(out))
    if not out.absolute().parent.is_dir():
        raise UserError("there is no such folder to write to; make it first.", where=str(out.absolute().parent))
    others = [(name, new_tokenizer.read(folder)) for name, folder in _others(beside)]
    corpus = corpora.find(path)
    characters = 0

    def counted() -> Iterator[str]:
        nonlocal characters
        for text in training_texts(corpus):
            characters += len(text)
            progress(characters)
            yield text

    tokenizer = new_tokenizer.train(counted(), vocabulary, where=str(path))
    sample = first_texts(corpus)
    new_tokenizer.expect_round_trip(tokenizer, sample)
    new_tokenizer.save(tokenizer, out)
    found = [("this one", new_tokenizer.read(out)), *others]
    compressions = [new_tokenizer.compression(name, each, sample) for name, each in found]
    return NewTokenizer(out, len(tokenizer), min(characters, new_tokenizer.TRAINED_ON), compressions)


def training_texts(corpus: Corpus) -> Iterator[str]:
    """The passages of a corpus that are not held out by their file's name."""
    return (passage.text for file in corpus.train for passage in corpus.passages(file))


def first_texts(corpus: Corpus) -> list[str]:
    """The first passages, a million characters in all."""
    sizes = itertools.accumulate(map(len, training_texts(corpus)), initial=0)
    return [text for text, before in zip(training_texts(corpus), sizes, strict=False) if before < LOOKED_AT]


def _others(beside: str | None) -> Iterator[tuple[str, Path]]:
    """The tokenizers to compare with: that of a model, by default of the base model where it is here, and GPT-NeoX's."""
    try:
        name = beside or Recipe().model
        yield name, reference.find_folder(name, weights=False)
    except MachineError:
        if beside is not None:
            raise
    if own := os.environ.get(NEOX):
        yield "GPT-NeoX", Path(own)
