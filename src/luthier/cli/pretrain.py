"""The command that makes a model from nothing but text, or has a given one learn more of it."""

from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.arguments import Quiet, RecipeFile, load_recipe
from luthier.cli.run import continue_pretraining

CorpusWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CORPUS|KEY=VALUE", help="File or folder of texts, then settings such as pretrain.minutes=5."
    ),
]


def pretrain(
    words: CorpusWords = None,
    recipe: RecipeFile = None,
    folder: Annotated[
        Path | None, typer.Option("--run", help="The run's folder; an unfinished run in it is continued.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model from random weights on a corpus, of a size that fits the time, and measure it on held-out text.

    With model=NAME that model learns on, with rows mixed in by pretrain.rows=FILE.
    """
    continue_pretraining(load_recipe(words, recipe), folder, quiet=quiet)
