"""A chat template's habits, what the checks found, and rows as the model sees them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.text import Text

from luthier.chat import Encoded, Template
from luthier.chat.conformance import Conformance
from luthier.cli.screens.row_view import STYLES, token_lines, without_colours
from luthier.cli.screens.terminal import console
from luthier.data.token_view import roles_of, view_tokens


def show_template(result: Conformance, template: Template, rows: Sequence[Encoded]) -> None:
    """What the template does and whether it is right; then each row as text and as tokens."""
    out = console()
    for line in _report_lines(result):
        out.print(line)
    for row in rows:
        out.print()
        for line in _row_lines(template, row, out):
            out.print(line, crop=False)


def _report_lines(result: Conformance) -> list[Text]:
    """The template's habits, a line each, and what the checks found."""
    lines = [Text(f"Template  {result.template}, {result.sha256[:12]}"), Text()]
    lines += [Text.assemble((f"{name:<16}", "bold"), habit) for name, habit in result.behaviour.items()]
    lines += [Text(), Text(f"Checked against {result.judge}")]
    for check in result.checks:
        word = ("fault ", "red") if check.faults else ("ok    ", "green")
        lines.append(Text.assemble(word, f"{check.name:<9}{check.holds} ({check.count} {check.unit})"))
        lines += [Text(f"      {fault}", "red") for fault in check.faults]
    for why, names in groupby(sorted(result.refused, key=result.refused.__getitem__), key=result.refused.__getitem__):
        lines.append(Text.assemble(("note  ", "yellow"), f"refused ({', '.join(names)}): {why}"))
    return lines


def _row_lines(template: Template, row: Encoded, out: Console) -> Iterator[Text]:
    """A row as text and as tokens, loss tokens coloured; without colours, the text has « and » around them instead."""
    tokens = view_tokens(row.ids, row.loss_mask, template)
    loss_tokens = sum(row.loss_mask)
    what = f"tokens, {loss_tokens} of them loss tokens" if loss_tokens else "tokens that ask for an answer"
    yield Text(f"{len(tokens)} {what}")
    if without_colours(out):
        text = Text(_marked(template, row))
    else:
        text = Text()
        for role, group in groupby(zip(tokens, row.ids, strict=True), key=lambda pair: pair[0].role):
            text.append(template.tokenizer.decode([id for _, id in group], control=True), STYLES[role] or "dim")
    yield from (text, Text(), *token_lines(tokens, out))


def _marked(template: Template, row: Encoded) -> str:
    """A row's text with « and » around the loss tokens."""
    parts = []
    for in_loss, group in groupby(zip(row.loss_mask, row.ids, strict=True), key=lambda pair: pair[0]):
        text = template.tokenizer.decode([token for _, token in group], control=True)
        parts.append(f"«{text}»" if in_loss else text)
    return "".join(parts)


def row_json(template: Template, row: Encoded) -> dict[str, object]:
    """A row for programs: its tokens with what each is."""
    return {
        "text": _marked(template, row),
        "tokens": [
            {"id": token, "text": template.tokenizer.decode([token], control=True), "kind": role}
            for token, role in zip(row.ids, roles_of(row.ids, row.loss_mask, template), strict=True)
        ],
    }
