"""The words that several commands take, each declared once, and what is made of them."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.errors import UserError

if TYPE_CHECKING:
    from luthier.recipe import Recipe

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="DATA|KEY=VALUE", help="Data file or folder, then settings such as train.epochs=2."),
]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="TOML file with settings.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the result only.")]
Processes = Annotated[
    int,
    typer.Option(
        "--processes",
        min=1,
        metavar="N",
        help="Train and answer in so many processes on this machine, one to a GPU if any.",
    ),
]
Shard = Annotated[
    bool,
    typer.Option("--shard", help="Each process keeps a part of the weights only, for a model that does not fit whole."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
RunOrModel = Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run's folder, or a model.")]
AdapterRuns = Annotated[
    list[str] | None,
    typer.Option("--adapter", metavar="NAME=RUN", help="Put a run's adapter beside the base model; may be repeated."),
]
NewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]
ThinkingTokens = Annotated[
    int | None,
    typer.Option(
        "--thinking-tokens",
        min=0,
        help="Longest thoughts before an answer, in tokens.  [default: as in the run; else 2048, if the model thinks]",
    ),
]


def load_recipe(words: list[str] | None, file: Path | None) -> "Recipe":
    """The recipe from the command line's words: at most one path, and settings."""
    from luthier import recipe as recipes

    settings = [word for word in words or [] if "=" in word and not Path(word).exists()]
    paths = [word for word in words or [] if word not in settings]
    if len(paths) > 1:
        raise UserError(
            f"one data file or folder at a time, found {' and '.join(paths)}. A folder may hold several files.",
            where="command line",
        )
    return recipes.load(file, settings, data=Path(paths[0]) if paths else None)


RECORD_ROWS = "train.record_rows"
"""A word of the command line that is no setting of the recipe, since it changes nothing in the result."""


def without_switches(words: list[str] | None) -> tuple[list[str], bool]:
    """The words without `train.record_rows=true`, and whether that was among them."""
    values = [word.partition("=")[2].strip().lower() for word in words or [] if word.startswith(f"{RECORD_ROWS}=")]
    if wrong := [value for value in values if value not in ("true", "false")]:
        raise UserError(f'found "{wrong[0]}", expected true or false.', where=RECORD_ROWS)
    return [word for word in words or [] if not word.startswith(f"{RECORD_ROWS}=")], values[-1:] == ["true"]


def adapter_folders(words: list[str] | None) -> dict[str, Path]:
    """NAME=RUN words as a name → the run's folder."""
    folders: dict[str, Path] = {}
    for word in words or []:
        name, separator, folder = word.partition("=")
        if not (name and separator and folder):
            raise UserError(f'found "{word}", expected NAME=RUN, such as acme=runs/acme.', where="--adapter")
        if name in folders:
            raise UserError(f'"{name}" is named twice; give each adapter a name of its own.', where="--adapter")
        folders[name] = Path(folder)
    return folders


def comma_separated(text: str, option: str) -> list[str]:
    """`a,b` as its parts; an option that has none is refused."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError("no value given.", where=option)
    return words


def command_line() -> str:
    """What was typed."""
    return "luthier " + shlex.join(sys.argv[1:])
