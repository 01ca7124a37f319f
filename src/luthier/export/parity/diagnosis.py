"""Which part of a file is another than the run's: settings and tensors, held against what an export would write now."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from luthier.export.gguf import adapter, types
from luthier.export.gguf.families import Family, Metadata, family_of, metadata_of
from luthier.export.gguf.file import GGUF
from luthier.export.gguf.model import tokenizer_metadata
from luthier.export.gguf.weights import Weights, chunks, opened_weights
from luthier.export.source import Source

MOST = 5  # faults of a kind that are named
SHOWN = 60
ROUGHLY = 2e-2  # of numbers in bf16
CLOSE = 1e-6  # how far settings in fp32 may be from ours


def causes(source: Source, file: GGUF) -> list[str]:
    """The first settings and tensors of the file that are not the run's, in words."""
    config = source.reference.config.get_text_config()
    family = family_of(config, source.name)
    if file.metadata.get("general.type") == "adapter":
        return list(islice(_of_adapter(source, file, config, family), MOST))
    return [
        *islice(_settings(source, file, config, family), MOST),
        *islice(_tensors(source, file, config, family), MOST),
    ]


def _settings(source: Source, file: GGUF, config: Any, family: Family) -> Iterator[str]:
    """Settings of the model and of the tokenizer that are others than the run's."""
    wanted: Metadata = {"general.architecture": family.word, **metadata_of(config, family, source.name)}
    wanted |= tokenizer_metadata(source, config.vocab_size, family.word, unchecked=True)
    return _different(wanted, file.metadata)


def _of_adapter(source: Source, file: GGUF, config: Any, family: Family) -> Iterator[str]:
    """What an adapter adds to each weight, which is one product of its alpha and of both halves."""
    pairs, alpha = adapter.read(source, config, family), file.setting("adapter.lora.alpha", 0.0)
    for name, (down, up, scale) in pairs.items():
        if f"{name}.lora_a" not in file.tensors or f"{name}.lora_b" not in file.tensors:
            yield f"tensor {name} has no pair of matrices"
            continue
        theirs = [torch.from_numpy(file.numbers(f"{name}.lora_{half}")) for half in "ab"]
        ours, added = scale * up.float() @ down.float(), alpha / len(theirs[0]) * theirs[1] @ theirs[0]
        times = float((ours * added).sum() / (ours * ours).sum())
        if not torch.allclose(ours, added, rtol=ROUGHLY, atol=ROUGHLY * float(ours.abs().max())):
            yield f"tensor {name} gets {times:.3g} times what the run's adapter adds (adapter.lora.alpha is {alpha:g})"


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


def _tensors(source: Source, file: GGUF, config: Any, family: Family) -> Iterator[str]:
    """Tensors of the file that are others than the run's weights in that number format, in their order."""
    with (
        source.whole_weights(file.path) as folder,
        opened_weights(folder, config, family, source.name) as weights,
    ):
        yield from _other_tensors(weights, file)


def _other_tensors(weights: Weights, file: GGUF) -> Iterator[str]:
    for name in weights.names:
        if name not in file.tensors:
            yield f"tensor {name} is missing"
            continue
        stored = file.tensors[name]
        if stored.shape != weights.shape(name):
            yield f"tensor {name} has the sizes {stored.shape}, expected {weights.shape(name)}"
            continue
        try:
            wanted = np.concatenate(
                [types.encode(rows, stored.kind, name).reshape(-1) for rows in chunks(weights.read(name))]
            )
        except NotImplementedError:
            yield f"tensor {name} is in {stored.kind.name}, which no export has"
            continue
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
