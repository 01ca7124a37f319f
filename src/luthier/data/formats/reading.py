"""From the rows of files to what they mean: an export's shape, the format of its plain rows, and these rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from luthier.data.formats.choice import Choice
from luthier.data.formats.exports import Drop, Shape, shape_of
from luthier.data.formats.formats import format_of, is_own
from luthier.data.formats.recognition import recognise
from luthier.data.formats.table import Table
from luthier.data.readers.values import Record
from luthier.errors import UserError
from luthier.recipe import Data

Rows = Callable[[], Iterator[Record]]


@dataclass(frozen=True)
class Understood:
    """How the rows are read, and the rows to read: those of the files, or what an export's shape makes of them."""

    choice: Choice
    rows: Callable[[Drop], Iterator[Record]]
    count: int
    """How many rows the files have."""


def understand(rows: Rows, data: Data, *, path: str, like: Choice | None = None) -> Understood | None:
    """What the rows mean; None where there are none. A file whose rows are all in the sample is read once, others twice.

    With `like`, rows that have its columns are read by it: few rows say less of themselves than many.
    """
    table = Table.of(rows(), path=path)
    if not table.rows:
        return None
    again: Rows = (lambda: iter(table.sample)) if table.whole else rows
    shape = shape_of(table)
    if shape is None:
        return Understood(_choice(table, data, like), lambda drop: again(), table.rows)
    try:
        return _shaped(shape, again, data, path, like)
    except UserError:
        if not data.format and not data.columns:
            raise
    # the recipe names columns as they stand in the file
    return Understood(recognise(table, data), lambda drop: again(), table.rows)


def _choice(table: Table, data: Data, like: Choice | None) -> Choice:
    """The choice that others have made for rows with these columns, else what the rows say of themselves."""
    if like is None or is_own(like.format) or like.others:
        return recognise(table, data)
    needed = {like.columns[word] for word in format_of(like.format, like.columns).required}
    return like if needed <= table.columns.keys() else recognise(table, data)


def _shaped(shape: Shape, rows: Rows, data: Data, path: str, like: Choice | None) -> Understood:
    """What the plain rows of an export mean."""
    plain = Table.of(shape.rows(rows(), lambda reason, location: None), path=path)
    if not plain.rows:
        raise UserError(f"found {shape.what}, and no row in it that could be learnt.", where=path)
    choice = _choice(plain, data, like)
    group = shape.group if data.group is None else None
    return Understood(
        replace(choice, shape=shape.what, group=group, alternatives=()),
        lambda drop: shape.rows(rows(), drop),
        plain.rows,
    )
