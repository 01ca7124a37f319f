"""What a model's chat template does, whether Luthier does the same, and any row of data as the model would see it."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli.arguments import load_recipe
from luthier.errors import UserError
from luthier.runs.durable import write_atomic

if TYPE_CHECKING:
    from luthier.chat import Conversation, Encoded, Template
    from luthier.recipe import Data


def template(
    model: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A model's folder or name, or a run's folder.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings such as chat.variables.NAME=VALUE.")
    ] = None,
    show: Annotated[
        str | None,
        typer.Option(
            "--show",
            metavar="QUESTION|FILE:LINE|JSON",
            help="Show this as tokens: a question, a row of a data file, or a row as a JSON object.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Describe a model's chat template, and check rows and prompts against transformers; exit code 1 if one differs."""
    from luthier.cli.screens.template import row_json, show_template
    from luthier.model import conformance
    from luthier.model.reference import ModelReference

    asked = load_recipe([*(words or []), f"model={model}"], None)
    reference = ModelReference.of(model, weights=False)
    found = reference.template(variables=asked.chat.variables, today=asked.chat.date)
    result = conformance.examine(found)
    rows = None if show is None else _rows_to_show(found, show, asked.data)
    if as_json:
        shown = {} if rows is None else {"shown": [row_json(found, row) for row in rows]}
        print(json.dumps(result.to_json() | shown, ensure_ascii=False, indent=2))
    else:
        show_template(result, found, rows or [])
    if not result.clean:
        raise SystemExit(1)
    if "one question" in result.refused:
        raise UserError(
            f"no training row can be made with this template: {result.refused['one question']}", where=model
        )


def _rows_to_show(template: "Template", asked: str, data: "Data") -> "list[Encoded]":
    """The training rows of a conversation; or the prompt of a question, which has no loss tokens."""
    from luthier.chat import Encoded
    from luthier.inference import prompt

    said = _conversation(asked, data)
    if said is not None:
        return template.rows(said)
    ids = template.prompt(prompt(asked, data.system))
    return [Encoded(ids, [False] * len(ids))]


def _conversation(asked: str, data: "Data") -> "Conversation | None":
    """The row of data that was asked for, read as training reads it; None where it is a question."""
    from luthier.data import reading

    file, _, line = asked.rpartition(":")
    if line.isdecimal() and Path(file).is_file():
        found = reading.load(data.model_copy(update={"path": Path(file)}))
        for item in found.items:
            if item.location.rpartition(":")[2] == line:
                return item.conversation
        raise UserError(f"no usable row in this line: {found.ledger.summary()}.", where=asked)
    if not asked.lstrip().startswith("{"):
        return None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "row.jsonl"
        write_atomic(path, " ".join(asked.splitlines()) + "\n")
        try:
            return reading.load(data.model_copy(update={"path": path})).items[0].conversation
        except UserError as error:
            raise UserError(error.message, where="--show") from None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(template)
