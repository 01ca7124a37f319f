"""Commands on runs that are there: list them, write a report again, check every file, merge an adapter into its base."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.arguments import RunFolder
from luthier.errors import CorruptedState

RESTORE = "Restore it from a copy, or start a new run."
ADVICE = {
    "checkpoints": "An unfinished run continues from the last intact checkpoint: luthier resume {run}.",
    "model": "Remove model/; it is made again from the checkpoint, bit for bit, by luthier resume {run}.",
    "evaluation": "Remove it and evaluation/verdict.json; they are made again by luthier resume {run}.",
}
"""What to do about damage, by the folder it is in."""


def runs(root: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("runs")) -> None:
    """List the runs in a folder with their state and verdict."""
    from luthier.cli.screens.runs import show_runs
    from luthier.runs import find

    show_runs(*find(root), root)


def report(run: RunFolder) -> None:
    """Write a run's report again and print the verdict."""
    from luthier import report as reports
    from luthier.cli.screens.run import read_verdict, show_result
    from luthier.runs import Run

    current = Run(run)
    with current.lock():
        path = reports.write(current.folder)
    if (run / "evaluation" / "verdict.json").exists():
        show_result(read_verdict(run), run)
    else:
        print(f"No verdict yet: the run is {current.state}.\nReport  {path}")


def verify(
    run: RunFolder,
    exported: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="PATH",
            help="Hold this exported file or folder against the run; exit code 1 if it differs.",
        ),
    ] = None,
) -> None:
    """Check every file of a run against what was recorded when it was written; exit code 5 if one is damaged."""
    if exported is not None:
        _verify_export(run, exported)
        return
    from luthier.cli.screens.runs import show_finding
    from luthier.runs import Run
    from luthier.runs import verify as integrity
    from luthier.runs.durable import format_bytes

    current = Run(run)
    findings = []
    for finding in integrity.verify(current):
        show_finding(finding)
        findings.append(finding)
    damaged = [finding.name for finding in findings if finding.problem]
    if damaged:
        advice = " ".join(dict.fromkeys(ADVICE.get(name.partition("/")[0], RESTORE) for name in damaged))
        raise CorruptedState(
            f"{len(damaged)} of {len(findings)} parts {'is' if len(damaged) == 1 else 'are'} damaged: {', '.join(damaged)}. "
            f"{advice.format(run=shlex.quote(str(run)))}",
            where=str(run),
        )
    total = format_bytes(sum(finding.bytes for finding in findings))
    print(f"All {len(findings)} parts are intact, {total}; the run is {current.state}.")


def _verify_export(run: Path, file: Path) -> None:
    """Whether an exported file is the run's model."""
    from luthier import export as exporting
    from luthier.cli import export

    export.show(exporting.verify(run, file, on_note=export.print_note))


def merge(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder for the whole model.")],
) -> None:
    """Make one whole model of a run's adapter and its base, for programs that do not support adapters."""
    from luthier.export import card
    from luthier.model import tuned
    from luthier.runs import Run

    tuned.merge(Run(run), folder)
    card.write(run, folder, form="merged")
    print(f"Model  {folder}")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (runs, report, verify, merge):
        app.command()(command)
