"""The sweep: several runs with one command, one chart, an answer in words."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli.arguments import Quiet, RecipeFile, Words, comma_separated, command_line, load_recipe
from luthier.errors import UserError

if TYPE_CHECKING:
    from luthier.pipeline.sweep.work import Executor


class On(StrEnum):
    """Where points run."""

    here = "here"
    ray = "ray"


def sweep(
    words: Words = None,
    recipe: RecipeFile = None,
    amounts: Annotated[
        str | None,
        typer.Option(
            help="Shares of the training rows in per cent; default 12,25,50,100 if neither models nor settings are varied."
        ),
    ] = None,
    models: Annotated[str | None, typer.Option(help="Base models, with commas between them.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=V1,V2", help="Values of a train setting; may be repeated.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="The sweep's folder; an unfinished sweep in it is continued.")
    ] = None,
    on: Annotated[
        On,
        typer.Option("--on", help="Where the points run: here, one after the other, or side by side as tasks of Ray."),
    ] = On.here,
    cpus: Annotated[
        int | None,
        typer.Option("--cpus-per-point", min=1, help="Cores of a point's task, with --on ray.  [default: 1]"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run amounts of data, base models or settings on the same questions: a curve, and whether more data would help."""
    from luthier.cli.screens.sweep import SweepScreen, show_sweep
    from luthier.pipeline import sweep as sweeps

    executor = _executor(on, cpus)
    asked = load_recipe(words, recipe)
    screen = SweepScreen()
    try:
        sweep_folder = sweeps.run(
            asked,
            folder,
            amounts=None if amounts is None else [_amount(word) for word in comma_separated(amounts, "--amounts")],
            models=[] if models is None else comma_separated(models, "--models"),
            settings=dict(map(_values, settings or [])),
            listen=None if quiet else screen,
            command=command_line(),
            executor=executor,
        )
    finally:
        screen.close()
    show_sweep(sweep_folder)


def _executor(on: On, cpus: int | None) -> "Executor":
    """Who runs the points."""
    from luthier.pipeline.sweep.ray_tasks import RayTasks
    from luthier.pipeline.sweep.work import Here

    if on is On.ray:
        return RayTasks(cpus or 1)
    if cpus is not None:
        raise UserError("has an effect only with --on ray.", where="--cpus-per-point")
    return Here()


def _amount(word: str) -> float:
    try:
        return float(word.removesuffix("%"))
    except ValueError:
        message = f'found "{word}"; expected shares of the training rows in per cent, such as 12,25,50,100.'
        raise UserError(message, where="--amounts") from None


def _values(word: str) -> tuple[str, list[object]]:
    """`train.learning_rate=1e-4,5e-5` as a key and its values."""
    from luthier.recipe import read_value

    key, equals, values = word.partition("=")
    if not equals:
        raise UserError(
            f'expected key=value,value, such as train.learning_rate=1e-4,5e-5, found "{word}".', where="--set"
        )
    return key.strip(), [read_value(key.strip(), value) for value in comma_separated(values, f"--set {key}")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sweep)
