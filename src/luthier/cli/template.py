"""What a model's chat template does, whether Luthier does the same, and any row of data as the model would see it."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.errors import UserError
from luthier.runs.durable import write_atomic

if TYPE_CHECKING:
    from rich.text import Text

    from luthier.chat import Conversation, Encoded, Template
    from luthier.chat.conformance import Conformance
    from luthier.recipe import Data

STYLES = {"context": "dim", "learnt": "green", "end": "bold reverse green"}


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
    """Tell what a model's chat template does, and check rows and prompts against transformers; exit code 1 if one differs."""
    from luthier.cli.main import load_recipe
    from luthier.cli.screen import console
    from luthier.model import conformance
    from luthier.model.reference import ModelReference

    asked = load_recipe([*(words or []), f"model={model}"], None)
    reference = ModelReference.of(model, weights=False)
    found = reference.template(variables=asked.chat.variables, today=asked.chat.date)
    result = conformance.examine(found)
    shown = _shown(found, show, asked.data) if show is not None else []
    if as_json:
        told = result.to_json()
        if show is not None:
            told["shown"] = [_row_json(found, row) for row in shown]
        print(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        out = console()
        for line in _lines(result):
            out.print(line)
        for row in shown:
            out.print()
            for line in _drawn(found, row, marks=out.no_color or not out.is_terminal):
                out.print(line)
    if not result.clean:
        raise SystemExit(1)
    if "one question" in result.refused:
        raise UserError(f"no conversation can be learnt with it: {result.refused['one question']}", where=model)


def _lines(result: "Conformance") -> "list[Text]":
    """The template's habits, a line each, and what the checks found."""
    from rich.text import Text

    lines = [Text(f"Template  {result.template}, {result.sha256[:12]}"), Text()]
    lines += [Text.assemble((f"{name:<16}", "bold"), told) for name, told in result.habits.items()]
    lines += [Text(), Text(f"Checked against {result.judge}")]
    for check in result.checks:
        word = ("fault ", "red") if check.faults else ("ok    ", "green")
        lines.append(Text.assemble(word, f"{check.name:<9}{check.holds} ({check.tried} {check.of})"))
        lines += [Text(f"      {fault}", "red") for fault in check.faults]
    for why, names in groupby(sorted(result.refused, key=result.refused.__getitem__), key=result.refused.__getitem__):
        lines.append(Text.assemble(("note  ", "yellow"), f"refused, {', '.join(names)}: {why}"))
    return lines


def _shown(template: "Template", asked: str, data: "Data") -> "list[Encoded]":
    """The rows of a conversation, or of a question the prompt, of which nothing is learnt."""
    from luthier.chat import Encoded
    from luthier.inference import question

    said = _conversation(asked, data)
    if said is not None:
        return template.rows(said)
    ids = template.prompt(question(asked, data.system))
    return [Encoded(ids, [False] * len(ids))]


def _conversation(asked: str, data: "Data") -> "Conversation | None":
    """The row of data that was asked for, read as training reads it; None where it is a question."""
    from luthier.data import dataset

    file, _, line = asked.rpartition(":")
    if line.isdecimal() and Path(file).is_file():
        found = dataset.load(data.model_copy(update={"path": Path(file)}))
        for item in found.items:
            if item.place.rpartition(":")[2] == line:
                return item.conversation
        raise UserError(f"no usable row in this line: {found.ledger.summary()}.", where=asked)
    if not asked.lstrip().startswith("{"):
        return None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "row.jsonl"
        write_atomic(path, " ".join(asked.splitlines()) + "\n")
        try:
            return dataset.load(data.model_copy(update={"path": path})).items[0].conversation
        except UserError as error:
            raise UserError(error.message, where="--show") from None


def _kinds(template: "Template", row: "Encoded") -> list[str]:
    """What each token of a row is: context, learnt, or an end that is learnt."""
    return [
        "context" if not learn else "end" if token in template.stop_ids else "learnt"
        for token, learn in zip(row.ids, row.learn, strict=True)
    ]


def _drawn(template: "Template", row: "Encoded", *, marks: bool) -> "Iterator[Text]":
    """A row as text and as tokens, coloured by what is learnt; with `marks`, « and » stand around that too."""
    from rich.text import Text

    kinds = _kinds(template, row)
    learnt = sum(row.learn)
    yield Text(
        f"{len(kinds)} tokens, {learnt} of them learnt" if learnt else f"{len(kinds)} tokens that ask for an answer"
    )
    text, tokens = Text(), Text("| ")
    for kind, group in groupby(zip(kinds, row.ids, strict=True), key=lambda pair: pair[0]):
        ids = [token for _, token in group]
        text.append(template.tokenizer.decode(ids, control=True), STYLES[kind])
        for token in ids:
            tokens.append(repr(template.tokenizer.decode([token], control=True))[1:-1], STYLES[kind]).append(" | ")
    if marks:
        text = Text(_marked(template, row))
    yield from (text, Text(), tokens)


def _marked(template: "Template", row: "Encoded") -> str:
    """A row's text with « and » around what is learnt."""
    parts = []
    for learn, group in groupby(zip(row.learn, row.ids, strict=True), key=lambda pair: pair[0]):
        text = template.tokenizer.decode([token for _, token in group], control=True)
        parts.append(f"«{text}»" if learn else text)
    return "".join(parts)


def _row_json(template: "Template", row: "Encoded") -> dict[str, object]:
    """A row for programs: its tokens with what each is."""
    return {
        "text": _marked(template, row),
        "tokens": [
            {"id": token, "text": template.tokenizer.decode([token], control=True), "kind": kind}
            for token, kind in zip(row.ids, _kinds(template, row), strict=True)
        ],
    }
