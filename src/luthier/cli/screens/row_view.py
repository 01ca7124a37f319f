"""Rows as tokens on the terminal: coloured by their part in training, or with a line of marks under them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from luthier.cli.screens.terminal import console
from luthier.data.token_view import ROLES, SHARED, Role, RowsView, ViewedRow, ViewedToken, shortened

STYLES: dict[Role, str] = {"context": "", "thought": "cyan", "loss": "green", "end": "bold reverse green"}
SHARED_STYLE = "magenta"
MARKS: dict[Role, str] = {"context": " ", "thought": "~", "loss": "^", "end": "#"}
SHARED_MARK = "="
WIDEST_PIPE = 120


def _width(text: str) -> int:
    return Text(text).cell_len


@dataclass(frozen=True)
class _Cell:
    """A token as it is drawn: its text, its id, its mark, each as wide as the widest of them."""

    text: str
    id: str
    mark: str
    style: str
    ends_line: bool

    @property
    def width(self) -> int:
        return max(_width(self.text), len(self.id))


def show_rows(found: RowsView, *, ids: bool = False) -> None:
    """Each row with where it is trained on, and its tokens; then the same rows under another template."""
    out = console()
    for view in found.views:
        if found.beside:
            out.print(Text.assemble((f"{view.model}", "bold"), f"  {view.template}\n"))
        for row in view.rows:
            for line in (*_head(row), Text(), *token_lines(row.tokens, out, ids=ids), Text()):
                out.print(line, crop=False)
    out.print(_legend(found, marks=without_colours(out)))


def without_colours(out: Console) -> bool:
    """Whether marks have to say what colours would."""
    return out.no_color or not out.is_terminal


def token_lines(tokens: Sequence[ViewedToken], out: Console, *, ids: bool = False) -> Iterator[Text]:
    """A row's tokens side by side, as wide as the terminal, with marks or ids below them."""
    width = out.width if out.is_terminal else WIDEST_PIPE
    return _lines([_cell(token, ids=ids) for token in tokens], width=width, ids=ids, marks=without_colours(out))


def _head(row: ViewedRow) -> Iterator[Text]:
    """Where the row comes from, where it is trained on, and what it is made of."""
    yield Text.assemble((row.location, "bold"), f"  {', '.join(filter(None, (row.part, row.split)))}")
    if row.position:
        yield Text(row.position.sentence())
    yield Text(row.sentence())
    for note in row.notes:
        yield Text(f"note: {note}", "dim")


def _legend(found: RowsView, *, marks: bool) -> Text:
    """What the colours or marks mean, of those that are there."""
    entries = [(MARKS[role], ROLES[role], STYLES[role]) for role in found.roles if role != "context" or not marks]
    entries += [(SHARED_MARK, SHARED, SHARED_STYLE)] if found.shares else []
    line = Text()
    for mark, meaning, style in entries:
        line.append("   " if line.plain else "")
        line.append(f"{mark} {meaning}" if marks else meaning, "" if marks else style)
    return line


def _cell(token: ViewedToken, *, ids: bool) -> _Cell:
    mark = SHARED_MARK if token.shared and token.role == "context" else MARKS[token.role]
    style = SHARED_STYLE if token.shared and token.role == "context" else STYLES[token.role]
    return _Cell(shortened(token.text), str(token.id) if ids else "", mark, style, token.text.endswith("↵"))


def _lines(cells: Sequence[_Cell], *, width: int, ids: bool, marks: bool) -> Iterator[Text]:
    """Cells side by side, cut to the width and at line ends: their texts, below them marks where asked for, and ids."""
    for row in _rows(cells, width):
        text, below, numbers = Text(), Text(), Text(style="dim")
        for at, cell in enumerate(row):
            if at:
                for line in (text, below, numbers):
                    line.append("│" if line is text else " ", "dim" if line is text else "")
            text.append(cell.text, cell.style)
            text.append(" " * (cell.width - _width(cell.text)))
            below.append(cell.mark * max(1, _width(cell.text)) + " " * (cell.width - max(1, _width(cell.text))))
            numbers.append(cell.id.ljust(cell.width))
        for line in (text, *((below,) if marks else ()), *((numbers,) if ids else ())):
            line.rstrip()
            if line is not below or line.plain:
                yield line
        if ids:
            yield Text()


def _rows(cells: Sequence[_Cell], width: int) -> Iterator[list[_Cell]]:
    row: list[_Cell] = []
    used = 0
    for cell in cells:
        if row and used + 1 + cell.width > width:
            yield row
            row, used = [], 0
        used += cell.width + bool(row)
        row.append(cell)
        if cell.ends_line:
            yield row
            row, used = [], 0
    if row:
        yield row
