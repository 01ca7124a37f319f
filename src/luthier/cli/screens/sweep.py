"""The screen of a sweep: each point's progress, then a line per point and the answers."""

import json
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from luthier.cli.screens.run import RunScreen
from luthier.cli.screens.terminal import COLOURS, console, print_whole
from luthier.pipeline.sweep import FILE
from luthier.report.score_units import metric_name


class SweepScreen:
    """A fresh screen for each point, under a line that names the point."""

    def __init__(self) -> None:
        self._screen = RunScreen()

    def __call__(self, event: dict[str, Any]) -> None:
        if event["kind"] == "point":
            self._screen.close()
            self._screen = RunScreen()
            self._screen.err.print(f"\n[bold]Point {event['number']} of {event['of']}[/]  {event['name']}")
        elif event["kind"] == "point_done":
            self._screen.err.print(f"{event['name']} is complete")
        else:
            self._screen(event)

    def close(self) -> None:
        """Take the progress line away."""
        self._screen.close()


def show_sweep(folder: Path) -> None:
    """A line per point, the answers, and where the chart is."""
    record = json.loads((folder / FILE).read_text(encoding="utf-8"))
    scale, digits = (100, 1) if record["higher_is_better"] else (1, 3)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("point")
    for title in ("rows", metric_name(record["metric"]), "95 % interval", "best prompt", "dev loss", "verdict"):
        table.add_column(title, justify="right")
    for each in record["results"]:
        low, high = each["interval"]
        table.add_row(
            escape(each["name"]),
            f"{each['rows']:,}",
            f"{each['mean'] * scale:.{digits}f}",
            f"{low * scale:.{digits}f} – {high * scale:.{digits}f}",
            f"{each['prompt_mean'] * scale:.{digits}f}",
            "–" if each["dev_loss"] is None else f"{each['dev_loss']:.3f}",
            f"[{COLOURS[each['verdict']]}]{each['verdict']}[/]",
        )
    print_whole(console(), table)
    print()
    for answer in record["answers"]:
        print(answer)
    print(f"\nChart   {folder / 'sweep.html'}")
