"""The command that works on the jobs of a service; `luthier serve` keeps such processes by itself."""

from pathlib import Path
from typing import Annotated

import typer

from luthier.errors import MachineError, UserError


def worker(
    home: Annotated[Path, typer.Option("--home", help="The folder of the service whose jobs are to be done.")],
) -> None:
    """Do the fine-tuning jobs of a service, one after the other, until Ctrl-C; the running one is kept and goes on later."""
    try:
        from luthier.jobs import worker as workers
    except ModuleNotFoundError as error:
        raise MachineError(f"needs {error.name}: pip install 'luthier[serve]'.", where="luthier worker") from None
    if not (home / "home-id").is_file():
        raise UserError("no service has worked here yet; start one with `luthier serve --home`.", where=str(home))
    workers.serve(home)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)
