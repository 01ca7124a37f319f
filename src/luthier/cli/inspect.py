"""The data before anything is trained: how it is read, what is in it, what is wrong with it."""

import json
from typing import Annotated

import typer

from luthier.cli.arguments import RecipeFile, Words, load_recipe
from luthier.errors import UserError


class Stopped(UserError):
    """The data has findings that stop a run: exit code 1."""

    exit_code = 1


def inspect(
    words: Words = None,
    recipe: RecipeFile = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 on warnings too, not on errors only.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Show how data is read and what is wrong with it; exit code 1 if a run would stop at it."""
    from luthier.cli.screens.inspection import Watch, show_inspection
    from luthier.data.checks.findings import grave
    from luthier.pipeline import inspection

    asked = load_recipe(words, recipe)
    with Watch() as watch:
        found = inspection.inspect(asked, progress=watch)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
    else:
        show_inspection(found)
    if stops := grave(found.findings, strict=strict):
        kinds = ", ".join(dict.fromkeys(finding.kind for finding in stops))
        raise Stopped(f"found {kinds}. Put the rows right first.")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(inspect)
