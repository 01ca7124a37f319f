"""The sweep: several runs with one command, one chart, an answer in words."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.errors import UserError

if TYPE_CHECKING:
    from luthier.cli.screen import Screen


def sweep(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="DATA|KEY=VALUE", help="Data file or folder, then settings that all points share."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="TOML file with settings.")] = None,
    amounts: Annotated[
        str | None, typer.Option(help="Shares of the training rows in per cent; 12,25,50,100 if nothing else varies.")
    ] = None,
    models: Annotated[str | None, typer.Option(help="Base models, with commas between them.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=V1,V2", help="Values of a train setting; may come again.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="The sweep's folder; an unfinished sweep in it is continued.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
) -> None:
    """Run amounts of data, base models or settings on the same questions: a curve, and whether more data would help."""
    from luthier.cli.main import command_line, load_recipe
    from luthier.pipeline import sweep as sweeps

    asked = load_recipe(words or [], recipe)
    screens = _Screens()
    try:
        place = sweeps.run(
            asked,
            folder,
            amounts=None if amounts is None else [_amount(word) for word in _words(amounts, "--amounts")],
            models=[] if models is None else _words(models, "--models"),
            settings=dict(map(_values, settings or [])),
            listen=None if quiet else screens,
            command=command_line(),
        )
    finally:
        screens.close()
    show(place)


class _Screens:
    """A fresh screen for each point, under a line that tells which one it is."""

    def __init__(self) -> None:
        self._screen = _new_screen()

    def __call__(self, event: dict[str, Any]) -> None:
        if event["kind"] == "point":
            self._screen.close()
            self._screen = _new_screen()
            self._screen.err.print(f"\n[bold]Point {event['number']} of {event['of']}[/]  {event['name']}")
        else:
            self._screen(event)

    def close(self) -> None:
        """Take the progress line away."""
        self._screen.close()


def _new_screen() -> "Screen":
    from luthier.cli.screen import Screen

    return Screen()


def show(folder: Path) -> None:
    """A line per point, the answers, and where the chart is."""
    import json

    from rich.markup import escape
    from rich.table import Table

    from luthier.cli.screen import COLOURS, console, print_whole
    from luthier.pipeline.sweep import FILE

    record = json.loads((folder / FILE).read_text(encoding="utf-8"))
    scale, digits = (100, 1) if record["higher_is_better"] else (1, 3)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("point")
    for title in ("rows", record["metric"].replace("_", " "), "95 % interval", "best prompt", "dev loss", "verdict"):
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


def _words(text: str, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError("no value given.", where=option)
    return words


def _amount(word: str) -> float:
    try:
        return float(word.removesuffix("%"))
    except ValueError:
        told = f'found "{word}"; expected shares of the training rows in per cent, such as 12,25,50,100.'
        raise UserError(told, where="--amounts") from None


def _values(word: str) -> tuple[str, list[object]]:
    """`train.learning_rate=1e-4,5e-5` as a key and its values."""
    from luthier.recipe import read_value

    key, equals, values = word.partition("=")
    if not equals:
        raise UserError(
            f'expected key=value,value, such as train.learning_rate=1e-4,5e-5, found "{word}".', where="--set"
        )
    return key.strip(), [read_value(key.strip(), value) for value in _words(values, f"--set {key}")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sweep)
