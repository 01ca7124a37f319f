"""Which part of a file is another than the run's: settings and tensors, held against what an export would write now."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from luthier.export.gguf import types
from luthier.export.gguf.families import Metadata, family_of, metadata_of
from luthier.export.gguf.file import GGUF
from luthier.export.gguf.model import vocabulary_of
from luthier.export.gguf.weights import Weights, chunks, opened_weights
from luthier.export.source import Source

MOST = 5  # faults of a kind that are named
SHOWN = 60
CLOSE = 1e-6  # how far settings in fp32 may be from ours


def settings(source: Source, file: GGUF) -> Iterator[str]:
    """Settings of the model and of the tokenizer that are others than the run's, the first few."""
    config = source.reference.config.get_text_config()
    family = family_of(config, source.name)
    vocabulary = vocabulary_of(source, config.vocab_size)
    wanted: Metadata = {"general.architecture": family.word, **metadata_of(config, family, source.name)}
    wanted |= {key: value for key, value in vocabulary.metadata().items() if key.startswith(("tokenizer.",))}
    yield from islice(_different(wanted, file.metadata), MOST)


def _different(wanted: Metadata, found: Metadata) -> Iterator[str]:
    for key, value in wanted.items():
        if value == "" and key not in found:
            continue
        if key not in found:
            yield f"setting {key} is missing, expected {_shown(value)}"
        elif not _same(value, found[key]):
            yield f"setting {key} {_where(value, found[key])}"


def _same(wanted: object, found: object) -> bool:
    if isinstance(wanted, list) and isinstance(found, list) and wanted and isinstance(wanted[0], float):
        return len(wanted) == len(found) and bool(np.allclose(wanted, found, rtol=CLOSE))
    if isinstance(wanted, float) and isinstance(found, int | float):
        return bool(np.isclose(wanted, found, rtol=CLOSE))
    return wanted == found


def _where(wanted: object, found: object) -> str:
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return f"has {len(found):,} entries, expected {len(wanted):,}"
        at = next(n for n, pair in enumerate(zip(wanted, found, strict=True)) if pair[0] != pair[1])
        return f"[{at}] is {_shown(found[at])}, expected {_shown(wanted[at])}"
    if isinstance(wanted, str) and isinstance(found, str):
        a, b = wanted.encode(), found.encode()
        at = next((n for n, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
        return f"differs at byte {at}: {_shown(found[at : at + SHOWN])}, expected {_shown(wanted[at : at + SHOWN])}"
    return f"is {_shown(found)}, expected {_shown(wanted)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def tensors(source: Source, file: GGUF) -> Iterator[str]:
    """Tensors of the file that are others than the run's weights in that number format, the first few in their order."""
    config = source.reference.config.get_text_config()
    family = family_of(config, source.name)
    with (
        source.whole_weights(file.path) as folder,
        opened_weights(folder, config, family, source.name) as weights,
    ):
        yield from islice(_other_tensors(weights, file), MOST)


def _other_tensors(weights: Weights, file: GGUF) -> Iterator[str]:
    for name in weights.names:
        if name not in file.tensors:
            yield f"tensor {name} is missing"
            continue
        stored = file.tensors[name]
        if stored.shape != weights.shape(name):
            yield f"tensor {name} has the sizes {stored.shape}, expected {weights.shape(name)}"
            continue
        wanted = np.concatenate(
            [types.encode(rows, stored.kind, name).reshape(-1) for rows in chunks(weights.read(name))]
        )
        ours, theirs = types.decode(wanted, stored.kind, stored.shape), file.numbers(name)
        if not np.array_equal(ours, theirs):
            apart = np.abs(ours - theirs)
            row = int(np.argmax(apart.reshape(len(ours), -1).max(-1)))
            yield (
                f"tensor {name} is another than the run's: {np.mean(apart > 0):.1%} of its numbers, most in row {row} "
                f"(by up to {float(apart.max()):.3g})"
            )
    for name in sorted(file.tensors.keys() - set(weights.names)):
        yield f"tensor {name} is not the model's"
