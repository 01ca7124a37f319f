"""Which models there are, by the names that clients use; a name from outside never becomes a path.

There are the models that the server was started with, those in its home's folder `models`, and each key's own tuned ones.
"""

import re
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from luthier.errors import UserError
from luthier.jobs.database import now
from luthier.jobs.errors import NotFound
from luthier.jobs.model_table import ORGANIZATION
from luthier.jobs.rows import ModelRow
from luthier.jobs.store import Store
from luthier.model.folder import is_adapter
from luthier.model.reference import ModelReference, absolute
from luthier.serve.backends.addresses import is_address
from luthier.serve.errors import APIError, log

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:/@+\-]{0,255}")
"""What a model can be called in a request."""
ELSEWHERE = "backend"
"""Who owns models that answer at another server."""
LISTED = 12
"""Names that a message shows."""


@dataclass(frozen=True, kw_only=True)
class ListedModel:
    """A model that can answer: its name, and who made it when."""

    name: str
    created: int
    owned_by: str
    parent: str | None = None
    """Of a tuned model: its base, as the client named it."""


@dataclass(frozen=True, kw_only=True)
class KnownModel(ListedModel):
    """One whose files are here."""

    folder: Path


class Catalogue:
    """`named` are models that are served under names; each is looked up once. `elsewhere` are names of backends."""

    def __init__(self, home: Path, named: Mapping[str, str], store: Store, *, elsewhere: Collection[str] = ()) -> None:
        self._home, self._store = home, store
        self._named = dict(named)
        self._elsewhere = [ListedModel(name=name, created=now(), owned_by=ELSEWHERE) for name in elsewhere]
        self._folders: dict[str, Path] = {}
        self._lock = threading.Lock()

    def bases(self) -> Iterator[KnownModel]:
        """The models that nobody tuned here."""
        for name, reference in self._named.items():
            yield self._base(name, reference)
        folder = self._home / "models"
        for inside in sorted(folder.iterdir()) if folder.is_dir() else ():
            taken = {*self._named, *(model.name for model in self._elsewhere)}
            if inside.name not in taken and NAME.fullmatch(inside.name):
                try:
                    yield self._base(inside.name, str(inside))
                except UserError as unusable:
                    log.warning("left out: %s", unusable)

    def all(self, key: str) -> list[ListedModel]:
        """Everything that this key may ask."""
        return [*self.bases(), *self._elsewhere, *(self._tuned(row) for row in self._store.models.list(key))]

    def listed(self, name: str, key: str) -> ListedModel:
        """The model with this name, wherever it answers."""
        return next((model for model in self._elsewhere if model.name == name), None) or self.find(name, key)

    def find(self, name: str, key: str) -> KnownModel:
        """The model with this name, whose files are here; what is wrong is said as OpenAI says it."""
        if any(model.name == name for model in self._elsewhere):
            message = f"The model '{name}' answers at another server. It takes chat and plain completions, and cannot do this."
            raise APIError(400, message, "model", "model_not_supported")
        base = next((known for known in self.bases() if known.name == name), None)
        if base:
            return base
        try:
            return self._tuned(self._store.models.get(key, name))
        except NotFound:
            names = [known.name for known in self.all(key)]
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            raise APIError(
                404,
                f"The model '{name[:80]}' does not exist or is not yours. There are: {', '.join(names[:LISTED])}{more}.",
                param="model",
                code="model_not_found",
            ) from None

    def trainable(self, name: str, key: str) -> str:
        """What a recipe calls the model."""
        found = self.find(name, key)
        return self._named.get(name) or str(found.folder)

    def _base(self, name: str, reference: str) -> KnownModel:
        with self._lock:
            if name not in self._folders:
                self._folders[name] = ModelReference.of(reference).folder
        folder = self._folders[name]
        return KnownModel(name=name, folder=folder, created=int(folder.stat().st_mtime), owned_by="luthier")

    def _tuned(self, row: ModelRow) -> KnownModel:
        folder = self._store.model_folder(row)
        return KnownModel(
            name=row.name, folder=folder, created=row.created_at, owned_by=ORGANIZATION, parent=row.base
        )  # fmt: skip


def base_and_adapter(folder: Path) -> tuple[Path, Path | None]:
    """A model's base, which may be shared by many, and its adapter if it is one."""
    if not is_adapter(folder):
        return folder, None
    return ModelReference.of(str(folder)).base.folder, folder


def parse_named(words: list[str]) -> dict[str, str]:
    """Names of models and what they stand for, from words such as `smollm2-135m`, `FOLDER`, `NAME=FOLDER` or `NAME=URL`.

    Raises a UserError where a name cannot stand in a request, or stands for two models.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, reference = word.partition("=")
        if is_address(name):
            raise UserError(f"a model at an address needs a name: --model NAME={name}.", where="--model")
        if not equals:
            name, reference = Path(word).name if Path(word).exists() else word, word
        if not NAME.fullmatch(name):
            raise UserError(f'"{name}" is no name for a model; give one: --model NAME={reference}.', where="--model")
        if name in found:
            raise UserError(f"two models are called {name}; give one another name: NAME=FOLDER.", where="--model")
        found[name] = reference if is_address(reference) else absolute(reference)
    return found
