"""The data before anything is trained: how it is read, what is in it, what is wrong with it; and any row as tokens."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli.arguments import RecipeFile, Words, load_recipe
from luthier.errors import UserError

if TYPE_CHECKING:
    from luthier.cli.screens.inspection import Watch
    from luthier.data.checks import Finding
    from luthier.data.inspection import Inspection
    from luthier.data.token_view import RowsView
    from luthier.recipe import Recipe


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
    rows: Annotated[
        list[str] | None,
        typer.Option(
            "--row",
            metavar="LINE|FILE:LINE",
            help="Show this row as the model will see it instead, of the data or of a run's folder; may be repeated.",
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="With --row: the tokens' ids below them.")] = False,
    first: Annotated[
        int | None,
        typer.Option(
            "--first",
            min=1,
            metavar="N",
            help="Show the first N documents or rows as they lie there, and read no more.",
        ),
    ] = None,
    beside: Annotated[
        str | None, typer.Option("--beside", metavar="MODEL", help="With --row: the same under this model's template.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with every finding and its rows too; with --row the rows."
        ),
    ] = None,
) -> None:
    """Show how data is read and what is wrong with it; exit code 1 if a run would stop at it."""
    if first:
        return _show_first(words, recipe, first, as_json=as_json)
    if rows:
        return _show_rows(_view_of(words, recipe, rows, beside), ids=ids, as_json=as_json, page=page)
    for option, value in (("--ids", ids), ("--beside", beside)):
        if value:
            raise UserError("has an effect with --row only: luthier inspect DATA --row 118.", where=option)
    if words and len(words) == 1 and _is_run(words[0]):
        raise UserError("this is a run; --row shows its rows: luthier inspect RUN --row 118.", where=words[0])
    from luthier.cli.screens.inspection import Watch, show_inspection
    from luthier.report.inspection import write

    asked = load_recipe(words, recipe)
    with Watch() as watch:
        found = _look_at(asked, watch)
    if page is not None:
        write(page, found.to_json())
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
    else:
        show_inspection(found, page)
    expect_sound(found.findings, strict=strict)


def _look_at(asked: "Recipe", watch: "Watch") -> "Inspection":
    """The data of the recipe; without a model's name nothing of torch is loaded, which would take longer than looking."""
    if "model" in asked.model_fields_set:
        from luthier.pipeline import inspection as in_tokens

        return in_tokens.inspect(asked, progress=watch)
    from luthier.data import inspection

    return inspection.inspect(asked, progress=watch)


def expect_sound(findings: "Sequence[Finding]", *, strict: bool) -> None:
    """Raises where findings stop a run: errors, with `strict` warnings too."""
    from luthier.data.checks.findings import grave

    if stops := grave(findings, strict=strict):
        kinds = list(dict.fromkeys(finding.kind for finding in stops))
        accept = next((kind for kind in kinds if kind != "no-splits"), None)
        advice = f", or accept what is meant, such as data.findings.{accept}=accept" if accept else ""
        raise Stopped(f"found {', '.join(kinds)}. Put the rows right{advice}.")


def _show_first(words: list[str] | None, recipe: Path | None, count: int, *, as_json: bool) -> None:
    """The beginning of a data set or corpus, however large it is."""
    from luthier.cli.screens.corpora import show_first
    from luthier.data import corpora

    path = load_recipe(words, recipe).data.path
    if path is None:
        raise UserError("no data: name a file or folder.", where="data.path")
    show_first(list(corpora.preview(path, count)), as_json=as_json)


def _is_run(word: str) -> bool:
    return (Path(word) / "run.json").is_file()


def _view_of(words: list[str] | None, recipe: Path | None, rows: list[str], beside: str | None) -> "RowsView":
    """The rows of a run, as they are, or of data under a recipe."""
    from luthier.pipeline import row_view

    runs = [word for word in words or [] if _is_run(word)]
    if not runs:
        return row_view.of_data(load_recipe(words, recipe), rows, beside=beside)
    others = [word for word in words or [] if word not in runs[:1]]
    if others or recipe:
        raise UserError(f"a run has its own recipe; leave {' '.join(others) or '--recipe'} out.", where=runs[0])
    return row_view.of_run(Path(runs[0]), rows, beside=beside)


def _show_rows(found: "RowsView", *, ids: bool, as_json: bool, page: Path | None) -> None:
    from luthier.cli.screens.row_view import show_rows
    from luthier.report import token_page

    if page:
        token_page.write(found, page)
        print(f"Page      {page}")
    elif as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
    else:
        show_rows(found, ids=ids)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(inspect)
