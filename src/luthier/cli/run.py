"""Commands that make a run, go on with it, or evaluate it again; each shows the verdict in the end."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli.arguments import (
    Processes,
    Quiet,
    RecipeFile,
    RunFolder,
    Shard,
    Words,
    command_line,
    load_recipe,
    without_switches,
)
from luthier.errors import FolderGone, Interrupted, MachineError, StoppedAtOnce, UserError

if TYPE_CHECKING:
    from luthier.recipe import Recipe


class Required(StrEnum):
    """What a verdict can be required to be."""

    better = "better"


class RequirementNotMet(UserError):
    """The verdict is not the one that --require asks for: exit code 1."""

    exit_code = 1


def run(
    words: Words = None,
    recipe: RecipeFile = None,
    folder: Annotated[
        Path | None, typer.Option("--run", help="The run's folder; an unfinished run in it is continued.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="First look at the data as `luthier inspect` does; stop at warnings.")
    ] = False,
    processes: Processes = 1,
    until_training: Annotated[
        bool, typer.Option("--until-training", help="Stop before training, which torchrun then does on many machines.")
    ] = False,
    shard: Shard = False,
    quiet: Quiet = False,
) -> None:
    """Prepare the data, ask the base model, fine-tune, ask the tuned model, and give a verdict."""
    words, record_rows = without_switches(words)
    asked = load_recipe(words, recipe)
    if strict:
        _expect_sound(asked)
    _run(
        asked, folder, quiet=quiet, processes=processes, record_rows=record_rows, shards=shard, until_training=until_training
    )  # fmt: skip


def resume(
    run: RunFolder,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Only train.tokens_per_batch may be changed, for example after running out of memory.",
        ),
    ] = None,
    processes: Processes = 1,
    quiet: Quiet = False,
) -> None:
    """Continue a run where it stopped; finished work is not repeated."""
    from luthier.pipeline import resume as resuming
    from luthier.recipe import Recipe
    from luthier.runs import Run

    current = Run(run)
    words, record_rows = without_switches(words)
    if words:
        resuming.change_settings(current, words)
    _run(Recipe(), run, quiet=quiet, processes=processes, record_rows=record_rows)


def evaluate(
    run: RunFolder,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Settings of evaluate, such as evaluate.arms=zero-shot,rag,fine-tuned."
        ),
    ] = None,
    require: Annotated[
        Required | None, typer.Option("--require", help="Exit with code 1 unless the verdict is this.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Evaluate a run again: missing answers are asked for, and what differs from the frozen plan is named."""
    from luthier import pipeline
    from luthier.cli.screens.run import RunScreen, read_verdict, show_result

    screen = RunScreen()
    try:
        with _says_how_to_continue(lambda: "The same command continues."):
            pipeline.evaluate(run, settings or [], listen=None if quiet else screen)
    finally:
        screen.close()
    verdict = read_verdict(run)
    show_result(verdict, run)
    if require and verdict["verdict"] != require.value.upper():
        raise RequirementNotMet(f"required {require.value.upper()}, found {verdict['verdict']}.")


def _expect_sound(asked: "Recipe") -> None:
    """Stops at errors and warnings of `luthier inspect`, and shows them."""
    from luthier.cli.inspect import expect_sound
    from luthier.cli.screens.inspection import Watch, show_stops
    from luthier.pipeline import inspection

    with Watch() as watch:
        found = inspection.inspect(asked, progress=watch).findings
    show_stops(found)
    expect_sound(found, strict=True)


def _run(
    asked: "Recipe",
    folder: Path | None,
    *,
    quiet: bool,
    processes: int,
    record_rows: bool,
    shards: bool = False,
    until_training: bool = False,
) -> None:
    """Do the run, or what is left of it, and show the verdict."""
    from luthier import pipeline
    from luthier.cli.screens.run import RunScreen, read_verdict, show_result

    if folder is not None and asked.data.path is None and pipeline.is_pretraining(folder):
        return continue_pretraining(asked, folder, quiet=quiet)
    screen = RunScreen()
    folder = folder or pipeline.default_folder(asked)
    try:
        with _says_how_to_continue(lambda: _resume_command(folder)):
            pipeline.run(
                asked, folder, listen=None if quiet else screen, command=command_line(), processes=processes,
                record_rows=record_rows, shards=shards, until_training=until_training,
            )  # fmt: skip
    finally:
        screen.close()
    show_result(read_verdict(folder), folder)


@contextlib.contextmanager
def _says_how_to_continue(advice: Callable[[], str]) -> Iterator[None]:
    """Adds to the message of whatever stopped the body how to continue."""
    try:
        yield
    except FolderGone:  # what is in its place may be another run, which is not to be continued
        raise
    except (Interrupted, MachineError) as stop:
        raise type(stop)(f"{stop} {advice()}".strip()) from stop
    except KeyboardInterrupt:
        message = "stopped at once; whatever was complete before is kept."
        raise StoppedAtOnce(f"{message} {advice()}".strip()) from None


def continue_pretraining(asked: "Recipe", folder: Path | None, *, quiet: bool) -> None:
    """Do the pretraining, or what is left of it, and show what came out."""
    from luthier import pipeline
    from luthier.cli.screens.run import RunScreen, show_pretrained

    screen = RunScreen()
    folder = folder or pipeline.default_folder(asked)
    try:
        with _says_how_to_continue(lambda: _resume_command(folder)):
            pipeline.pretrain(asked, folder, listen=None if quiet else screen, command=command_line())
    finally:
        screen.close()
    show_pretrained(folder)


def _resume_command(folder: Path) -> str:
    """The sentence with the command that continues the run; empty where there is nothing to continue."""
    from luthier.runs import Run

    if not (folder / "run.json").exists() or Run(folder).state != "interrupted":
        return ""
    return f"Continue with: luthier resume {shlex.quote(str(folder))}"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (run, resume, evaluate):
        app.command()(command)
