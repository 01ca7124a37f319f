"""Updates of fp32 master weights, whatever number format the model computes in; and the learning rate over time.

Two tables: `OPTIMIZERS` from the word in `train.optimizer` to what makes torch's optimizers, and `SCHEDULES` from the word in
`train.schedule` to the share of the highest rate that is left after a part of the way.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from luthier.errors import entry, optional
from luthier.model import methods
from luthier.model.device import DTYPES
from luthier.recipe import Train

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}
"""Part of the updates after the warm-up that are done (0 up to, but never, 1) → share of the highest rate."""


def resolve_schedule(word: str) -> Callable[[float], float]:
    """The schedule of this name."""
    return entry("schedule", word, SCHEDULES, where="train.schedule")


def learning_rate(step: int, *, highest: float, steps: int, warmup: int, schedule: str) -> float:
    """Rate of the update number `step` (from 1): linear warm-up to `highest`, then down to 0 at the end.

    The last update of a cosine or linear schedule still moves: 0 would be reached one step after it.
    """
    if step <= warmup:
        return highest * step / warmup
    return highest * resolve_schedule(schedule)((step - warmup - 1) / max(1, steps - warmup))


@dataclass(frozen=True)
class Weights:
    """Master weights by what they are, since optimizers treat them differently."""

    hidden: list[Tensor]
    """Matrices that turn one vector into another."""
    tables: list[Tensor]
    """Matrices with a row for each token: embeddings and the head."""
    vectors: list[Tensor]
    """Norms and biases, which no weight decay is for."""

    def groups(self, decay: float) -> list[dict[str, Any]]:
        """torch's parameter groups: matrices with weight decay, vectors without it."""
        matrices = [*self.hidden, *self.tables]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": self.vectors, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]


class Build(Protocol):
    """Makes torch's optimizers for these weights, each weight in one of them; the rate is set before every update."""

    def __call__(self, weights: Weights, settings: Train) -> list[torch.optim.Optimizer]: ...


def adamw(weights: Weights, settings: Train) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2019): 8 bytes of state a weight."""
    return [torch.optim.AdamW(weights.groups(settings.weight_decay), lr=0.0, fused=True)]


def adamw_8bit(weights: Weights, settings: Train) -> list[torch.optim.Optimizer]:
    """AdamW with moments in blocks of 8-bit numbers (Dettmers et al. 2022): 2 bytes of state a weight."""
    bitsandbytes = optional("bitsandbytes", "quantised", where="train.optimizer")
    return [bitsandbytes.optim.AdamW8bit(weights.groups(settings.weight_decay), lr=0.0)]


def adafactor(weights: Weights, settings: Train) -> list[torch.optim.Optimizer]:
    """Adafactor (Shazeer and Stern 2018): a matrix's second moments as a row and a column, no first ones.

    The rate is absolute, as where transformers' Adafactor is given one, and not relative to the size of the weights: that
    would hold back adapters, which start at 0.
    """
    return [torch.optim.Adafactor(weights.groups(settings.weight_decay), lr=0.0, eps=(None, 1.0))]


OPTIMIZERS: dict[str, Build] = {"adamw": adamw, "adamw-8bit": adamw_8bit, "adafactor": adafactor}
"""Optimizers by the word in `train.optimizer`; a dotted name "package.module:function" reaches your own."""

NEEDS = {"adamw-8bit": ("bitsandbytes", "quantised")}
"""Packages, and the extras that bring them, which some of the optimizers need."""


def resolve(word: str) -> Build:
    """What builds the optimizer of this name; refuses one whose package is missing."""
    if word in NEEDS:
        optional(*NEEDS[word], where="train.optimizer")
    return entry("optimizer", word, OPTIMIZERS, where="train.optimizer")


BLOCK = 4 << 20  # weights that are updated together: with moments and gradient 64 MiB
PIECE = 1 << 20  # numbers whose squares are summed at once: in fp32, 4 MiB


class MasterOptimizer:
    """The optimizer of a recipe over the trainable parameters of a model.

    Gradients of micro-batches are added up in fp32. The update happens in fp32; the model's own weights are then the rounded
    masters. In fp32 a parameter is its own master.
    """

    def __init__(self, model: nn.Module, settings: Train) -> None:
        """Keeps fp32 masters of what can learn, then puts the weights into the number format of `settings.precision`.

        What a method wants computed in fp32 is its own master. Frozen weights that are no plain numbers (4 bits packed into
        bytes) stay as they are.
        """
        compute = DTYPES[settings.precision or "fp32"]
        wide = compute == torch.float32 or methods.resolve(settings.method or "full").wide
        self.parameters: dict[str, nn.Parameter] = {}
        self.masters: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            learns = parameter.requires_grad
            if learns:
                self.parameters[name] = parameter
                self.masters[name] = parameter if wide else parameter.detach().clone()
                assert parameter.dtype == torch.float32, f"{name} is {parameter.dtype}; masters start from fp32 weights"
            if parameter.is_floating_point() and not (learns and wide):
                parameter.data = parameter.data.to(compute)
        for module in model.modules():
            if hasattr(module, "compute_type_is_set"):  # bitsandbytes: else the first input that ever came would decide
                module.compute_dtype, module.compute_type_is_set = compute, True  # type: ignore[assignment]
        self.optimizers = resolve(settings.optimizer)(_sorted(model, self.masters), settings)
        self.blocks = list(_blocks(self.masters))
        self.gradients: dict[str, Tensor] = {}
        """Sums over the step's backward passes: in the model's number format after one pass, in fp32 after several."""
        self.scale = 1.0

    @torch.no_grad()
    def gather(self) -> None:
        """Take the gradients that a backward pass left in the model; those of several passes are added up in fp32."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            before = self.gradients.get(name)
            self.gradients[name] = parameter.grad if before is None else before.float().add_(parameter.grad)
            parameter.grad = None

    @torch.no_grad()
    def finish(self, learnt: int, largest: float) -> float:
        """Settle by what the summed gradients are multiplied: their mean per learnt token has a norm of at most `largest`.

        Returns the norm before that; it is not finite if any value is not.
        """
        self.gather()
        parts = [part for gradient in self.gradients.values() for part in gradient.flatten().split(PIECE)]
        norms = [torch.linalg.vector_norm(part, dtype=torch.float32) for part in parts]
        norm = float(torch.linalg.vector_norm(torch.stack(norms))) / learnt
        self.scale = min(1.0, largest / (norm + 1e-6)) / learnt if math.isfinite(norm) else math.nan
        return norm

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update at this learning rate; the gradients are gone afterwards.

        A few weights at a time: their fp32 gradients exist only then, and what was read stays in the processor's cache.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        for names in self.blocks:
            for name in names:
                if (gradient := self.gradients.pop(name, None)) is not None:
                    self.masters[name].grad = gradient.float().mul_(self.scale)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            self.write_back(names)

    @torch.no_grad()
    def write_back(self, names: Iterable[str]) -> None:
        """Round the masters into the model's weights."""
        for name in names:
            parameter = self.parameters[name]
            if parameter is not self.masters[name]:
                parameter.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Everything that the next update depends on, as named tensors, no two of which share memory."""
        tensors = {f"weight/{name}": master.detach() for name, master in self.masters.items()}
        seen: set[int] = set()
        for name, key, value in self._entries():
            if not isinstance(value, Tensor):
                value = torch.tensor(value)  # a count that the optimizer keeps as a plain number
            elif value.data_ptr() in seen:  # a table that it shares between weights
                value = value.clone()
            seen.add(value.data_ptr())
            tensors[f"{key}/{name}"] = value
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        kept: dict[str, dict[str, Any]] = {name: {} for name in self.masters}
        for name, master in self.masters.items():
            master.copy_(tensors[f"weight/{name}"])
        for full, value in tensors.items():
            key, _, name = full.partition("/")
            if key != "weight":
                plain = value.ndim == 0 and not value.is_floating_point()
                kept[name][key] = value.item() if plain else value.clone()
        for optimizer in self.optimizers:
            state = optimizer.state_dict()
            names = self._names(optimizer)
            state["state"] = {number: kept[name] for number, name in enumerate(names) if kept[name]}
            optimizer.load_state_dict(state)
        self.write_back(self.masters)

    def _names(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """The names of an optimizer's weights in its own order."""
        names = {id(master): name for name, master in self.masters.items()}
        return [names[id(weight)] for group in optimizer.param_groups for weight in group["params"]]

    def _entries(self) -> Iterator[tuple[str, str, Any]]:
        """Weight, key and value of everything that the optimizers remember."""
        for optimizer in self.optimizers:
            for name in self._names(optimizer):
                for key, value in optimizer.state.get(self.masters[name], {}).items():
                    yield name, key, value


def _sorted(model: nn.Module, masters: Mapping[str, Tensor]) -> Weights:
    """The masters by kind. A head that is tied to the embeddings is one weight with them."""
    modules = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    tables = {id(module.weight) for module in [*modules, *([head] if isinstance(head, nn.Linear) else [])]}
    parameters = dict(model.named_parameters())
    found = Weights([], [], [])
    for name, master in masters.items():
        kind = found.vectors if master.ndim < 2 else found.hidden if master.ndim == 2 else found.tables
        (found.tables if id(parameters[name]) in tables else kind).append(master)
    return found


def _blocks(weights: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Names of weights, about as many numbers together as a block may have."""
    names: list[str] = []
    size = 0
    for name, weight in weights.items():
        if names and size + weight.numel() > BLOCK:
            yield names
            names, size = [], 0
        names.append(name)
        size += weight.numel()
    yield names
