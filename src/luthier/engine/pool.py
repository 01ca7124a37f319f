"""Engines by name, in bounded memory: loaded when they are asked for, unloaded when memory is wanted and nobody is answered."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from luthier.engine.adapters import NotShared
from luthier.engine.engine import Engine
from luthier.errors import MachineError
from luthier.model import loading, memory
from luthier.model.device import pick_device
from luthier.model.loading import LanguageModel
from luthier.model.reference import ModelReference
from luthier.runs.durable import format_bytes

WAIT_SECONDS = 60.0  # for engines that answer to become free
MARGIN = 1.1  # of a model's files: what loading takes beyond them


@dataclass(frozen=True)
class ModelSource:
    """What a name stands for: a base model by name or folder, and the folder of a LoRA adapter beside it."""

    base: str
    adapter: Path | None = None


Resolver = Callable[[str], ModelSource]
"""The name in a request → what it stands for; raises a `UserError` for a name that there is not."""
Load = Callable[[str], LanguageModel]


@dataclass(frozen=True)
class Served:
    """An engine that answers for a name, and the adapter that requests must name; `Pool.engine` gives one."""

    engine: Engine
    adapter: str | None


class TooLarge(MachineError):
    """A model needs more memory than models may take, or more than is free while others answer."""


@dataclass
class _Entry:
    """An engine that is there or on its way, and by how many it is used now."""

    bytes: int
    ready: "Future[Engine]" = field(default_factory=Future)
    users: int = 0


class Pool:
    """Engines within `memory_bytes` of weights in all; adapters share their base's engine, others have their own.

    `resolve` says what a name stands for. Loading runs in a thread of its own; all who ask for the same model wait for one
    load. `make` makes an engine of a model.
    """

    def __init__(
        self,
        resolve: Resolver,
        *,
        memory_bytes: int | None = None,
        load: Load = loading.load,
        make: Callable[[LanguageModel], Engine] = Engine,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._resolve, self._load, self._make = resolve, load, make
        self.memory_bytes = memory_bytes if memory_bytes is not None else memory.available(pick_device()) // 2
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._adapters = threading.Lock()
        self._refused: set[Path] = set()
        """Adapters that cannot share a base with others."""
        self._closed = False

    @property
    def loaded(self) -> list[str]:
        """Models that are in memory, the one used longest ago first."""
        with self._changed:
            return [name for name, entry in self._entries.items() if entry.ready.done()]

    @property
    def engines(self) -> dict[str, Engine]:
        """The engines that are ready, by model."""
        with self._changed:
            ready = [(name, entry.ready) for name, entry in self._entries.items() if entry.ready.done()]
        return {name: future.result() for name, future in ready if not future.exception()}

    @contextmanager
    def engine(self, name: str) -> Iterator[Served]:
        """The engine that answers for a name, loaded if it must be; it stays as long as this context."""
        source = self._resolve(name)
        if source.adapter is not None and source.adapter not in self._refused:
            with self._using(source.base) as engine:
                if (adapter := self._adapter(engine, source.adapter)) is not None:
                    yield Served(engine, adapter)
                    return
        with self._using(source.base if source.adapter is None else str(source.adapter)) as engine:
            yield Served(engine, None)

    def unload(self, name: str) -> None:
        """Forget what a name stands for: its adapter, or its model when nobody is answered by it."""
        source = self._resolve(name)
        if source.adapter is not None and (engine := self.engines.get(source.base)):
            with self._adapters:
                if str(source.adapter) in engine.adapters:
                    engine.remove_adapter(str(source.adapter))
        key = source.base if source.adapter is None else str(source.adapter)
        with self._changed:
            entry = self._entries.get(key)
            if entry and entry.ready.done() and not entry.users:
                self._end(key)

    def close(self, *, drain: bool = False) -> None:
        """End all engines."""
        with self._changed:
            self._closed = True
            entries = list(self._entries.values())
            self._entries.clear()
        for entry in entries:
            if not entry.ready.exception():
                entry.ready.result().close(drain=drain)

    def _adapter(self, engine: Engine, folder: Path) -> str | None:
        """The name of an adapter beside its base, read if it must be; None where it needs an engine of its own."""
        name = str(folder)
        if name not in engine.adapters:
            with self._adapters:
                try:
                    if name not in engine.adapters:
                        engine.add_adapter(name, folder)
                except NotShared:
                    self._refused.add(folder)
                    return None
        return name

    @contextmanager
    def _using(self, model: str) -> Iterator[Engine]:
        wanted = 0 if model in self._entries else _bytes(model)
        with self._changed:
            entry = self._entry(model, wanted)
            entry.users += 1
        try:
            yield entry.ready.result()
        finally:
            with self._changed:
                entry.users -= 1
                self._changed.notify_all()

    def _entry(self, model: str, wanted: int) -> _Entry:
        """The entry of a model, which begins to be loaded where it is not there; it needs so many bytes."""
        if model not in self._entries:
            wanted = wanted or _bytes(model)
            self._make_room(wanted, model)
        if self._closed:
            raise MachineError("the models are being unloaded, since the service ends.")
        if model not in self._entries:  # nor was it begun while this waited for room
            entry = self._entries[model] = _Entry(wanted)
            threading.Thread(target=self._fill, args=(model, entry), name=f"loading {model}", daemon=True).start()
        self._entries.move_to_end(model)
        return self._entries[model]

    def _make_room(self, wanted: int, model: str) -> None:
        """Unload what nobody uses, the one used longest ago first, until there is room; waits a while for others."""
        if wanted > self.memory_bytes:
            raise TooLarge(
                f"the model needs {format_bytes(wanted)}, and models may take {format_bytes(self.memory_bytes)} in all; "
                "name a smaller model.",
                where=model,
            )

        def fits() -> bool:
            while model not in self._entries and self._held + wanted > self.memory_bytes:
                idle = [name for name, each in self._entries.items() if not each.users and each.ready.done()]
                idle = [name for name in idle if not _answers(self._entries[name])]
                if not idle:
                    return False
                self._end(idle[0])
            return True

        if not self._changed.wait_for(fits, self._wait_seconds):
            raise TooLarge(
                f"there is no room for the model ({format_bytes(wanted)}) beside those that are answering now "
                f"({format_bytes(self._held)} of {format_bytes(self.memory_bytes)}); try again later.",
                where=model,
            )

    @property
    def _held(self) -> int:
        return sum(entry.bytes for entry in self._entries.values())

    def _end(self, model: str) -> None:
        """Unload a model that is not used."""
        entry = self._entries.pop(model)
        if not entry.ready.exception():
            entry.ready.result().close()

    def _fill(self, model: str, entry: _Entry) -> None:
        """Load, in a thread of its own. What fails is told to all who wait, and can be tried again."""
        try:
            engine = self._make(self._load(model))
        except BaseException as error:
            with self._changed:
                if self._entries.get(model) is entry:
                    del self._entries[model]
                entry.ready.set_exception(error)
                self._changed.notify_all()
            return
        with self._changed:
            entry.ready.set_result(engine)
            self._changed.notify_all()


def _answers(entry: _Entry) -> bool:
    """Whether an engine has something to do."""
    if entry.ready.exception():
        return False
    stats = entry.ready.result().stats()
    return bool(stats.slots_in_use or stats.queued)


def _bytes(model: str) -> int:
    """Memory that a model's weights take in fp32; of an adapter, its base's."""
    return int(MARGIN * 4 * ModelReference.of(model).spec.parameters)
