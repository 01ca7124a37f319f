"""Makes data: pairs of documents, or new tasks of a few, by rules and by a model."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.errors import UserError

if TYPE_CHECKING:
    from luthier.pipeline.pairs import Account

LOCATIONS_SHOWN = 3


def pairs(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DOCS|TASKS", help="Documents, a file or a folder; or a file of tasks to write more of."
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--with", metavar="MODEL", help="Who writes: a model, or http://…/v1#model.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="JSON Lines to write; an account stands beside it.")] = Path(
        "pairs.jsonl"
    ),
    others: Annotated[
        Path | None,
        typer.Option("--others", help="Documents of other subjects: their questions become out-of-scope ones."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="New tasks to write, of a file of tasks.")] = 100,
) -> None:
    """Make questions with quoted answers of documents, by rules and by a model; or new tasks like those of a file."""
    from luthier.data.documents import records
    from luthier.pipeline import pairs as from_documents
    from luthier.pipeline import self_instruct

    if not path.exists() or path.is_dir() or records.find(path) is not None:
        account = from_documents.make(path, out, model=model, others=others, listen=_show_progress)
        print(f"{account.documents:,} documents, {account.passages:,} passages", file=sys.stderr)
    elif model is None:
        raise UserError("rows are read as tasks, and a model writes more of them: name it.", where="--with")
    else:
        account = self_instruct.grow(path, out, model=model, count=count, listen=_show_progress)
    _show(account)


def _show(account: "Account") -> None:
    """What was made and by whom, what was left out and why, and the files."""
    for name, reason in account.unread.items():
        print(f"  not read: {name}: {reason}", file=sys.stderr)
    for by, number in account.kept.most_common():
        print(f"  {number:,} by {by}", file=sys.stderr)
    for reason, where in sorted(account.dropped.items(), key=lambda each: -len(each[1])):
        locations = list(dict.fromkeys(where))
        more = f" and {len(locations) - LOCATIONS_SHOWN:,} more" if len(locations) > LOCATIONS_SHOWN else ""
        print(
            f"  left out, {len(where):,} by {reason}: {', '.join(locations[:LOCATIONS_SHOWN])}{more}", file=sys.stderr
        )
    for file, number in account.files.items():
        print(f"{number:,} rows in {file}")


def _show_progress(what: str, done: int, of: int) -> None:
    """A line at the beginning and at each tenth."""
    if of and (done in (0, of) or done * 10 // of != max(0, done - 16) * 10 // of):
        print(f"luthier: {what} {done:,}/{of:,}", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(pairs)
