"""The list of runs, and what a check of one found."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from luthier.cli.screens.terminal import COLOURS, console
from luthier.errors import UserError
from luthier.runs import Run
from luthier.runs.durable import format_bytes
from luthier.runs.verify import Finding


def show_finding(finding: Finding) -> None:
    """A part of a run: whole, or damaged and how."""
    word = "[red]damaged[/]" if finding.problem else "[yellow]note   [/]" if finding.note else "[green]ok     [/]"
    remark = finding.problem or finding.note
    line = f"{word}  {escape(finding.name)}  [dim]{format_bytes(finding.bytes)}[/]"
    console().print(line + (f"  {escape(remark)}" if remark else ""))


def show_runs(runs: Sequence[Run], unreadable: Sequence[UserError], root: Path) -> None:
    """A line per run: name, state, model, verdict; below, those that cannot be read and why."""
    if not runs and not unreadable:
        print(f"No runs in {root}. Start one with: luthier run DATA")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "state", "model", "verdict", "difference"):
        table.add_column(title, overflow="fold")
    for run in runs:
        model = str(run.metadata.get("asked", {}).get("model", "–"))
        table.add_row(escape(str(run.folder)), run.state, escape(model), *_verdict(run))
    if runs:
        console().print(table)
    for error in unreadable:
        print(f"{error}")


def _verdict(run: Run) -> tuple[str, str]:
    """The run's verdict and difference, as the table shows them."""
    try:
        found = json.loads((run.folder / "evaluation" / "verdict.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "–", "–"
    except (OSError, ValueError):
        return "[red]damaged[/]", "–"
    difference = _difference(found["difference"], higher_is_better=found["higher_is_better"])
    return f"[{COLOURS[found['verdict']]}]{found['verdict']}[/]", difference


def _difference(value: float, *, higher_is_better: bool) -> str:
    if higher_is_better:
        return f"{value * 100:+.1f} points"
    direction = "lower" if value > 0 else "higher"
    return f"{abs(value):.3f} bits per byte{f' {direction}' if round(value, 3) else ''}"
