"""Which format a table's columns make: by what they are called and by what they hold, or one question to the user."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from luthier.data.formats import checks, content, name_pairs, names, refusals
from luthier.data.formats import choice as choices
from luthier.data.formats.choice import Choice
from luthier.data.formats.formats import FORMATS, RECOGNISED, Columns, Format, format_of, is_own
from luthier.data.formats.formats import named as called
from luthier.data.formats.table import Table
from luthier.data.prompt_templates import is_template
from luthier.data.readers.values import Record
from luthier.errors import UserError, together, unknown
from luthier.recipe import Data

LAYOUTS_AT_MOST = 4


def recognise(table: Table, data: Data) -> Choice:
    """The format of a table's rows: the recipe's, else the first that fits; a UserError with one setting where none is sure."""
    columns = list(table.columns)
    if data.group is not None and data.group not in columns:
        raise unknown("column", data.group, columns, where="data.group")
    if data.format is not None and is_own(data.format):
        if data.columns:
            raise UserError(f"has no effect: {data.format} reads the row itself. Leave it out.", where="data.columns")
        return Choice(data.format, {})
    if data.format is not None:
        format_of(data.format, data.columns)
    seen = table.without({data.group} if data.group is not None and data.group not in data.columns.values() else ())
    if data.format is not None or data.columns:
        _expect_known(table, data)
        choice = _as_asked(seen, data)
    else:
        refusals.expect_readable(seen)
        choice = _found(seen) or content.choice(seen)
        choice = _with_other_layouts(seen, choice)
    return replace(choice, unused=tuple(name for name in choice.unused if name != data.group))


def _found(table: Table) -> Choice | None:
    """The first format that the columns make by their names."""
    fitting = [name for name in RECOGNISED if _required(name, table)]
    if not fitting:
        return None
    chosen = choices.of(fitting[0], table, _required(fitting[0], table))
    second = next((name for name in fitting if name == "input-output"), None)
    if chosen.format == "classification" and second:
        other = choices.of(second, table, _required(second, table))
        if names.rank(other.columns["output"], names.LABEL) is None:
            strong = names.rank(chosen.columns["label"], names.LABEL) or 0
            if strong < 2 * names.STRONG_LABEL or names.bare(chosen.columns["label"]) in ("star", "rating", "score"):
                raise refusals.unsure(
                    table, [("data.format=classification", chosen), ("data.format=input-output", other)],
                    "a label and a text could both be the answer",
                )  # fmt: skip
            chosen = other
    if chosen.format == "classification":
        content.expect_one_label(table, chosen)
    if chosen.format == "text":
        chosen = content.beside_text(table, chosen)
    if chosen.alternatives:
        return chosen
    return replace(chosen, alternatives=_alternatives(table, chosen, fitting))


def _alternatives(table: Table, chosen: Choice, fitting: list[str]) -> tuple[str, ...]:
    """Settings that read the rows otherwise: other formats whose columns are there, and other answers."""
    settings: list[str] = []
    used = set(chosen.columns.values())
    for name in fitting:
        other = FORMATS[name]
        columns = _required(name, table)
        last = columns[list(other.required)[-1]]
        a_label = chosen.format == "classification" and names.rank(last, names.LABEL) is not None
        if name not in (chosen.format, "classification") and last not in used and not a_label and len(settings) < 2:
            settings.append(f"data.format={name}")
    if chosen.format == "classification":
        settings += [
            f"data.columns.label={column.name}"
            for column in table.columns.values()
            if column.closed and column.name not in used and names.rank(column.name, names.LABEL) is not None
        ][:2]
    if chosen.format in ("question-answer", "instruction", "prompt-completion") and not settings:
        word = list(FORMATS[chosen.format].required)[-1]
        rivals = [
            column.name
            for column in table.columns.values()
            if column.known
            and column.name not in used
            and column.prose
            and names.rank(column.name, names.ANSWER) is not None
        ]
        settings += [f"data.columns.{word}={name}" for name in rivals[:2]]
    return tuple(settings)


def _required(name: str, table: Table) -> Columns:
    """The format's columns by name and content, empty where one that it needs is not there."""
    return bind(FORMATS[name], table) or {}


def bind(entry: Format, table: Table, named: Mapping[str, str] | None = None) -> Columns | None:
    """The format's word → the user's column, for every word that has one; None where one that it needs has none.

    Columns that the recipe names are taken whatever they hold.
    """
    named = named or {}
    found: Columns = {word: column for word, column in named.items() if word in entry.columns}
    own = _choice_columns(table) if "choice1" in entry.columns else []
    for number, column in enumerate(own, start=1):
        found.setdefault(f"choice{number}", column)
    if "winner" in entry.columns and (rivals := checks.rival_answers(table)):
        found = dict(zip(("first", "second"), rivals, strict=True)) | found
        if "winner" not in found and (each := checks.winner_of_each(table)):
            found = dict(zip(("winner", "second winner"), each, strict=True)) | found
    for word, known in entry.columns.items():
        if word in found or not known:
            continue
        asked = found.get(next(iter(entry.required)))
        partners = name_pairs.PARTNERS.get(names.bare(asked), ()) if asked else ()
        words = (*partners, *known) if word == list(entry.required)[-1] else known
        best = _best(table, words, taken=set(found.values()), entry=entry, word=word)
        if best is not None:
            found[word] = best
    if not entry.required.keys() <= found.keys():
        return None
    adjusted = entry.adjust(table, found)
    return None if adjusted is None else {word: adjusted[word] for word in entry.columns if word in adjusted}


def _best(table: Table, words: tuple[str, ...], *, taken: set[str], entry: Format, word: str) -> str | None:
    """The free column with the best of these names that holds what it should; one value in all rows, or none, comes last."""
    holds = entry.holds.get(word)
    fitting: list[tuple[bool, int, str]] = []
    for column in table.columns.values():
        order = names.rank(column.name, words)
        if order is not None and column.name not in taken and (holds is None or holds(column)):
            fitting.append(((column.constant or column.empty) and word in entry.required, order, column.name))
    return min(fitting)[2] if fitting else None


def _choice_columns(table: Table) -> list[str]:
    """Columns that hold a choice each, in order: A to D, option1 to option4, sol1 and sol2."""
    for pattern in names.CHOICE_SETS:
        sets: dict[str, list[str]] = {}
        for column in table.columns:
            if match := re.fullmatch(pattern, names.plain(column)):
                sets.setdefault(match[1], []).append(column)
        found = max(sets.values(), key=len, default=[])
        if len(found) >= 2:
            return found[:10]
    return []


def _expect_known(table: Table, data: Data) -> None:
    """Refuses words in `data.columns` that no format knows, and columns that the rows do not have, all at once."""
    entries = [format_of(data.format, data.columns)] if data.format else list(RECOGNISED.values())
    words = list(dict.fromkeys(word for entry in entries for word in entry.columns))
    what = "column of a format" if data.format is None else f"column of the format {called(data.format)}"
    errors = []
    for word, column in data.columns.items():
        if word not in words:
            errors.append(unknown(what, word, words, where=f"data.columns.{word}"))
        elif _same(column, table) is None:
            errors.append(unknown("column", column, table.columns, where=f"data.columns.{word}"))
    if errors:
        raise together(errors)


def _same(name: str, table: Table) -> str | None:
    """The column of this name: the very same, else the same but for case and outer blanks."""
    plain = name.strip().casefold()
    return name if name in table.columns else next((c for c in table.columns if c.strip().casefold() == plain), None)


def _as_asked(table: Table, data: Data) -> Choice:
    """The format that the recipe names, or that knows the words of its columns; what it leaves open is found as usual."""
    named = {word: _same(column, table) or column for word, column in data.columns.items()}
    candidates = (
        [data.format] if data.format else [n for n, entry in RECOGNISED.items() if named.keys() <= entry.columns.keys()]
    )
    ways = (bind,) if data.format and is_template(data.format) else (bind, content.complete)
    for look in ways:
        for name in candidates:
            columns = look(format_of(name, data.columns), table, named)
            if columns is not None:
                return choices.of(name, table, columns)
    raise refusals.incomplete(table, data.format or next(iter(candidates), None), named)


def _with_other_layouts(table: Table, choice: Choice) -> Choice:
    """Rows that lack a column which the format needs may have those of another format."""
    others: list[Choice] = []
    left = _lacking(table.sample, choice)
    while left and len(others) < LAYOUTS_AT_MOST:
        try:
            other = _found(table.where(left))
        except UserError:
            break
        if other is None:
            break
        others.append(replace(other, alternatives=()))
        left = _lacking(left, other)
    used = {column for one in (choice, *others) for column in one.columns.values()}
    unused = tuple(name for name in table.columns if name not in used)
    if not others:
        return choice
    read = {f"data.format={other.format}" for other in others}
    left_over = tuple(setting for setting in choice.alternatives if setting not in read)
    return replace(choice, others=tuple(others), unused=unused, alternatives=left_over)


def _lacking(rows: Sequence[Record], choice: Choice) -> list[Record]:
    needed = [choice.columns[word] for word in FORMATS[choice.format].required]
    return [row for row in rows if any(column not in row.values for column in needed)]
