"""Models ready to answer: an engine of the pool, and the template and system message that a model was tuned with."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from luthier import recipe as recipes
from luthier.chat import Message, Template
from luthier.engine.engine import Engine
from luthier.engine.pool import ModelSource, Pool, Served
from luthier.errors import UserError
from luthier.model.reference import ModelReference
from luthier.serve.catalogue import KnownModel, base_and_adapter
from luthier.serve.errors import log


@dataclass(frozen=True)
class Voice:
    """A model as it answers: its engine, its adapter there, and the template that its conversations are rendered with."""

    engine: Engine
    adapter: str | None
    template: Template
    system: str | None = None
    """What its conversations begin with where they bring no system message: as in the run that tuned it."""

    @property
    def context(self) -> int:
        return self.engine.lm.context

    def with_system(self, spoken: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages, behind the system message of the model's run where they bring none."""
        if self.system and not any(message.role == "system" for message in spoken):
            return (Message("system", self.system), *spoken)
        return spoken


class Engines:
    """The engines of a server, in bounded memory; the pool knows models by their folders."""

    def __init__(self) -> None:
        self._pool = Pool(_source)
        self._voices: dict[Path, tuple[Template, str | None]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def speaking(self, known: KnownModel) -> Iterator[Voice]:
        """The model, which stays in memory as long as this context; loads what is not there, which takes seconds."""
        with self._pool.engine(str(known.folder)) as served:
            with self._lock:
                if known.folder not in self._voices:
                    self._voices[known.folder] = _template_and_system(known, served)
                template, system = self._voices[known.folder]
            yield Voice(served.engine, served.adapter, template, system)

    def prepare(self, known: KnownModel) -> None:
        """Begin to load a model that is likely to be asked first; whoever asks for it waits for this one load."""

        def load() -> None:
            try:
                with self.speaking(known):
                    pass
            except UserError as unusable:
                log.warning("cannot load %s: %s", known.name, unusable)

        threading.Thread(target=load, name=f"preparing {known.name}", daemon=True).start()

    def forget(self, folder: Path) -> None:
        """A model is about to be deleted; answers that have begun are finished."""
        self._pool.unload(str(folder))
        with self._lock:
            self._voices.pop(folder, None)

    def figures(self) -> Mapping[str, float]:
        """What all engines together are doing."""
        stats = [engine.stats() for engine in self._pool.engines.values()]
        return {
            "engines": len(stats),
            "slots": sum(each.slots for each in stats),
            "slots_in_use": sum(each.slots_in_use for each in stats),
            "requests_waiting": sum(each.queued for each in stats),
        }

    def close(self) -> None:
        """End all engines at once; who still waits for an answer hears so."""
        self._pool.close()


def _source(folder: str) -> ModelSource:
    base, adapter = base_and_adapter(Path(folder))
    return ModelSource(str(base), adapter)


def _template_and_system(known: KnownModel, served: Served) -> tuple[Template, str | None]:
    """As in the model's run, if it is one's; else the model's own."""
    reference, run = ModelReference(known.name, known.folder), known.folder.parent
    if (run / "recipe.toml").is_file():
        recipe = recipes.load(run / "recipe.toml")
        return reference.template(variables=recipe.chat.variables, today=recipe.chat.date), recipe.data.system
    return (served.engine.lm.template if served.adapter is None else reference.template()), None
