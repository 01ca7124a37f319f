"""What was chosen: the format of the rows and its columns, as a sentence for the screen, and as a function that reads rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from luthier.chat import Conversation
from luthier.data.formats import names
from luthier.data.formats.formats import format_of, is_own, named
from luthier.data.formats.table import Table
from luthier.data.messages import Unfit
from luthier.data.prompt_templates import is_template
from luthier.data.readers.values import Record, shown
from luthier.errors import UserError, nearest
from luthier.extensions import import_function


@dataclass(frozen=True)
class Choice:
    """The format of the rows. `columns` maps the format's word to the user's column, `unused` are the others."""

    format: str
    columns: dict[str, str]
    alternatives: tuple[str, ...] = ()
    """Settings that would read the rows otherwise."""
    unused: tuple[str, ...] = ()
    because: str = ""
    """What decided, where it was not the names of the columns."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What building a row needs to know of the whole table."""
    others: tuple["Choice", ...] = ()
    """How rows are read that lack columns of this format and have those of another."""
    shape: str = ""
    """What the rows were made from, where the file holds them in an export's own shape."""
    media: tuple[str, ...] = ()
    """Columns with pictures or sounds."""
    group: str | None = None
    """A column of these rows whose equal values belong together, where the recipe names none."""

    def sentence(self) -> str:
        """One line for the screen: what was chosen, from which columns and why, and what else it could have been."""
        pairs = [column if column == word else f"{column} as {word}" for word, column in self.columns.items()]
        parts = [self.shape] if self.shape else []
        parts += [f"columns {', '.join(pairs)}"] if pairs and not self.shape else []
        parts += [self.because] if self.because else []
        proven = {names.plain(column) for column in self.unused} >= names.PROOF
        parts += ["each with the passage that proves it"] if proven else []
        unused = [column for column in self.unused if not (proven and names.plain(column) in names.ORIGIN)]
        parts += [f"not used: {shown(unused)}"] if unused and not self.shape else []
        verb = "read with" if is_template(self.format) else "read as"
        line = f"{verb} {named(self.format)}" + (f" ({'; '.join(parts)})" if parts else "")
        for other in self.others:
            line += f"; rows without these columns {other.sentence()}"
        if self.alternatives:
            settings = [
                f"as {word} with {setting}"
                if (word := setting.removeprefix("data.format=")) != setting
                else f"with {setting}"
                for setting in self.alternatives
            ]
            line += f"; could also be read {' or '.join(settings)}"
        return line


def of(name: str, table: Table, columns: dict[str, str], because: str = "") -> Choice:
    """The choice of a format with these columns of a table."""
    unused = tuple(column for column in table.columns if column not in columns.values())
    media = tuple(column for column in unused if names.plain(column) in names.MEDIA)
    return Choice(name, columns, (), unused, because, format_of(name, columns).facts(table, columns), media=media)


def reader(choice: Choice) -> Callable[[Record], Conversation]:
    """From a row to its conversation: a function that raises Unfit, with the reason for the ledger, where a row has none."""
    if is_own(choice.format):
        return _own_reader(choice.format)
    readers = [(one, format_of(one.format, one.columns)) for one in (choice, *choice.others)]

    def read(row: Record) -> Conversation:
        for one, entry in readers:
            if all(one.columns[word] in row.values for word in entry.required):
                cells = {word: row.values[column] for word, column in one.columns.items() if column in row.values}
                try:
                    conversation = entry.build({**one.facts, **cells})
                except ValueError as error:
                    raise Unfit(str(error)) from None
                _expect_no_media(one, row, conversation)
                return conversation
        first, entry = readers[0]
        missing = next(first.columns[word] for word in entry.required if first.columns[word] not in row.values)
        raise Unfit(f'no column "{missing}"')

    return read


def _expect_no_media(choice: Choice, row: Record, conversation: Conversation) -> None:
    """Unfit for a row about a picture or a sound; a link beside a question and its answer may say nothing."""
    for column in choice.media:
        value = row.values.get(column)
        if value is None or value == "" or value == []:
            continue
        marked = any(f"<{names.plain(column)}>" in message.content for message in conversation.messages)
        link = isinstance(value, str) and value.startswith(("http://", "https://"))
        if marked or not link or choice.format in ("text", "classification"):
            raise Unfit(f'it is about what its column "{column}" shows')


def missing_column(row: Record, column: str) -> UserError:
    """The message for a row that lacks a column which the other rows have."""
    present = list(row.values)
    guess = nearest(column, present)
    hint = f' ("{guess}" perhaps?)' if guess else ""
    return UserError(
        f'the column "{column}" is missing; this row has {shown(present) or "no column"}{hint}. Every row needs it: '
        "add it, null or empty where there is nothing to say.",
        where=row.location,
    )


def _own_reader(name: str) -> Callable[[Record], Conversation]:
    """The user's function behind "package.module:function", its results checked."""
    function = import_function(name, where="data.format")

    def read(row: Record) -> Conversation:
        try:
            conversation = function(dict(row.values))
        except (UserError, Unfit):
            raise
        except Exception as error:
            raise UserError(
                f"{name} failed on this row: {type(error).__name__}: {error}.", where=row.location
            ) from error
        if conversation is None:
            raise Unfit(f"left out by {name}")
        if not isinstance(conversation, Conversation):
            found = type(conversation).__name__
            raise UserError(
                f"{name} returned {found}, expected a Conversation, or None to leave the row out.", where=row.location
            )
        return conversation

    return read
