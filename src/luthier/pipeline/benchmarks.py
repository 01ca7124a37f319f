"""Benchmarks of a run's model beside its base, or of a model alone."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from luthier import inference
from luthier import recipe as recipes
from luthier.errors import UserError
from luthier.evaluate import benchmark as harness
from luthier.evaluate.benchmark import BenchmarkSettings
from luthier.model import reference
from luthier.model.loading import LanguageModel
from luthier.recipe import PretrainRecipe, Recipe
from luthier.runs import Run

Listener = Callable[[dict[str, Any]], None]


def benchmark(
    name: str, asked: BenchmarkSettings, *, base: bool | None = None, listen: Listener | None = None
) -> dict[str, Any]:
    """A run's model on benchmarks, beside the base model; left in evaluation/benchmarks.json. Another model alone, unwritten.

    `base` measures the base model too; by default where there is one.
    """
    current = Run(Path(name)) if (Path(name) / "run.json").is_file() else None
    if base and current is None:
        raise UserError(
            "only a run has a base model to compare with; leave out --base, or name a run's folder.", where=name
        )
    models = {"fine-tuned": name} if current else {name: name}
    settings = Recipe()
    if current:
        settings = recipes.load(current.folder / "recipe.toml")
        asked = replace(asked, system=settings.data.system, thinking_tokens=settings.evaluate.thinking_tokens)
        made_anew = isinstance(settings, PretrainRecipe) and not settings.continues
        if made_anew and base:
            raise UserError("its model was made from nothing, so there is no base model to compare with.", where=name)
        if base is not False and not made_anew:
            models["base"] = settings.model
    for model in models.values():
        reference.find_folder(model)

    def load(arm: str) -> LanguageModel:
        asked = inference.load_base(current) if current and arm == "base" else inference.load_model(models[arm])
        return asked.lm

    def progress(number: int) -> Callable[[int, int], None]:
        def report(done: int, of: int) -> None:
            if listen:
                listen({"kind": "arm", "arm": list(models)[number], "split": "benchmark", "done": done, "of": of})

        return report

    with current.lock() if current else nullcontext():
        results, notes = harness.run_benchmark(asked, [partial(load, arm) for arm in models], progress)
        record = harness.make_record(
            dict(zip(models, results, strict=True)), asked, notes, alpha=settings.evaluate.alpha
        )
        if current:
            harness.save_record(current.folder / "evaluation", record)
    return record.summary
