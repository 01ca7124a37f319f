"""Updates of fp32 master weights, whatever number format the model computes in; and the learning rate over time.

Two tables: `OPTIMIZERS` from the word in `train.optimizer` to what makes torch's optimizers, and `SCHEDULES` from the word in
`train.schedule` to the share of the highest rate that is left after a part of the way.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from luthier import extensions
from luthier.errors import UserError
from luthier.extensions import import_optional
from luthier.model import allocator, methods
from luthier.model.device import DTYPES
from luthier.recipe import Train
from luthier.train.checkpoint import Numbers
from luthier.train.master_weights import EVERY, Master, Rows, Space
from luthier.train.optimizer_state import Remembered

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}
"""Part of the updates after the warm-up that are done (0 up to, but never, 1) → share of the highest rate."""


def resolve_schedule(word: str) -> Callable[[float], float]:
    """The schedule of this name."""
    return extensions.resolve("schedule", word, SCHEDULES, where="train.schedule")


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
    """AdamW (Loshchilov and Hutter 2019): 8 bytes of state a weight.

    The state is what torch would make at the first update. Made before, it does not lie among what a step leaves.
    """
    optimizer = torch.optim.AdamW(weights.groups(settings.weight_decay), lr=0.0, fused=True)
    for weight in (weight for group in optimizer.param_groups for weight in group["params"]):
        moments = {name: torch.zeros(weight.shape, device=weight.device) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[weight] = {"step": torch.zeros((), device=weight.device), **moments}
    return [optimizer]


def adamw_8bit(weights: Weights, settings: Train) -> list[torch.optim.Optimizer]:
    """AdamW with moments in blocks of 8-bit numbers (Dettmers et al. 2022): 2 bytes of state a weight."""
    bitsandbytes = import_optional("bitsandbytes", "quantised", where="train.optimizer")
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
        import_optional(*NEEDS[word], where="train.optimizer")
    return extensions.resolve("optimizer", word, OPTIMIZERS, where="train.optimizer")


BY_ROWS = {"adamw"}
"""Optimizers that update each number by itself, so that a large table can be updated a few rows at a time."""

BLOCK = 1 << 20  # weights that are updated together: with moments and gradient 16 MiB, which a processor's cache holds
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
        self.masters: dict[str, Master] = {}
        with allocator.long_lived():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    self.masters[name] = Master(parameter, torch.float32 if wide else compute)
                elif parameter.is_floating_point():
                    parameter.data = parameter.data.to(compute)
            self.optimizers = resolve(settings.optimizer)(_sorted(model, self.masters), settings)
            numbers = sum(master.numel() for master in self.masters.values() if master.rest is not None)
            self.space = Space(2 * min(BLOCK, numbers), next(model.parameters()).device)
        for module in model.modules():
            if hasattr(module, "compute_type_is_set"):  # bitsandbytes: else the first input that ever came would decide
                module.compute_dtype, module.compute_type_is_set = compute, True  # type: ignore[assignment]
        self.by_rows = settings.optimizer in BY_ROWS
        names = {id(master.whole): name for name, master in self.masters.items()}
        _expect_all(self.optimizers, names)
        self.blocks = list(_blocks(self.masters)) if settings.optimizer in OPTIMIZERS else [list(self.masters)]
        self.remembered = Remembered(self.optimizers, names)
        self.switched = [one for one in self.optimizers if hasattr(one, "train") and hasattr(one, "eval")]
        self._switch("train")
        self.gradients: dict[str, Tensor] = {}
        """Sums over the step's backward passes: in the model's number format after one pass, in fp32 after several."""
        self.scale = 1.0

    @torch.no_grad()
    def gather(self) -> None:
        """Take the gradients that a backward pass left in the model; those of several passes are added up in fp32."""
        for name, master in self.masters.items():
            found, master.parameter.grad = master.parameter.grad, None
            if found is not None:
                before = self.gradients.get(name)
                self.gradients[name] = found if before is None else before.float().add_(found)

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
    @torch.profiler.record_function("Optimizer.step#MasterOptimizer.step")
    def step(self, rate: float) -> None:
        """One update at this learning rate; the gradients are gone afterwards.

        A few weights at a time: in fp32 they and their gradients exist only then, and what was read stays in the processor's
        cache. Optimizers of the user's own, which may look at all weights together, are asked once, with all of them.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        for names in self.blocks:
            found = [(self.masters[name], self.gradients.pop(name)) for name in names if name in self.gradients]
            if len(found) == 1 and (parts := self._rows(found[0][0])):
                self._update_rows(*found[0], parts)
            else:
                self._update(found)

    def _update(self, found: Sequence[tuple[Master, Tensor]], rows: Rows = EVERY) -> None:
        """Update these weights, or these rows of them, with these gradients."""
        for master, gradient in found:
            slope = gradient[rows]
            if slope.dtype != master.dtype:
                slope = self.space.like(slope).copy_(slope)
            master.join(self.space, rows)
            master.whole.grad = slope.mul_(self.scale)
        for optimizer in self.optimizers:
            with allocator.long_lived():  # what it remembers from now on
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for master, _ in found:
            master.part(rows)
        self.space.clear()

    def _rows(self, master: Master) -> list[slice]:
        """The parts in which a table is updated that would take hundreds of megabytes in fp32; none if it is updated whole.

        That needs an optimizer to which each number is its own affair, which has begun, and masters beside the parameter.
        """
        possible = self.by_rows and master.rest is not None and master.whole in self.optimizers[0].state
        if not possible or master.numel() <= BLOCK:
            return []
        count = master.shape[0]
        size = max(1, BLOCK * count // master.numel())
        return [slice(start, start + size) for start in range(0, count, size)]

    def _update_rows(self, master: Master, gradient: Tensor, parts: Sequence[slice]) -> None:
        """One update in parts: the optimizer sees a few rows at a time, of the weight and of what it remembers of it."""
        state = self.optimizers[0].state
        remembered = dict(state[master.whole])
        for rows in parts:
            state[master.whole] = {
                key: value[rows] if value.shape == master.shape else value.clone() for key, value in remembered.items()
            }
            self._update([(master, gradient)], rows)
        counts = {key: value for key, value in state[master.whole].items() if remembered[key].shape != master.shape}
        state[master.whole] = remembered | counts

    def state(self) -> dict[str, Numbers]:
        """Everything that the next update depends on, as named tensors, no two of which share memory."""
        tensors: dict[str, Numbers] = {f"weight/{name}": master for name, master in self.masters.items()}
        return tensors | self.remembered.read()

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave, as tensors."""
        for name, master in self.masters.items():
            master.set(tensors[f"weight/{name}"])
        self.remembered.restore(tensors)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the model has the weights to be judged, where an optimizer learns with others (schedule-free ones do)."""
        self._switch("eval")
        try:
            yield
        finally:
            self._switch("train")

    def weights_of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights to be judged of what `state` gave, by name and in fp32; it may be taken back for that."""
        if not self.switched:
            return {name: tensors[f"weight/{name}"] for name in self.masters}
        self.load(tensors)
        with self.evaluating():
            return {name: master.detach().clone() for name, master in self.masters.items()}

    @torch.no_grad()
    def _switch(self, mode: str) -> None:
        """Let the optimizers that have such modes, `train` and `eval`, change the weights from one to the other."""
        if not self.switched:
            return
        for master in self.masters.values():
            master.join(self.space)
        for optimizer in self.switched:
            getattr(optimizer, mode)()
        for master in self.masters.values():
            master.part()
        self.space.clear()


def try_own(settings: Train) -> None:
    """Refuses an optimizer of the user's own that fails on three small weights, before anything heavy starts."""
    if ":" not in settings.optimizer:
        return
    model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4))
    try:
        optimizer = MasterOptimizer(model, settings.model_copy(update={"method": "full"}))
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.gather()
        optimizer.finish(1, settings.clip_norm)
        optimizer.step(settings.learning_rate or 1e-4)
        with optimizer.evaluating():
            optimizer.load({name: numbers.detach() for name, numbers in optimizer.state().items()})
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f'"{settings.optimizer}" failed when it was tried on three small weights: {type(error).__name__}: {error}',
            where="train.optimizer",
        ) from error


def _expect_all(optimizers: Sequence[torch.optim.Optimizer], names: Mapping[int, str]) -> None:
    """Refuses optimizers that do not share all weights among them, or whose step wants more than the gradients."""
    given = [id(weight) for optimizer in optimizers for group in optimizer.param_groups for weight in group["params"]]
    wrong = sorted(name for weight, name in names.items() if given.count(weight) != 1)
    if wrong or len(given) != len(names):
        raise UserError(
            f"expected each weight that learns in one optimizer, found {', '.join(wrong[:3]) or 'other tensors'} in none or in "
            "several. To leave weights as they are, use a train.method of your own.",
            where="train.optimizer",
        )
    for optimizer in optimizers:
        wanted = [one.name for one in signature(optimizer.step).parameters.values() if _is_required(one)]
        if wanted:
            raise UserError(
                f"step() of {type(optimizer).__name__} wants {', '.join(wanted)}: optimizers that compute the gradient again "
                "themselves cannot be used, since a step has many batches. Expected one whose step() takes nothing.",
                where="train.optimizer",
            )


def _is_required(one: Parameter) -> bool:
    return one.default is Parameter.empty and one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _sorted(model: nn.Module, masters: Mapping[str, Master]) -> Weights:
    """The masters by kind. A head that is tied to the embeddings is one weight with them."""
    modules = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    tables = {id(module.weight) for module in [*modules, *([head] if isinstance(head, nn.Linear) else [])]}
    found = Weights([], [], [])
    for master in masters.values():
        weight = master.parameter
        kind = found.vectors if weight.ndim < 2 else found.hidden if weight.ndim == 2 else found.tables
        (found.tables if id(weight) in tables else kind).append(master.whole)
    return found


def _blocks(masters: Mapping[str, Master]) -> Iterator[list[str]]:
    """Names of weights, about as many numbers together as a block may have."""
    names: list[str] = []
    size = 0
    for name, master in masters.items():
        if names and size + master.numel() > BLOCK:
            yield names
            names, size = [], 0
        names.append(name)
        size += master.numel()
    yield names
