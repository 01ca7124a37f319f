"""Whether an exported folder is the run's model: its files against the run's, and its answers in transformers.

A folder with an adapter is held against the run's adapter, a whole model against the run's, merged anew.
"""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from luthier.engine.llama_cpp import Completion
from luthier.errors import UserError
from luthier.export.gguf.model import vocabulary_of
from luthier.export.parity import compare
from luthier.export.parity.limits import EXACT, LIMITS
from luthier.export.parity.report import Report
from luthier.export.source import Source
from luthier.export.texts import plain_ids
from luthier.model import folder as folders
from luthier.model import generate, identity, loading
from luthier.model.loading import LanguageModel
from luthier.model.reference import ModelReference
from luthier.model.tokenizer import HubTokenizer

OnNote = Callable[[str], None]
MOST = 5  # faults of a kind that are named
ROUNDING = 1e-6  # of a merged weight's largest number: machines add up in other orders
MERGED = (
    "the template has no place for a system message: Luthier sets it before the first question, transformers leave it out or "
    "refuse it. The run's rows have none."
)
ELSEWHERE = frozenset({"base_model_name_or_path", "revision"})
"""Settings of an adapter that say where its base is, which an export changes."""


class FolderModel:
    """A folder in transformers, behind the questions that are asked of an exported model; nothing is loaded before them."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.folder, self._source = folder, source

    def __enter__(self) -> "FolderModel":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @cached_property
    def lm(self) -> LanguageModel:
        """The folder as Luthier reads it, which answers many questions at once."""
        return loading.load(str(self.folder))

    @cached_property
    def plain(self) -> Any:
        """The folder as anybody's transformers read it; beside a base in 4 bits, as Luthier does."""
        if (self.folder / loading.BASE_QUANTIZATION).is_file():
            return self.lm.model
        with folders.readable("the exported folder", str(self.folder)):
            return AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()

    @cached_property
    def hub(self) -> Any:
        """Its tokenizer."""
        with folders.readable("the exported folder's tokenizer", str(self.folder)):
            return AutoTokenizer.from_pretrained(self.folder)

    def tokenize(self, texts: Sequence[str], *, special: bool = False, add: bool = False) -> list[list[int]]:
        """Renderings as transformers cut them, plain texts as a message's content is cut."""
        if special:
            return [list(self.hub(text, add_special_tokens=False).input_ids) for text in texts]
        tokenizer = ModelReference.of(str(self.folder)).template().tokenizer
        assert isinstance(tokenizer, HubTokenizer)
        begin = vocabulary_of(self._source, len(self.hub)).begin if add else []
        return [begin + plain_ids(text, tokenizer, self._source.documents) for text in texts]

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], *, begin: int = 0) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Logits after each token from number `begin` on."""
        found: np.ndarray[Any, np.dtype[np.float32]] = self.plain(torch.tensor([list(ids)])).logits[0, begin:].numpy()
        return found

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """As transformers' apply_chat_template does."""
        with folders.readable("the exported folder's chat template", str(self.folder)):
            return str(
                self.hub.apply_chat_template(
                    list(messages), tools=list(tools) or None, tokenize=False, add_generation_prompt=True
                )
            )

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, drafts: Sequence[Sequence[int]] | None = None
    ) -> list[Completion]:
        """Greedy answers, as the run's own were made, without a look at drafts."""
        replies = generate.answer(self.lm, prompts, max_new_tokens=max_new_tokens)
        return [Completion(reply.ids, reply.finish) for reply in replies]


class _Subject:
    """The folder, whose context is the model's own."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._model = FolderModel(folder, source)

    def context(self, needed: int) -> int:
        return needed

    def open(self, context: int, **how: Any) -> FolderModel:
        return self._model


def check(source: Source, folder: Path, *, on_note: OnNote = lambda note: None) -> Report:
    """Hold an exported folder against its run, and leave the report beside it."""
    begin = time.perf_counter()
    exported = ModelReference.of(str(folder))
    engine = f"transformers {importlib.metadata.version('transformers')}"
    report = Report(source.name, str(folder), EXACT, engine, LIMITS[EXACT])
    on_note(f"{EXACT}: {report.limits.words()}.")
    on_note("weights and settings")
    found = _adapter_faults(source, exported) if exported.is_adapter else _whole_faults(source, exported)
    report.faults += islice(found, MOST)
    try:
        compare(source, _Subject(folder, source), report, on_note)
    except UserError as unusable:
        if not report.faults:
            raise
        report.faults.append(f"load: {unusable.message}")
    report.notes = [MERGED] if report.template.get("merged") else []
    report.seconds = time.perf_counter() - begin
    report.write(folder)
    return report


def _adapter_faults(source: Source, exported: ModelReference) -> Iterator[str]:
    """What of an adapter's folder is another than the run's adapter: settings, base, matrices."""
    if not source.reference.is_adapter:
        raise UserError(
            "this folder is an adapter, and the run's model is a whole one; name an export of this run.",
            where=str(exported.folder),
        )
    ours, theirs = (
        json.loads((each.folder / folders.ADAPTER).read_text(encoding="utf-8")) for each in (source.reference, exported)
    )
    for key in sorted((ours.keys() | theirs.keys()) - ELSEWHERE):
        if ours.get(key) != theirs.get(key):
            yield f"setting {key} is {theirs.get(key)!r}, expected {ours.get(key)!r}"
    wanted, base = source.reference.base.folder, exported.base.folder
    if base != wanted and identity.fingerprint(base) != identity.fingerprint(wanted):
        yield f"setting base_model_name_or_path leads to another base model ({base}) than the run's ({wanted})"
    with _tensors(source.reference.folder) as one, _tensors(exported.folder) as other:
        yield from _other_tensors(one, other, rounding=0.0)


def _whole_faults(source: Source, exported: ModelReference) -> Iterator[str]:
    """Weights of a whole model that are others than the run's, an adapter of which is merged again for that."""
    with (
        source.whole_weights(exported.folder) as folder,
        _tensors(folder) as one,
        _tensors(exported.folder) as other,
    ):
        yield from _other_tensors(one, other, rounding=ROUNDING if source.reference.is_adapter else 0.0)


@contextmanager
def _tensors(folder: Path) -> Iterator[dict[str, Any]]:
    """Each weight's name with the open file that holds it."""
    found: dict[str, Any] = {}
    with ExitStack() as opened:
        for path in sorted(folder.glob("*.safetensors")):
            with folders.readable(f"the weights {path.name}", str(folder)):
                file = opened.enter_context(safe_open(path, framework="pt", device="cpu"))
                found |= dict.fromkeys(file.keys(), file)
        yield found


def _other_tensors(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, rounding: float) -> Iterator[str]:
    """The first weights that differ, in words."""
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            yield f"tensor {name} is missing"
        elif name not in ours:
            yield f"tensor {name} is not the model's"
        else:
            one, other = ours[name].get_tensor(name), theirs[name].get_tensor(name)
            if one.shape != other.shape:
                yield f"tensor {name} has the sizes {tuple(other.shape)}, expected {tuple(one.shape)}"
                continue
            apart = (one.float() - other.float()).abs()
            if not bool((apart <= rounding * one.float().abs().max()).all()):
                yield (
                    f"tensor {name} is another than the run's: {float((apart > 0).float().mean()):.1%} of its numbers, by up "
                    f"to {float(apart.max()):.3g}"
                )
