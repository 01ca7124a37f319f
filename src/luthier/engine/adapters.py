"""Adapters beside one base model, each for the rows of a batch that ask for it: LoRA as hooks on the base's linear layers.

A row's output is W·x + s·B·(A·x) with its own A and B, as peft computes it. The matrices of all adapters in a batch stand side
by side, so that several cost little more than one; what is not a row's own is left out. The base's modules stay what they are.
"""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from peft.tuners import lora
from torch import Tensor, nn

from luthier.errors import UserError, unknown
from luthier.model import identity, weights
from luthier.model.causal import base_model
from luthier.model.loading import BASE_QUANTIZATION, LanguageModel
from luthier.model.reference import ModelReference
from luthier.model.weights import PEFTS

OWN_ENGINE = "it cannot share a batch with others; serve it as a model of its own"
TRIAL = ((3, 4, 5), (5, 4, 3))  # rows of tokens by which a model shows whether it keeps rows apart


class Matrices(NamedTuple):
    """What an adapter adds to a linear layer: `up @ down`, the scale in it."""

    down: Float[Tensor, "rank inputs"]
    up: Float[Tensor, "outputs rank"]


class _Stack(NamedTuple):
    """The matrices of several adapters for a layer, side by side; `owners` has for each rank the number of its adapter."""

    down: Float[Tensor, "ranks inputs"]
    up: Float[Tensor, "outputs ranks"]
    owners: Int[Tensor, " ranks"]
    sizes: tuple[int, ...]
    """How many ranks each adapter has."""


class _Mixed:
    """The adapters of batches whose rows do not all have the same one, and to which of them each row of this batch belongs."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self.stacks: dict[str, _Stack] = {}
        """By layer, each made when it is first asked for."""
        self._of_rows: Int[Tensor, "rows 1 1"] = torch.empty(0, 1, 1)
        self._others: dict[tuple[int, ...], Tensor] = {}

    def begin(self, keys: Sequence[str | None], device: torch.device) -> None:
        """The next batch: the adapter of each of its rows."""
        numbers = [-1 if key is None else self.keys.index(key) for key in keys]
        self._of_rows = torch.tensor(numbers, device=device)[:, None, None]
        self._others = {}

    def others(self, stack: _Stack) -> Bool[Tensor, "rows 1 ranks"]:
        """What of a stack is not a row's own."""
        if stack.sizes not in self._others:
            self._others[stack.sizes] = stack.owners != self._of_rows
        return self._others[stack.sizes]


Weights = Mapping[str, Matrices]
"""An adapter: layers by their name in the base model."""


class NotShared(UserError):
    """An adapter that cannot be one of several beside a base, because it is more than LoRA on linear layers."""


class RowsMixed(RuntimeError):
    """A layer was given something else than a tensor of rows: experts, for example, see tokens of all rows together."""


class RowAdapters:
    """The adapters of an engine. A name may be given to another adapter while rows still use the old one: keys differ."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.keeps_rows_apart = True
        """Whether rows of several adapters may share a batch."""
        self._keys: dict[str, str] = {}
        self._weights: dict[str, Weights] = {}
        self._hooked: set[str] = set()
        self._numbers = itertools.count(1)
        self._rows = 0
        self._own: str | None = None
        """The adapter of all rows of the batch that is computed now; where they have several, `_mixed` has them."""
        self._mixed: _Mixed | None = None
        self._last_mixed = _Mixed(())

    @property
    def names(self) -> list[str]:
        return sorted(self._keys)

    def key(self, name: str | None) -> str | None:
        """What rows of this adapter go by; raises for an unknown name."""
        if name is None:
            return None
        if name not in self._keys:
            raise unknown("adapter", name, self.names)
        return self._keys[name]

    def read(self, name: str, folder: Path) -> Weights:
        """The matrices of an adapter's folder, checked; may be called from any thread, and changes nothing."""
        reference = ModelReference.of(str(folder))
        if not reference.is_adapter:
            raise UserError(f"a whole model, not an adapter: {OWN_ENGINE}.", where=name)
        if (reference.folder / BASE_QUANTIZATION).is_file():
            raise NotShared(f"this adapter was trained beside a base in 4 bits: {OWN_ENGINE}.", where=name)
        if identity.fingerprint(reference.base.folder) != identity.fingerprint(self.lm.folder):
            raise UserError(f"this adapter was trained beside another base, not beside {self.lm.name}.", where=name)
        inner = base_model(self.lm.model)
        shared = {id(tensor): tensor for tensor in (*inner.parameters(), *inner.buffers())}
        twin = copy.deepcopy(inner, memo=shared)  # modules of its own over the same weights
        adapted, _ = weights.adapt(twin, reference.folder, name)
        found = dict(_matrices(adapted, set(shared), name))
        for layer, matrices in found.items():
            if not all(bool(torch.isfinite(matrix).all()) for matrix in matrices):
                raise UserError(f"the adapter's weights hold NaN or infinity, in {layer}: get it again.", where=name)
        return found

    def add(self, name: str, found: Weights) -> None:
        """Rows may ask for the adapter from now on; an older one of that name stays for the rows that have it."""
        inner = base_model(self.lm.model)
        for layer in found.keys() - self._hooked:
            inner.get_submodule(layer).register_forward_hook(self._hook(layer))
            self._hooked.add(layer)
        key = f"{name} {next(self._numbers)}"
        self._weights[key] = found
        if self.keeps_rows_apart:
            self.keeps_rows_apart = self._try(key)
        self._keys[name] = key

    def remove(self, name: str) -> None:
        """New rows can no longer ask for it."""
        self.key(name)
        del self._keys[name]

    def forget(self, used: set[str | None]) -> list[str]:
        """Frees what neither has a name nor is used by a row; gives the keys that are gone."""
        gone = [key for key in self._weights if key not in used and key not in self._keys.values()]
        for key in gone:
            del self._weights[key]
        if gone:
            self._last_mixed = _Mixed(())
        return gone

    @contextmanager
    def using(self, keys: Sequence[str | None]) -> Iterator[None]:
        """Inside, each row of a batch has its adapter. All the same: batches may have any number of rows."""
        distinct = tuple(sorted({key for key in keys if key is not None}))
        if len(set(keys)) > 1:
            if self._last_mixed.keys != distinct:
                self._last_mixed = _Mixed(distinct)
            self._mixed = self._last_mixed
            self._mixed.begin(keys, self.lm.device)
        elif distinct:
            (self._own,) = distinct
        self._rows = len(keys)
        try:
            yield
        finally:
            self._own = self._mixed = None

    def _hook(self, layer: str) -> Any:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            (states,) = inputs
            if self._own is not None and (own := self._weights[self._own].get(layer)):
                return output + (states @ own.down.T) @ own.up.T
            if self._mixed is None or (stack := self._stack(self._mixed, layer)) is None:
                return None
            if states.dim() != 3 or len(states) != self._rows:
                raise RowsMixed(f"{layer} is given {tuple(states.shape)} for {self._rows} rows")
            lowered = (states @ stack.down.T).masked_fill_(self._mixed.others(stack), 0)
            return output + lowered @ stack.up.T

        return add

    def _stack(self, mixed: _Mixed, layer: str) -> _Stack | None:
        """The matrices of these adapters for a layer; None where none has any."""
        if layer not in mixed.stacks:
            parts = [self._weights[key].get(layer) for key in mixed.keys]
            found = [part for part in parts if part is not None]
            if not found:
                return None
            sizes = tuple(0 if part is None else len(part.down) for part in parts)
            owners = [number for number, size in enumerate(sizes) for _ in range(size)]
            down, up = torch.cat([part.down for part in found]), torch.cat([part.up for part in found], dim=1)
            mixed.stacks[layer] = _Stack(down, up, torch.tensor(owners, device=down.device), sizes)
        return mixed.stacks[layer]

    @torch.inference_mode()
    def _try(self, key: str) -> bool:
        """Whether the model computes a batch of which one row has an adapter."""
        try:
            with self.using([None, key]):
                self.lm.model(input_ids=torch.tensor(TRIAL, device=self.lm.device), use_cache=False)
        except RowsMixed:
            return False
        return True


def _matrices(model: nn.Module, base: set[int], name: str) -> Iterator[tuple[str, Matrices]]:
    """Each layer's matrices; refuses an adapter that has more than these beside the weights of the base."""
    used = set(base)
    for layer, module in model.named_modules():
        if type(module) is lora.Linear and not module.lora_variant:
            (own,) = module.lora_A
            down, up = (part[own].get_parameter("weight") for part in (module.lora_A, module.lora_B))
            used |= {id(down), id(up)}
            scaled = up.detach() * module.scaling[own]
            yield layer.removeprefix(PEFTS), Matrices(down.detach().contiguous(), scaled.contiguous())
    left = [each for each, weight in model.named_parameters() if id(weight) not in used]
    if left:
        more = next((each for each in left if ".lora_A." not in each and ".lora_B." not in each), left[0])
        raise NotShared(f"the adapter is more than LoRA on linear layers (it has {more}): {OWN_ENGINE}.", where=name)
