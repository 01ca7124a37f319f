"""The commands about a run's safety: go on with it, and see whether it is still what was written."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from luthier.errors import CorruptedState

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Only train.tokens_per_batch may change, when memory was short."),
]

RESTORE = "Restore it from a copy, or start a new run."
ADVICE = {
    "checkpoints": "An unfinished run goes on from the whole one before: luthier resume {run}.",
    "model": "Remove model/ and have it made again from the checkpoint, bit for bit: luthier resume {run}.",
    "evaluation": "Remove the damaged file and evaluation/verdict.json, and have it made again: luthier resume {run}.",
}
"""What to do about damage, by the folder it is in."""


def resume(
    run: RunFolder,
    words: Words = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
) -> None:
    """Continue a run where it stopped; what is there already is not done again."""
    from luthier.cli.run import carry_out
    from luthier.pipeline import resume as resuming
    from luthier.recipe import Recipe
    from luthier.runs import Run

    current = Run(run)
    if words:
        resuming.change(current, words)
    carry_out(Recipe(), run, quiet=quiet, command="luthier " + shlex.join(sys.argv[1:]))


def verify(run: RunFolder) -> None:
    """Check every file of a run against what was recorded when it was written; exit code 5 if one is damaged."""
    from rich.markup import escape

    from luthier.cli.screen import console
    from luthier.runs import Run
    from luthier.runs import verify as integrity
    from luthier.runs.durable import size

    current, out = Run(run), console()
    found = []
    for finding in integrity.verify(current):
        found.append(finding)
        word = "[red]damaged[/]" if finding.damage else "[yellow]note   [/]" if finding.note else "[green]ok     [/]"
        told = finding.damage or finding.note
        out.print(
            f"{word}  {escape(finding.name)}  [dim]{size(finding.bytes)}[/]" + (f"  {escape(told)}" if told else "")
        )
    damaged = [finding for finding in found if finding.damage]
    if damaged:
        names = ", ".join(finding.name for finding in damaged)
        advice = " ".join(dict.fromkeys(ADVICE.get(finding.name.partition("/")[0], RESTORE) for finding in damaged))
        raise CorruptedState(
            f"{len(damaged)} of {len(found)} parts are damaged: {names}. {advice.format(run=shlex.quote(str(run)))}",
            where=str(run),
        )
    out.print(
        f"All {len(found)} parts are whole, {size(sum(finding.bytes for finding in found))}; the run is {current.state}."
    )
