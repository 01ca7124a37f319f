"""Commands for texts to pretrain on: a tokenizer made of them, and a model."""

from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.arguments import Quiet
from luthier.cli.pretrain import pretrain
from luthier.errors import UserError


def tokenizer(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="File or folder of texts.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="vocab=8192, and model=NAME to compare with its tokenizer."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The new folder.")] = Path("tokenizer"),
    quiet: Quiet = False,
) -> None:
    """Make a tokenizer out of texts, with the control tokens of a chat, and show how much it compresses."""
    from luthier.cli.screens.corpora import show_tokenizer
    from luthier.cli.screens.inspection import Watch
    from luthier.pipeline import vocabulary

    settings = _settings(words or [])
    with Watch("Corpus") as watch:

        def progress(characters: int) -> None:
            if not quiet:
                watch(f"{characters / 1e6:,.1f} million characters read", 0, 0)

        found = vocabulary.make(
            corpus, out, vocabulary=int(settings["vocab"]), beside=settings["model"] or None, progress=progress
        )
    show_tokenizer(found)


def _settings(words: list[str]) -> dict[str, str]:
    """The words with their values: vocab, a number, and model."""
    settings = {"vocab": "8192", "model": ""}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in settings:
            raise UserError(f'expected vocab=NUMBER or model=NAME, found "{word}".', where="command line")
        settings[key] = value
    number = settings["vocab"].replace("_", "")
    if not number.isdecimal():
        raise UserError(f'vocab should be a whole number, found "{settings["vocab"]}".', where="command line")
    return settings | {"vocab": number}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (tokenizer, pretrain):
        app.command()(command)
