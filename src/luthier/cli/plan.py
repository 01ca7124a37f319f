"""Commands that show what a run would do: its recipe, and what it needs. Nothing is changed."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli.arguments import Processes, RecipeFile, Shard, Words, load_recipe
from luthier.errors import MachineError, UserError

if TYPE_CHECKING:
    from luthier.recipe import Recipe


def recipe(
    words: Words = None,
    recipe: RecipeFile = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the recipe's JSON Schema instead.")] = False,
) -> None:
    """Print the recipe that a run on this data would use, each value with its reason."""
    from luthier import recipe as recipes

    if schema:
        print(recipes.schema())
        return
    asked = load_recipe(words, recipe)
    from luthier import pipeline
    from luthier.cli.screens.inspection import Watch
    from luthier.cli.screens.plan import data_lines

    with _shows_reading(asked), Watch("Data") as watch:
        prepared = pipeline.prepare(asked, progress=watch.rows)
    for line in data_lines(prepared.dataset):
        print(f"# {line}", file=sys.stderr)
    print(recipes.render(prepared.recipe, prepared.reasons), end="")


def plan(
    words: Words = None,
    recipe: RecipeFile = None,
    memory: Annotated[
        float | None, typer.Option("--memory", min=0.1, help="Plan for a GPU with so many GiB instead of this machine.")
    ] = None,
    processes: Processes = 1,
    shard: Shard = False,
    probe: Annotated[bool, typer.Option(help="Make three steps to measure the time.")] = True,
) -> None:
    """Estimate what a training needs: memory by part, disk, time; whether it fits, and what would make it fit."""
    from luthier.cli.screens.inspection import Watch
    from luthier.cli.screens.plan import show_plan
    from luthier.pipeline import estimate
    from luthier.recipe import PretrainRecipe

    asked = load_recipe(words, recipe)
    if isinstance(asked, PretrainRecipe):
        if processes > 1 or shard:
            raise UserError("has no effect on a pretraining, which one process does.", where="--processes")
        return _plan_pretraining(asked, memory=memory, probe=probe)
    available = round(memory * 2**30) if memory else None
    with _shows_reading(asked), Watch("Data") as watch:
        found = estimate.training(
            asked, memory_bytes=available, processes=processes, shards=shard, try_steps=probe, progress=watch.rows
        )
    show_plan(found, probe=probe)
    if not found.fits:
        raise SystemExit(MachineError.exit_code)


def _plan_pretraining(asked: "Recipe", *, memory: float | None, probe: bool) -> None:
    from luthier.cli.screens.pretrain_plan import show_pretrain_plan
    from luthier.pipeline import pretrain_plan

    if memory is not None:
        raise UserError("has no effect on a pretraining, which is planned for this machine.", where="--memory")
    found = pretrain_plan.plan(asked, try_steps=probe)
    show_pretrain_plan(found)
    if not found.fits:
        raise SystemExit(MachineError.exit_code)


@contextlib.contextmanager
def _shows_reading(asked: "Recipe") -> Iterator[None]:
    """Where the body fails, how the data is read is shown before the message: it may be what is wrong."""
    from luthier.cli.screens.plan import data_lines
    from luthier.data import load

    try:
        yield
    except UserError:
        if asked.data.path is not None:
            with contextlib.suppress(UserError):
                for line in data_lines(load(asked.data)):
                    print(f"# {line}", file=sys.stderr)
        raise


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (recipe, plan):
        app.command()(command)
