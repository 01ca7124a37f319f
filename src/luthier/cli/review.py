"""What people decide: blind review sheets out and marks in, and ratings from votes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.arguments import RunFolder


def review(
    run: RunFolder,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write a blind sheet here: a CSV, and an HTML page beside it.")
    ] = None,
    marks: Annotated[
        list[Path] | None, typer.Option("--import", help="Import a sheet with marks; repeat the option for each file.")
    ] = None,
    items: Annotated[int, typer.Option("--items", min=1, help="Most questions on the sheet.")] = 50,
) -> None:
    """Let people judge: export a blind sheet (best prompt against fine-tuned), import the marks, see who is preferred."""
    from luthier import review as reviews
    from luthier.cli.screens.review import show_marks
    from luthier.errors import UserError
    from luthier.review import page, result
    from luthier.runs import Run

    current = Run(run)
    if export is not None:
        sheet = reviews.make_sheet(current, items)
        count = min(items, len(sheet.entries))
        reviews.write_csv(sheet, export, items=items)
        page.write(sheet, export.with_suffix(".html"), items=items)
        print(f"{count} questions on sheet {sheet.id}: {export} and {export.with_suffix('.html')}")
        if sheet.same:
            print(
                f"Of {sheet.items} test questions, {sheet.same} got the same answer from both arms and need no review."
            )
        print("Give reviewers these files only. The run's folder has the key that tells whose answer is whose.")
        print(f"Then: luthier review {run} --import MARKS.csv")
    if marks:
        show_marks(reviews.import_marks(current, marks))
        print(f"Result  {run / result.FILE}")
    if export is None and not marks:
        path = run / result.FILE
        if not path.exists():
            raise UserError(
                "no marks yet. --export sheet.csv makes a blind sheet; --import reads it with its marks.",
                where=str(run),
            )
        print(json.loads(path.read_text(encoding="utf-8"))["sentence"])


def ratings(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="VOTES|RUN", help="Files with the columns a, b, winner; or run folders with a review."),
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the ratings here as JSON too.")] = None,
) -> None:
    """Rate models or runs on Elo's scale from votes between pairs, whatever the order of the votes."""
    from luthier.cli.screens.review import show_ratings
    from luthier.evaluate.judge import ratings as rated
    from luthier.review import votes
    from luthier.runs.durable import write_atomic

    found = rated.rate(votes.read(sources))
    show_ratings(found)
    if output is not None:
        write_atomic(output, json.dumps([asdict(rating) for rating in found], indent=2, ensure_ascii=False) + "\n")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(review)
    app.command()(ratings)
