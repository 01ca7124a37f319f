"""A chat template's habits, what the checks found, and rows as the model sees them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.text import Text

from luthier.chat import Encoded, Template
from luthier.chat.conformance import Conformance
from luthier.cli.screens.terminal import console

STYLES = {"context": "dim", "loss": "green", "end": "bold reverse green"}


def show_template(result: Conformance, template: Template, rows: Sequence[Encoded]) -> None:
    """What the template does and whether it is right; then each row as text and as tokens."""
    out = console()
    for line in _report_lines(result):
        out.print(line)
    for row in rows:
        out.print()
        for line in _row_lines(template, row, marks=out.no_color or not out.is_terminal):
            out.print(line)


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


def _kinds(template: Template, row: Encoded) -> list[str]:
    """What each token of a row is: context, a loss token, or a loss token that ends an answer."""
    return [
        "context" if not in_loss else "end" if token in template.stop_ids else "loss"
        for token, in_loss in zip(row.ids, row.loss_mask, strict=True)
    ]


def _row_lines(template: Template, row: Encoded, *, marks: bool) -> Iterator[Text]:
    """A row as text and as tokens, loss tokens coloured; with `marks`, the text has « and » around them instead."""
    kinds = _kinds(template, row)
    loss_tokens = sum(row.loss_mask)
    what = f"tokens, {loss_tokens} of them loss tokens" if loss_tokens else "tokens that ask for an answer"
    yield Text(f"{len(kinds)} {what}")
    text, tokens = Text(), Text("| ")
    for kind, group in groupby(zip(kinds, row.ids, strict=True), key=lambda pair: pair[0]):
        ids = [token for _, token in group]
        text.append(template.tokenizer.decode(ids, control=True), STYLES[kind])
        for token in ids:
            tokens.append(repr(template.tokenizer.decode([token], control=True))[1:-1], STYLES[kind]).append(" | ")
    if marks:
        text = Text(_marked(template, row))
    yield from (text, Text(), tokens)


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
            {"id": token, "text": template.tokenizer.decode([token], control=True), "kind": kind}
            for token, kind in zip(row.ids, _kinds(template, row), strict=True)
        ],
    }
