"""Rows as tokens on one self-contained page: coloured by their part in training, ids on demand, templates side by side."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from luthier.data.token_view import ROLES, SHARED, RowsView, ViewedRow, ViewedToken, shortened
from luthier.runs.durable import write_atomic

Beside = tuple[ViewedRow | None, ...]
"""What stands side by side: a row under each template."""


def write(found: RowsView, path: Path) -> None:
    """Write the page, whole or not at all; it loads nothing and has no script."""
    write_atomic(path, html(found).encode("utf-8", "replace"))


def html(found: RowsView) -> str:
    """The page. All that a user or a model wrote is escaped, and has nothing invisible left in it."""
    environment = Environment(
        loader=PackageLoader("luthier.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"lines": lines, "shortened": shortened}
    legend = [(role, ROLES[role]) for role in found.roles] + ([("shared", SHARED)] if found.shares else [])
    return environment.get_template("tokens.html.jinja").render(
        models=[(view.model, view.template) for view in found.views], pairs=side_by_side(found), legend=legend
    )


def side_by_side(found: RowsView) -> list[Beside]:
    """The rows of each record under the one template and under the other, which may make more or fewer of it."""
    if found.beside is None:
        return [(row,) for row in found.rows]
    pairs: list[Beside] = []
    for key in dict.fromkeys((row.location, row.split) for row in found.rows):
        columns = [[row for row in view.rows if (row.location, row.split) == key] for view in found.views]
        pairs += zip_longest(*columns)
    return pairs


def lines(tokens: Sequence[ViewedToken]) -> list[list[ViewedToken]]:
    """A row's tokens, cut where a text has a line end."""
    cut: list[list[ViewedToken]] = [[]]
    for token in tokens:
        cut[-1].append(token)
        if token.text.endswith("↵"):
            cut.append([])
    return [line for line in cut if line]
