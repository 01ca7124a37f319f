"""Updates of fp32 master weights, whatever dtype the model computes in; and the learning rate over time.

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
from torch.distributed.tensor import DTensor

from luthier import extensions
from luthier.errors import UserError
from luthier.extensions import import_optional
from luthier.model import allocator, methods
from luthier.model.device import DTYPES
from luthier.recipe import Train
from luthier.train.checkpoint import Deferred, Stored, as_tensor
from luthier.train.master_weights import ALL_ROWS, Master, RowRange, Workspace
from luthier.train.optimizer_state import OptimizerState
from luthier.train.world import ALONE, World

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
    """Embeddings and the head, a row for each token; and what has more than two dimensions, such as stacked experts."""
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


def muon(weights: Weights, settings: Train) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for hidden matrices, AdamW for tables and vectors.

    An update of a matrix is its momentum with all singular values near 1, scaled to the size of AdamW's updates (Liu et al.
    2025), so that one learning rate fits both.
    """
    rest = Weights([], weights.tables, weights.vectors)
    found: list[torch.optim.Optimizer] = adamw(rest, settings) if rest.tables or rest.vectors else []
    if weights.hidden:
        decay = settings.weight_decay
        found.append(torch.optim.Muon(weights.hidden, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return found


OPTIMIZERS: dict[str, Build] = {"adamw": adamw, "adamw-8bit": adamw_8bit, "adafactor": adafactor, "muon": muon}
"""Optimizers by the word in `train.optimizer`; a dotted name "package.module:function" reaches your own."""

PACKAGES = {"adamw-8bit": ("bitsandbytes", "quantised")}
"""Packages without which some of the optimizers do not work, and the extras that bring them."""


def resolve(word: str) -> Build:
    """What builds the optimizer of this name; refuses one whose package is missing."""
    if word in PACKAGES:
        import_optional(*PACKAGES[word], where="train.optimizer")
    return extensions.resolve("optimizer", word, OPTIMIZERS, where="train.optimizer")


BY_ROWS = {"adamw"}
"""Optimizers that update each number by itself, so that a large table can be updated a few rows at a time.

Their state must exist before the first update, as `adamw` makes it.
"""

BLOCK = 1 << 20  # weights that are updated together: with moments and gradient 16 MiB, which a processor's cache holds
PIECE = 1 << 20  # numbers whose squares are summed at once: in fp32, 4 MiB


@dataclass(frozen=True)
class Clip:
    """The norm of a step's gradient, and by what the accumulated gradients are multiplied before the update."""

    norm: float
    """Of the mean gradient, before it is clipped; not finite if any of its numbers is not."""
    scale: float
    """NaN where the norm is not finite."""


class MasterOptimizer:
    """The optimizer of a recipe over the trainable parameters of a model.

    A step is `accumulate` after each backward pass, then `total_gradients` where there are several processes, then `clip`, then
    `step`. Gradients of micro-batches are added up in fp32.
    The update happens in fp32; the model's own weights are then the rounded masters. In fp32 a parameter is its own master.
    """

    def __init__(self, model: nn.Module, settings: Train) -> None:
        """Makes fp32 masters of the trainable weights, then rounds the weights to the dtype of `settings.precision`.

        Trainable weights that a method keeps in fp32 are their own masters. Frozen weights that are no plain numbers (4 bits
        packed into bytes) stay as they are.
        """
        dtype = DTYPES[settings.precision or "fp32"]
        keep_fp32 = methods.resolve(settings.method or "full").keep_fp32
        self.masters: dict[str, Master] = {}
        with allocator.long_lived():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    self.masters[name] = Master(parameter, torch.float32 if keep_fp32 else dtype)
                elif parameter.is_floating_point():
                    parameter.data = parameter.data.to(dtype)
            self.optimizers = resolve(settings.optimizer)(_by_kind(model, self.masters), settings)
            split = [master.parameter.numel() for master in self.masters.values() if master.low_bits is not None]
            self.workspace = Workspace(2 * min(BLOCK, sum(split)), next(model.parameters()).device)
        for module in model.modules():
            if hasattr(module, "compute_type_is_set"):  # bitsandbytes: else the first input that ever came would decide
                module.compute_dtype, module.compute_type_is_set = dtype, True  # type: ignore[assignment]
        self.by_rows = settings.optimizer in BY_ROWS
        names = {id(master.full): name for name, master in self.masters.items()}
        _require_each_weight_once(self.optimizers, names)
        self.blocks = list(_blocks(self.masters)) if settings.optimizer in OPTIMIZERS else [list(self.masters)]
        self.optimizer_state = OptimizerState(self.optimizers, names)
        self.schedule_free = [one for one in self.optimizers if hasattr(one, "train") and hasattr(one, "eval")]
        self._switch_mode("train")
        self.is_sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
        self.world = ALONE
        """The processes that hold the other parts, where the model is sharded."""
        self.gradients: dict[str, Tensor] = {}
        """Sums over the step's backward passes: in the model's dtype after one pass, in fp32 after several."""

    @torch.no_grad()
    def accumulate(self) -> None:
        """Take the gradients that a backward pass left in the model; those of several passes are added up in fp32."""
        for name, master in self.masters.items():
            gradient, master.parameter.grad = master.parameter.grad, None
            if gradient is not None:
                gradient = gradient.to_local() if isinstance(gradient, DTensor) else gradient
                total = self.gradients.get(name)
                self.gradients[name] = gradient if total is None else total.float().add_(gradient)

    @torch.no_grad()
    def total_gradients(self, world: World) -> None:
        """Add up what all processes have accumulated; from here on each has the same, in fp32."""
        if self.is_sharded:  # each part has been added up where it is, on the way back
            self.world = world
            return
        weights = {name: master.parameter for name, master in self.masters.items()}
        self.gradients = world.total_gradients(self.gradients, weights)

    @torch.no_grad()
    def clip(self, count: int, limit: float) -> Clip:
        """What brings the norm of the mean gradient to `limit` at most: the mean is the accumulated sum divided by `count`."""
        parts = [part for gradient in self.gradients.values() for part in gradient.flatten().split(PIECE)]
        norms = [torch.linalg.vector_norm(part, dtype=torch.float32) for part in parts]
        whole = float(torch.linalg.vector_norm(torch.stack(norms)))
        if self.is_sharded:
            whole = math.sqrt(self.world.total({"squares": whole * whole})["squares"])
        norm = whole / count
        return Clip(norm, min(1.0, limit / (norm + 1e-6)) / count if math.isfinite(norm) else math.nan)

    @torch.no_grad()
    @torch.profiler.record_function("Optimizer.step#MasterOptimizer.step")
    def step(self, rate: float, scale: float) -> None:
        """One update at this learning rate with the accumulated gradients times `scale`; they are gone afterwards.

        A few weights at a time: in fp32 they and their gradients exist only then, and what was read stays in the processor's
        cache. An optimizer of the user's own, which may look at all weights together, steps once with all of them.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        for names in self.blocks:
            found = [(self.masters[name], self.gradients.pop(name)) for name in names if name in self.gradients]
            if len(found) == 1 and (ranges := self._row_ranges(found[0][0])):
                self._update_by_rows(*found[0], scale, ranges)
            else:
                self._update(found, scale)

    def _update(self, found: Sequence[tuple[Master, Tensor]], scale: float, rows: RowRange = ALL_ROWS) -> None:
        """Update these weights, or these rows of them, with these gradients times `scale`."""
        for master, accumulated in found:
            gradient = accumulated[rows]
            if gradient.dtype != torch.float32:
                gradient = self.workspace.empty_like(gradient).copy_(gradient)
            master.merge(self.workspace, rows)
            master.full.grad = gradient.mul_(scale)
        for optimizer in self.optimizers:
            with allocator.long_lived():  # state that it makes now
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for master, _ in found:
            master.split(rows)
        self.workspace.clear()

    def _row_ranges(self, master: Master) -> list[slice]:
        """The rows that are updated together where a whole table would take hundreds of megabytes in fp32; else none.

        Possible with an optimizer that updates each number by itself and has its state already, and with split masters.
        """
        weight = master.parameter
        possible = self.by_rows and master.low_bits is not None and master.full in self.optimizers[0].state
        if not possible or weight.numel() <= BLOCK:
            return []
        count = max(1, BLOCK * len(weight) // weight.numel())
        return [slice(start, start + count) for start in range(0, len(weight), count)]

    def _update_by_rows(self, master: Master, gradient: Tensor, scale: float, ranges: Sequence[slice]) -> None:
        """One update in parts: the optimizer sees a few rows at a time, of the weight and of its state."""
        state, shape = self.optimizers[0].state, master.parameter.shape
        whole = dict(state[master.full])
        for rows in ranges:
            state[master.full] = {
                key: value[rows] if value.shape == shape else value.clone() for key, value in whole.items()
            }
            self._update([(master, gradient)], scale, rows)
        counts = {key: value for key, value in state[master.full].items() if whole[key].shape != shape}
        state[master.full] = whole | counts

    def state(self) -> dict[str, Stored]:
        """Everything that the next update depends on, as named tensors, no two of which share memory."""
        masters: dict[str, Stored] = {
            f"weight/{name}": Deferred(torch.float32, master.full.shape, master.tensor)
            for name, master in self.masters.items()
        }
        return masters | self.optimizer_state.read()

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, as tensors."""
        for name, master in self.masters.items():
            master.load(tensors[f"weight/{name}"])
        self.optimizer_state.restore(tensors)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the model has the weights to evaluate, where an optimizer trains others (schedule-free ones do)."""
        self._switch_mode("eval")
        try:
            yield
        finally:
            self._switch_mode("train")

    def weights_of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights to evaluate, by name and in fp32, from what `state` returned; it may be loaded for that."""
        if not self.schedule_free:
            return {name: tensors[f"weight/{name}"] for name in self.masters}
        self.load(tensors)
        with self.evaluating():
            return {name: master.tensor().clone() for name, master in self.masters.items()}

    @torch.no_grad()
    def _switch_mode(self, mode: str) -> None:
        """Let the optimizers that have the modes `train` and `eval` change the weights from one to the other."""
        if not self.schedule_free:
            return
        for master in self.masters.values():
            master.merge(self.workspace)
        for optimizer in self.schedule_free:
            getattr(optimizer, mode)()
        for master in self.masters.values():
            master.split()
        self.workspace.clear()


def check_own_optimizer(settings: Train) -> None:
    """Refuses an optimizer of the user's own that fails on three small weights, before anything heavy starts."""
    if ":" not in settings.optimizer:
        return
    model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4))
    try:
        optimizer = MasterOptimizer(model, settings.model_copy(update={"method": "full"}))
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.accumulate()
        optimizer.step(settings.learning_rate or 1e-4, optimizer.clip(1, settings.clip_norm).scale)
        with optimizer.evaluating():
            optimizer.load({name: as_tensor(stored) for name, stored in optimizer.state().items()})
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f'"{settings.optimizer}" failed in a trial on three small weights: {type(error).__name__}: {error}',
            where="train.optimizer",
        ) from error


def _require_each_weight_once(optimizers: Sequence[torch.optim.Optimizer], names: Mapping[int, str]) -> None:
    """Refuses optimizers that do not share all weights among them, or whose step wants more than the gradients."""
    weights = [id(weight) for optimizer in optimizers for group in optimizer.param_groups for weight in group["params"]]
    wrong = sorted(name for weight, name in names.items() if weights.count(weight) != 1)
    if wrong or len(weights) != len(names):
        raise UserError(
            f"expected each trained weight in one optimizer, found {', '.join(wrong[:3]) or 'other tensors'} in none or in "
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


def _by_kind(model: nn.Module, masters: Mapping[str, Master]) -> Weights:
    """The masters by kind. A head that is tied to the embeddings is one weight with them."""
    modules = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    tables = {id(module.weight) for module in [*modules, *([head] if isinstance(head, nn.Linear) else [])]}
    found = Weights([], [], [])
    for master in masters.values():
        weight = master.parameter
        kind = found.vectors if weight.ndim < 2 else found.hidden if weight.ndim == 2 else found.tables
        (found.tables if id(weight) in tables else kind).append(master.full)
    return found


def _blocks(masters: Mapping[str, Master]) -> Iterator[list[str]]:
    """Names of weights, about as many numbers together as a block may have."""
    names: list[str] = []
    numbers = 0
    for name, master in masters.items():
        if names and numbers + master.parameter.numel() > BLOCK:
            yield names
            names, numbers = [], 0
        names.append(name)
        numbers += master.parameter.numel()
    yield names
