"""What is exported: a run's model with its tokenizer, its template and its rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from luthier import recipe as recipes
from luthier.chat import Template
from luthier.data.dataset import Item
from luthier.data.prepared import Prepared
from luthier.errors import UserError
from luthier.model import loading
from luthier.model.loading import LanguageModel
from luthier.model.reference import ModelReference
from luthier.model.tuned import expect_template, no_model_error
from luthier.recipe import Recipe
from luthier.runs import Run
from luthier.runs.durable import scratch_folder

SPLITS = ("test", "dev", "train")  # what the model has not learnt comes first


@dataclass(frozen=True)
class Source:
    """A run whose model leaves."""

    run: Run
    recipe: Recipe
    reference: ModelReference

    @classmethod
    def of(cls, run: Run) -> "Source":
        """The run's model; refuses a run without one, and one whose template is not that of its training."""
        if not (run.folder / "model").is_dir():
            raise no_model_error(run)
        recipe = recipes.load(run.folder / "recipe.toml")
        found = cls(run, recipe, ModelReference.of(str(run.folder)))
        _ = found.reference.base  # an adapter whose base is gone is refused before anything is done
        expect_template(run, found.template)
        return found

    @property
    def name(self) -> str:
        return str(self.run.folder)

    @cached_property
    def template(self) -> Template:
        """The chat template as it was trained with."""
        chat = self.recipe.chat
        return self.reference.template(variables=chat.variables, today=chat.date)

    @cached_property
    def documents(self) -> bool:
        """Whether the run was trained on texts, and not on conversations."""
        return any(self._rows(split).documents for split in SPLITS if self._has(split))

    def items(self) -> Iterator[Item]:
        """The run's own rows, those first that the model has not learnt."""
        for split in SPLITS:
            if self._has(split):
                yield from self._rows(split).stream()

    def held_out(self) -> list[list[int]]:
        """Rows of the test split as tokens."""
        if not self._has("test"):
            return []
        rows = self._rows("test")
        return [rows[number].ids.tolist() for number in range(len(rows))]

    @contextmanager
    def whole_weights(self, beside: Path) -> Iterator[Path]:
        """A folder with all weights; those of an adapter are merged into its base on the disk of `beside`, and go again."""
        if not self.reference.is_adapter:
            yield self.reference.folder
            return
        with scratch_folder(beside.absolute().parent) as scratch:
            chat = self.recipe.chat
            loading.merge(self.reference, scratch / "merged", variables=chat.variables, today=chat.date)
            yield scratch / "merged"

    def load(self) -> LanguageModel:
        """The model in fp32, as it was evaluated."""
        chat = self.recipe.chat
        return loading.load(self.reference, variables=chat.variables, today=chat.date)

    def _has(self, split: str) -> bool:
        return (self.run.folder / "data" / f"{split}.arrow").is_file()

    def _rows(self, split: str) -> Prepared:
        return Prepared(self.run.folder / "data" / f"{split}.arrow")


def expect_new(out: Path) -> Path:
    """A path that nothing is at yet, in a folder that is there."""
    if out.exists() or out.is_symlink():
        raise UserError("already exists; name another file with --out.", where=str(out))
    if not out.absolute().parent.is_dir():
        raise UserError("there is no such folder to write to; make it first.", where=str(out.absolute().parent))
    return out
