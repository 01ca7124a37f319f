"""What people decided: the marks of a review, and ratings from votes."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from luthier.cli.screens.terminal import console, print_whole
from luthier.evaluate.judge.ratings import Rating
from luthier.review import Result


def show_marks(result: Result) -> None:
    """The marks by what was chosen, then the sentence."""
    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("marks for")
    table.add_column("", justify="right")
    for name, count in result.counts.items():
        table.add_row(name, f"{count:,}")
    print_whole(out, table)
    out.print()
    print(result.sentence)


def show_ratings(found: Sequence[Rating]) -> None:
    """A line per player, the best first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("player")
    for title in ("rating", "95 % interval", "votes", "won"):
        table.add_column(title, justify="right")
    for rating in found:
        low, high = rating.interval
        won = f"{100 * rating.wins / rating.votes:.0f} %"
        table.add_row(escape(rating.name), f"{rating.rating:.0f}", f"{low:.0f} – {high:.0f}", f"{rating.votes:,}", won)
    print_whole(console(), table)
    print("\nBradley–Terry ratings on Elo's scale, mean 1000: 400 points more are odds of 10 to 1. Ties count half.")
