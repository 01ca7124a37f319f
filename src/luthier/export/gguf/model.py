"""A run's model as one GGUF file that llama.cpp runs: weights tensor by tensor, tokenizer and template in its metadata."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from luthier.chat import Template
from luthier.engine import llama_cpp
from luthier.engine.llama_cpp import LlamaCpp
from luthier.errors import UserError
from luthier.export import texts
from luthier.export.gguf import file as files
from luthier.export.gguf import types
from luthier.export.gguf.families import Metadata, family_of, metadata_of
from luthier.export.gguf.file import NewTensor
from luthier.export.gguf.types import Bytes
from luthier.export.gguf.vocabulary import PREFIX, Vocabulary, proven_variant
from luthier.export.gguf.weights import Weights, chunks, opened_weights
from luthier.export.source import Source
from luthier.export.texts import TextCase
from luthier.model.tokenizer import HubTokenizer
from luthier.runs.durable import require_space

QUANTISATION = 2  # version of the block formats
CASES = 400  # texts on which each way to cut text is tried; the whole check comes afterwards


def write(source: Source, out: Path, *, number_format: str, unchecked: bool = False, base: bool = False) -> None:
    """Write the model in a number format; refuses what the format or llama.cpp cannot hold.

    `unchecked` writes a tokenizer that llama.cpp reads otherwise, or without llama.cpp to try it; `base` the weights that an
    adapter stands beside, with the run's tokenizer.
    """
    config = source.reference.config.get_text_config()
    family = family_of(config, source.name)
    metadata = {
        "general.type": "model", "general.finetune": source.run.name, "general.file_type": int(types.TYPES[number_format][1]),
        "general.quantization_version": QUANTISATION, **metadata_of(config, family, source.name),
    }  # fmt: skip
    metadata |= tokenizer_metadata(source, config.vocab_size, family.word, unchecked=unchecked)
    with (
        nullcontext(source.reference.base.folder) if base else source.whole_weights(out) as folder,
        opened_weights(folder, config, family, source.name) as weights,
    ):
        tensors = list(tensors_of(weights, number_format))
        require_space(out.absolute().parent, sum(tensor.bytes for tensor in tensors), "the file")
        files.write(out, family.word, metadata, tensors)


def tensors_of(weights: Weights, number_format: str) -> Iterator[NewTensor]:
    """Every tensor of the file with its number format; nothing is read before its turn to be written."""
    blocks, tied = weights.config.num_hidden_layers, weights.tied
    for name in weights.names:
        shape = weights.shape(name)
        kind = types.type_of(number_format, name, shape, blocks=blocks, tied=tied)
        yield NewTensor(name, shape, kind, partial(_pieces, weights, name, kind))


def _pieces(weights: Weights, name: str, kind: types.Type) -> Iterator[Bytes]:
    for rows in chunks(weights.read(name)):
        yield types.encode(rows, kind, name)


def tokenizer_metadata(source: Source, size: int, arch: str, *, unchecked: bool) -> Metadata:
    """The tokenizer with the name of its cutting, under which llama.cpp gives our ids for the run's texts and hard ones."""
    vocabulary = vocabulary_of(source, size)
    settings = vocabulary.metadata()
    if not llama_cpp.is_installed():
        if not unchecked:
            raise llama_cpp.not_installed_error(source.name)
        return settings | next(vocabulary.variants())
    wanted = texts.cases(source.template, source.items(), begin=vocabulary.begin, count=CASES)
    with tempfile.TemporaryDirectory(prefix="luthier-vocabulary-") as folder:
        path = Path(folder) / "vocabulary.gguf"
        with LlamaCpp(path, vocab_only=True) as llama:
            variant, left = proven_variant(vocabulary, _attempts(llama, arch, settings, wanted, vocabulary))
    if left and not unchecked:
        cut = variant.get(f"{PREFIX}pre")
        raise UserError(
            f'GGUF cannot express the tokenizer: under the most similar rule of llama.cpp ("{cut}") {len(left)} of '
            f"{len(wanted)} texts are cut otherwise; {left[0]}. Export with --to merged, or write it all the same with "
            "--unchecked.",
            where=source.name,
        )
    return settings | variant


def vocabulary_of(source: Source, size: int) -> Vocabulary:
    """The run's tokenizer as a GGUF file has it."""
    template: Template = source.template
    assert isinstance(template.tokenizer, HubTokenizer)
    return Vocabulary(template.tokenizer, template, size, source.name, source.documents)


def _attempts(
    llama: LlamaCpp, arch: str, settings: Metadata, wanted: Sequence[TextCase], vocabulary: Vocabulary
) -> Callable[[Metadata], list[str]]:
    """Tries a variant of the tokenizer in llama.cpp, in a file that holds nothing else."""

    def attempt(variant: Metadata) -> list[str]:
        llama.file.write_bytes(files.beginning(arch, settings | variant))
        llama.switch(llama.file)
        try:
            found = texts.differences(llama, wanted)
        except UserError as refusal:
            return [refusal.message] * len(wanted)
        real = [each for each in found if not (vocabulary.normalises and texts.normalised(each))]
        return [each.words(vocabulary.hub) for each in real]

    return attempt
