"""A run on the terminal: its progress, its result, and how to go on where it stopped."""

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from luthier import pipeline
from luthier.cli.screen import Screen
from luthier.errors import FolderGone, Interrupted, MachineError, StoppedAtOnce
from luthier.recipe import Recipe
from luthier.runs import Run


def carry_out(asked: Recipe, folder: Path | None, *, quiet: bool, command: str) -> None:
    """Do the run, or what is left of it, and show the verdict; a stop says with which command it goes on."""
    screen = Screen()
    folder = folder or pipeline.default_folder(asked)
    try:
        with stops(lambda: f"Continue with: luthier resume {shlex.quote(str(folder))}" if _interrupted(folder) else ""):
            current = pipeline.run(asked, folder, listen=None if quiet else screen, command=command)
    finally:
        screen.close()
    verdict = json.loads((current.folder / "evaluation" / "verdict.json").read_text(encoding="utf-8"))
    screen.result(verdict, current.folder / "report.html", current.folder)


@contextlib.contextmanager
def stops(go_on: Callable[[], str]) -> Iterator[None]:
    """Adds to whatever stopped the body how it can go on."""
    try:
        yield
    except FolderGone:  # what is in its place may be another run, which is not to go on
        raise
    except (Interrupted, MachineError) as stop:
        raise type(stop)(f"{stop} {go_on()}".strip()) from stop
    except KeyboardInterrupt:
        told = "stopped at once; whatever was complete before is kept."
        raise StoppedAtOnce(f"{told} {go_on()}".strip()) from None


def _interrupted(folder: Path) -> bool:
    return (folder / "run.json").exists() and Run(folder).state == "interrupted"
