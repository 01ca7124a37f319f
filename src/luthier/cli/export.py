"""The command that lets a run's model leave, and what is said of an exported file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli.arguments import RunFolder

if TYPE_CHECKING:
    from luthier.export import Report

DIFFERS = 1
"""Exit code where an exported file is not the model that the run has evaluated, within the limits of its number format."""


def export(
    run: RunFolder,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="KIND",
            help="adapter, merged, vllm, gguf, gguf-adapter, ollama, or package.module:function.",
        ),
    ],
    type: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="FORMAT", help="Of gguf and ollama: f32, f16, bf16, q8_0 or q4_k_m.  [default: f16]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File or folder to write.  [default: named after the run]")
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Write what cannot be checked too; the report says so.")
    ] = False,
) -> None:
    """Write a run's model as other programs run it, and hold what was written against the run; exit code 1 if it differs."""
    from luthier import export as exporting

    artefact, report = exporting.export(run, to=to, type=type, out=out, unchecked=unchecked, on_note=print_note)
    print(f"{'File' if artefact.path.is_file() else 'Folder'}  {artefact.path}")
    if artefact.serve:
        print(f"Serve   {artefact.serve}")
    if report is not None:
        show(report)


def show(report: "Report") -> None:
    """Print a parity report; ends with exit code 1 where the file is not the run's model."""
    from luthier.cli.screens.export import show_parity

    show_parity(report)
    if not report.passed:
        raise SystemExit(DIFFERS)


def print_note(note: str) -> None:
    """Print something beside the result."""
    print(f"luthier: {note}", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)
