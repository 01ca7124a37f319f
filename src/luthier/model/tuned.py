"""Models made by runs: as the start of another run, as several adapters on one base, or merged into a full model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from luthier import recipe as recipes
from luthier.chat import Template
from luthier.data.dataset import Item
from luthier.data.prepared import Prepared
from luthier.errors import CorruptedState, UserError
from luthier.extensions import look_up
from luthier.model import identity, loading, methods
from luthier.model.loading import LanguageModel
from luthier.model.reference import ModelReference
from luthier.recipe import Recipe
from luthier.runs import Run


def starting_model(current: Run, recipe: Recipe) -> LanguageModel:
    """The model that a run starts from, whole, in 4 bits if the method wants it so.

    An adapter is merged into its base first; the result is kept in the run, since its own adapter will need it.
    """
    name, folder = recipe.model, current.folder / "base"
    reference = ModelReference.of(str(folder) if folder.is_dir() else name)
    if reference.is_adapter:
        loading.merge(reference, folder)
        reference = ModelReference.of(str(folder))
    if (Path(name) / "run.json").is_file() and "lineage" not in current.metadata:
        current.update(lineage=_lineage(Run(Path(name))))
    quantised = methods.resolve(recipe.train.method or "full").quantised
    return loading.load(reference, quantised=quantised, variables=recipe.chat.variables, today=recipe.chat.date)


def earlier_training_rows(name: str, split: str) -> Iterator[Item]:
    """Train or dev rows of the runs that a model comes from, as far as their folders are there; locations name the run."""
    while (Path(name) / "run.json").is_file():
        parent = Run(Path(name))
        path = parent.folder / "data" / f"{split}.arrow"
        for item in Prepared(path).stream() if path.is_file() else ():
            yield replace(item, location=f"{parent.folder}: {item.location}")
        name = recipes.load(parent.folder / "recipe.toml").model


def _lineage(parent: Run) -> list[dict[str, Any]]:
    """The runs that a run's model comes from, oldest first."""
    recipe, hashes = recipes.load(parent.folder / "recipe.toml"), parent.metadata["hashes"]
    fields = {"run": str(parent.folder), "started_from": recipe.model, "method": recipe.train.method}
    fields |= {"objective": recipe.train.objective, "data": hashes["data"], "model": hashes["model"]}
    return [*parent.metadata.get("lineage", []), fields]


@dataclass(frozen=True)
class SharedBase:
    """One base model in memory with the adapters of several runs beside it, one of which is on at a time."""

    lm: LanguageModel
    names: Mapping[str, str]
    """The caller's name for an adapter → peft's."""
    systems: Mapping[str, str | None]
    templates: Mapping[str | None, Template]
    """As each run was trained with it: with its variables and its date; the base alone is asked as the first one."""
    thinking: int
    """Room for thoughts, in tokens: the most that a run had."""

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[str | None]:
        """With this adapter on, or with None the base alone; gives the system message of its conversations."""
        assert isinstance(self.lm.model, PeftModel)
        if adapter is None:
            self.lm.template = self.templates[None]
            with self.lm.model.disable_adapter():
                yield None
            return
        self.lm.model.set_adapter(look_up("adapter", adapter, self.names))
        self.lm.template = self.templates[adapter]
        yield self.systems[adapter]


def load_shared(base: str, adapters: Mapping[str, Path], thinking: int | None = None) -> SharedBase:
    """The base model with the adapters of these runs; refuses runs that were trained on another base or template."""
    if not adapters:
        raise UserError("name at least one adapter: adapters={'acme': 'runs/acme'}.", where="adapters")
    runs = {name: Run(folder) for name, folder in adapters.items()}
    lm, names = loading.load_adapters(base, [str(folder) for folder in adapters.values()])
    asked = {name: recipes.load(run.folder / "recipe.toml") for name, run in runs.items()}
    templates: dict[str | None, Template] = {}
    for name, recipe in asked.items():
        chat = recipe.chat
        templates[name] = lm.reference.template(variables=chat.variables, today=chat.date)
        expect_template(runs[name], templates[name])
    templates[None] = templates[next(iter(asked))]
    systems = {name: recipe.data.system for name, recipe in asked.items()}
    if thinking is None:
        thinking = max(recipe.evaluate.thinking_tokens or 0 for recipe in asked.values())
    return SharedBase(lm, dict(zip(adapters, names, strict=True)), systems, templates, thinking)


def merge(run: Run, folder: Path) -> None:
    """Write the whole model that a run's adapter and its base make together, as a plain Hugging Face folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("already exists; name a new folder.", where=str(folder))
    if not folder.absolute().parent.is_dir():
        raise UserError("there is no such folder to write to; make it first.", where=str(folder.absolute().parent))
    if not (run.folder / "model").is_dir():
        raise no_model_error(run)
    tuned = ModelReference.of(str(run.folder))
    if not tuned.is_adapter:
        message = f"there is nothing to merge: {run.folder / 'model'} is a whole model already; copy it."
        raise UserError(message, where=str(run.folder))
    loading.merge(tuned, folder)


def no_model_error(current: Run) -> UserError:
    """The message for a run that has not finished training."""
    return UserError(
        f"this run has no model yet (it is {current.state}); continue it with `luthier resume {current.folder}`.",
        where=str(current.folder),
    )


def expect_template(current: Run, template: Template) -> None:
    """Refuses a chat template that is not the one that the run was trained with."""
    if template.sha256 != current.metadata["hashes"]["template"]:
        raise CorruptedState(
            "the chat template is not the one that the model was trained with; restore model/.",
            where=str(current.folder),
        )


def expect_same_base(current: Run, base: LanguageModel) -> None:
    """Note the base model's hashes; a run that is continued must find the same ones."""
    files = base.reference.digests()
    hashes = {"base_model": identity.fingerprint_of(files), "template": base.template.sha256}
    known = current.metadata.get("hashes", {})
    before: Mapping[str, str] = current.metadata.get("base", {}).get("files", files)
    changed = [
        f"{name} {identity.changed_hash(before.get(name), files.get(name))}"
        for name in sorted({*before, *files})
        if before.get(name) != files.get(name)
    ]
    if known.get("template", hashes["template"]) != hashes["template"] and not changed:
        changed = [f"the chat template {identity.changed_hash(known['template'], hashes['template'])}"]
    if changed or known.get("base_model", hashes["base_model"]) != hashes["base_model"]:
        raise UserError(
            f"the base model is not the one that this run began with ({'; '.join(changed)}). Restore it, or start a new run.",
            where=base.name,
        )
    if "base" not in current.metadata:
        fields = {"name": base.name, "folder": str(base.folder.absolute()), "files": files}
        fields["stamps"] = {
            name: identity.stamp(base.folder / name) for name in files if (base.folder / name).is_file()
        }
        current.update(hashes={**known, **hashes}, base=fields)
