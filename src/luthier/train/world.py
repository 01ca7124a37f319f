"""The processes of one training: which of them this is, sums over all of them, and what they have to agree on.

Every process has the whole recipe, all rows and the same weights; each computes the gradient of its share of a step's rows.
What they tell each other goes through torch.distributed and is added up in one order, so that the same number of processes
comes to the same numbers, bit for bit. A process that trains alone is a world of one, where all of it costs nothing.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch import distributed as dist

from luthier.errors import MachineError, UserError

BUCKET = 1 << 22
"""Numbers of small gradients that are added up together: 16 MiB."""
POLL_SECONDS = 0.1


class ProcessLost(MachineError):
    """Another process of the training has died, or gives no sign of life. What this one has computed so far is sound."""


class Store(Protocol):
    """A table that all processes see: torch.distributed's `Store`."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


@dataclass(frozen=True)
class World:
    """One process among those of a training."""

    rank: int = 0
    size: int = 1
    lost: Callable[[float], str | None] = field(default=lambda seconds: None, repr=False)
    """Which process was lost and how, in words, known within so many seconds; None where all are there."""
    store: Store | None = field(default=None, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that records events and writes to the run folder."""
        return self.rank == 0

    def exchange(self, value: Any) -> list[Any]:
        """What each process has called this with, in the order of ranks: anything that JSON can say."""
        if self.size == 1:
            return [value]
        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with self._exchanging():
            lengths = self._exchange_tensors(torch.tensor([len(mine)]))
            longest = int(max(lengths))
            parts = self._exchange_tensors(torch.nn.functional.pad(mine, (0, longest - len(mine))))
        return [json.loads(part[: int(length)].numpy().tobytes()) for part, length in zip(parts, lengths, strict=True)]

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes something; the same answer in all of them."""
        if self.size == 1:
            return wish
        with self._exchanging():
            return any(bool(part) for part in self._exchange_tensors(torch.tensor([wish])))

    def total(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Each figure added up over all processes, in the order of ranks; one that a process has not counts 0 there."""
        totals: dict[str, float] = {}
        for each in self.exchange(sums):
            for name, value in each.items():
                totals[name] = totals[name] + value if name in totals else value
        return totals

    def total_gradients(self, gradients: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients added up over all processes, in fp32 and in the order of the weights.

        A process that has none for a weight counts as zeros; a weight for which nobody has one stays without.
        """
        if self.size == 1:
            return dict(gradients)
        missing = self.exchange([number for number, name in enumerate(weights) if name not in gradients])
        nobody = set.intersection(*map(set, missing))
        names = [name for number, name in enumerate(weights) if number not in nobody]
        totals = {
            name: gradients[name].float().contiguous()
            if name in gradients
            else torch.zeros_like(weights[name], dtype=torch.float32, memory_format=torch.contiguous_format)
            for name in names
        }
        with self._exchanging():
            for together in _buckets(list(totals.values())):
                self._add_up(together)
        return totals

    def expect_same(self, what: Mapping[str, object]) -> None:
        """Raises a UserError that names the first process in which one of these differs from the first one's."""
        each = self.exchange(dict(what))
        for rank, theirs in enumerate(each):
            if wrong := [name for name, value in each[0].items() if theirs.get(name) != value]:
                found = "; ".join(
                    f"{name} {_short(theirs.get(name))} instead of {_short(each[0][name])}" for name in wrong
                )
                raise UserError(
                    f"rank {rank} has {found}. All processes of a training need the same of all of it; nothing was changed."
                )

    def expect_all(self) -> None:
        """Raises ProcessLost where another process is known to be gone, without asking the others."""
        if self.size > 1 and (lost := self.lost(0.0)):
            raise ProcessLost(lost)

    def wait(self) -> None:
        """Go on when all processes are here."""
        self.agree(False)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what the body raises because another process is gone into ProcessLost, also where torch raises it."""
        try:
            yield
        except RuntimeError as error:
            if lost := self.lost(5.0):
                raise ProcessLost(lost) from error
            raise

    @contextlib.contextmanager
    def first_alone(self, name: str) -> Iterator[None]:
        """The body runs in the first process; the others run it when that one is through, and find what it has written."""
        if not self.is_first:
            self.wait_for_first(name)
        yield
        if self.is_first:
            self.wait_for_first(name)

    def wait_for_first(self, name: str) -> None:
        """Go on when the first process has come here, however long it takes; that one waits for nobody."""
        key = f"through/{name}"
        if self.store is None:
            return
        if self.is_first:
            self.store.set(key, "1")
            return
        while not self._is_set(key):
            self.expect_all()
            time.sleep(POLL_SECONDS)

    def _is_set(self, key: str) -> bool:
        assert self.store is not None
        with self._exchanging():
            return bool(self.store.check([key]))

    def _exchange_tensors(self, mine: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine)
        return parts

    def _add_up(self, together: Sequence[Tensor]) -> None:
        """Add up tensors over all processes, in place: a large one as it is, small ones side by side."""
        if len(together) == 1:
            dist.all_reduce(together[0])
            return
        side_by_side = torch.cat([tensor.flatten() for tensor in together])
        dist.all_reduce(side_by_side)
        parts = side_by_side.split([tensor.numel() for tensor in together])
        for tensor, part in zip(together, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    @contextlib.contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Turns what torch.distributed raises where a process is gone into ProcessLost, with what is known of it."""
        try:
            yield
        except RuntimeError as error:
            what = self.lost(5.0) or f"the connection to another process broke ({str(error).splitlines()[0][:200]})."
            raise ProcessLost(what) from error


ALONE = World()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors that are added up together: large ones alone, small ones up to a bucket's size."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if tensor.numel() >= BUCKET // 4:
            yield [tensor]
            continue
        if sum(each.numel() for each in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _short(value: object) -> str:
    """A value as a message shows it: of a hash the beginning."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
