"""What is said where columns have no sure meaning: what was found, and one setting with the first row as it would be read."""

import shlex
from collections.abc import Mapping, Sequence

from luthier.chat import Conversation
from luthier.data.formats import checks, names
from luthier.data.formats.chats import unspelled
from luthier.data.formats.choice import Choice, reader
from luthier.data.formats.formats import RECOGNISED, format_of
from luthier.data.formats.formats import named as called
from luthier.data.formats.table import Column, Table
from luthier.data.messages import Unfit
from luthier.data.readers.values import SHOWN, Value
from luthier.errors import UserError

LETTERS = 60
"""Of each text of a row that a message shows."""
OWN_FUNCTION = "write a function that makes a question and an answer of a row, data.format=package.module:function"


def expect_readable(table: Table) -> None:
    """Refuses tables whose meaning is plain, and which hold nothing that a language model could be asked."""
    marked = next((column for column in table.columns.values() if _marks_spans(column)), None)
    tagged = next((column for column in table.columns.values() if _tags_tokens(column)), None)
    if marked or tagged:
        column = marked or tagged
        assert column is not None
        what = "marks places in texts" if marked else "has a tag for each word of a text"
        raise UserError(
            f'the column "{column.name}" {what} (named entities and the like), which is no answer to learn. To teach '
            f"a model to find them, {OWN_FUNCTION}.",
            where=table.path,
        )


def _marks_spans(column: Column) -> bool:
    """Lists of [start, end, label], or of objects with start and end."""

    def spans(value: Value) -> bool:
        found = unspelled(value)
        return isinstance(found, list) and bool(found) and all(_is_span(item) for item in found)

    return column.known and column.lists and sum(map(spans, column.values)) >= 0.5 * len(column.values)


def _is_span(item: Value) -> bool:
    if isinstance(item, list) and len(item) == 3:
        return all(str(part).isdecimal() for part in item[:2]) and not str(item[2]).isdecimal()
    keys = set(item) if isinstance(item, dict) else set()
    return {"start", "end"} <= keys or {"start_offset", "end_offset"} <= keys or {"offset", "length"} <= keys


def _tags_tokens(column: Column) -> bool:
    """Lists as long as texts have words, of the words that taggers use."""
    parts = set(names.plain(column.name).split("_"))
    return (
        column.known
        and column.lists
        and "tag" in parts
        and bool(parts & {"ner", "pos", "chunk", "bio", "iob", "token"})
    )


def unsure(table: Table, readings: Sequence[tuple[str, Choice]], why: str) -> UserError:
    """The question to the user, where more than one reading is possible: a setting for each, and what it would teach."""
    said = [f"{shlex.quote(setting)} {_first_row(table, choice)}" for setting, choice in readings]
    return UserError(
        f"found the columns {_described(table)}; {why}. Choose with one setting: {'; or '.join(said)}.",
        where=table.path,
    )


def documents_or_label(table: Table, documents: Choice, label: Choice) -> UserError:
    """The question for long texts with a label beside them."""
    return unsure(
        table, [("data.format=text", documents), ("data.format=classification", label)],
        f'"{label.columns["label"]}" could be what is to be told of each text, or only be about it',
    )  # fmt: skip


def expect_no_votes(table: Table) -> None:
    """Refuses two answers of which no column says plainly which was preferred."""
    found = checks.rival_answers(table)
    if found:
        raise UserError(
            f"found the columns {_described(table)}; {found[0]} and {found[1]} are two answers, and no column says which one "
            "people preferred in a way that is known (such as winner = a). Name them: data.columns.chosen=COLUMN "
            "data.columns.rejected=COLUMN.",
            where=table.path,
        )


def nothing(table: Table, why: str) -> UserError:
    """The message for columns that mean nothing that is known."""
    texts = [column for column in table.columns.values() if column.known and column.prose][:4]
    first = ", ".join(f'{column.name} is "{_short(column.texts[0])}"' for column in texts)
    shows = f" In the first row, {first}." if len(texts) > 1 else ""
    return UserError(
        f"found the columns {_described(table)}; {why}.{shows} Name what is asked and what is learnt, "
        "data.columns.question=COLUMN data.columns.answer=COLUMN (or data.columns.text=COLUMN for documents), or "
        f"{OWN_FUNCTION}.",
        where=table.path,
    )


def only_questions(table: Table, column: Column) -> UserError:
    """The message for chats in which nobody answers."""
    return UserError(
        f'the chats in "{column.name}" ask, and nobody answers: there is nothing to learn. Give chats that end with an answer '
        "(luthier ask answers such a file).",
        where=table.path,
    )


def incomplete(table: Table, format: str | None, named: Mapping[str, str]) -> UserError:
    """The message for a format that the recipe names, or half names, and that lacks a column."""
    if format is None:
        words = {word: [name for name, entry in RECOGNISED.items() if word in entry.columns] for word in named}
        belongs = "; ".join(f"{word} to {', '.join(several)}" for word, several in words.items())
        return UserError(f"no format has all of these columns: {belongs}.", where="data.columns")
    entry = format_of(format, named)
    missing = [word for word in entry.required if word not in named and word not in table.columns]
    words_missing = missing or [word for word in entry.required if word not in named]
    settings = " ".join(f"data.columns.{word}=COLUMN" for word in words_missing)
    return UserError(
        f"found the columns {_described(table)}; {called(format)} needs {', '.join(entry.required)}. Name yours: {settings}",
        where=table.path,
    )


def _described(table: Table) -> str:
    """The columns, each with what it holds where that is no text."""
    columns = list(table.columns.values())[:SHOWN]
    words = [
        column.name if not column.known or column.what() == "texts" else f"{column.name} ({column.what()})"
        for column in columns
    ]
    more = len(table.columns) - len(words)
    return ", ".join(words) + (f" and {more} more" if more else "")


def _first_row(table: Table, choice: Choice) -> str:
    """The first row as it would be read: what is asked and what is learnt."""
    read = reader(choice)
    for row in table.sample:
        try:
            conversation = read(row)
        except Unfit:
            continue
        return _taught(conversation)
    return f"reads it as {choice.format}"


def _taught(conversation: Conversation) -> str:
    if conversation.is_document:
        return f'teaches to write "{_short(conversation.answer)}"'
    return f'asks "{_short(conversation.question)}" and teaches "{_short(conversation.answer)}"'


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LETTERS else f"{line[:LETTERS].rstrip()}…"
