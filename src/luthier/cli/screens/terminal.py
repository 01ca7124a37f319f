"""The terminal: how wide it is, whether a person reads it, and what all screens share."""

import sys

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

COLOURS = {"BETTER": "green", "WORSE": "red", "EQUIVALENT": "cyan", "NOT SHOWN": "yellow", "WITHHELD": "magenta"}


def console(*, stderr: bool = False) -> Console:
    """A terminal as wide as it is; a pipe wide enough for any table of ours, since nobody folds lines there."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=None if terminal else 1000)


def print_whole(out: Console, table: Table) -> None:
    """A table as wide as its content: a narrow terminal folds its lines, where fitting it in would lose names and numbers."""
    needed = Measurement.get(out, out.options.update(max_width=1000), table).maximum
    out.width = max(out.width, needed)
    out.print(table)


def count(number: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """`1:05` is a minute and five seconds, `1:00:00` an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def interactive() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()
