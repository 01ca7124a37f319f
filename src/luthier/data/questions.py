"""A file of questions to ask: rows in any of the data formats, where answers may be missing."""

from collections.abc import Mapping
from pathlib import Path

from luthier.chat import Conversation
from luthier.data.formats import FORMATS, Choice, Table, bind, choice_of, format_of, is_own, reader, shape_of
from luthier.data.messages import Unfit
from luthier.data.prompt_templates import ANSWER, is_template
from luthier.data.readers import Record, read_rows
from luthier.data.readers.values import as_text
from luthier.errors import UserError
from luthier.recipe import Data

ANSWERS = {
    "choices": "answer",
    "choice-columns": "answer",
    "question-answer": "answer",
    "instruction": "output",
    "prompt-completion": "completion",
    "input-output": "output",
    "classification": "label",
    "question-answer-prompt": "answer",
    "alpaca-prompt": "output",
}
"""Formats that ask something → the column that holds the answer."""
FILLERS = {"choices": "A", "choice-columns": "A"}
"""What stands for an answer that is missing, where it cannot be any text."""
PREFERENCES = ("preference", "preference-votes", "unpaired-preference")
CHATS = ("messages", "conversations", "transcript")


def read(path: Path, like: Data | None = None) -> list[Conversation]:
    """What each row asks, in file order: messages up to the last question, and the functions that they offer.

    `like` is the recipe of the data that the model was trained with.
    """
    rows = list(read_rows(path))
    if not rows:
        raise UserError("no rows in it; expected one question a row.", where=str(path))
    shape = shape_of(Table.of(rows))
    if shape is not None:
        rows = list(shape.rows(rows, lambda reason, location: None)) or rows
    choice, answer = _choose(Table.of(rows, path=str(path)), like or Data())
    understand = reader(choice)
    filler = FILLERS.get(choice.format, "…")
    asked = []
    for row in rows:
        filled = {**row.values, answer: row.values.get(answer) or filler} if answer else row.values
        try:
            conversation = understand(Record(row.location, filled))
        except Unfit as unfit:
            raise UserError(f"cannot be asked: {unfit}.", where=row.location) from None
        messages = conversation.messages
        while messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        if not any(message.role == "user" and message.content.strip() for message in messages):
            raise UserError("the question is empty; take the row out or fill it in.", where=row.location)
        asked.append(Conversation(messages, tools=conversation.tools))
    return asked


def named(path: Path, column: str) -> list[tuple[str, str]]:
    """What each row has in a column ("" where it has nothing) and the row's location; the file must have the column."""
    rows = list(read_rows(path))
    if not any(column in row.values for row in rows):
        raise UserError(f'no column "{column}"; it says for each question which one is to answer.', where=str(path))
    return [(as_text(row.values.get(column)).strip(), row.location) for row in rows]


def _present(columns: Mapping[str, str], table: Table) -> dict[str, str]:
    """Of the columns that a recipe names, those that the table has."""
    return {word: column for word, column in columns.items() if column in table.columns}


def _choose(table: Table, like: Data) -> tuple[Choice, str | None]:
    """The format whose question is in these columns, and its answer's column."""
    if like.format and is_own(like.format):
        return Choice(like.format, {}), None
    columns = dict(like.columns)
    format = like.format
    if format in CHATS and (found := bind(FORMATS[format], table, _present(columns, table))):
        return choice_of(format, table, found), None
    if format in PREFERENCES:  # its prompt is a question, with its input below it
        format, columns["question"] = "question-answer", columns.pop("prompt", "prompt")
    asks = dict(ANSWERS)
    if format and is_template(format) and ANSWER in columns:
        asks[format] = ANSWER
    first = [(format, columns)] if format in asks else []
    chats = [column.name for column in table.columns.values() if column.spoken]
    if chats and not first:
        return choice_of("messages", table, bind(FORMATS["messages"], table, {"messages": chats[0]}) or {}), None
    nothing_named: dict[str, str] = {}
    by_columns = [name for name in ANSWERS if not FORMATS[name].by_name_only]
    for name, known in [*first, *((name, nothing_named) for name in by_columns)]:
        assert name is not None
        word, entry = asks[name], format_of(name, known)
        answer = known.get(word, word)
        wanted = {**{key: value for key, value in known.items() if key in entry.columns}, word: answer}
        whole = table if answer in table.columns else table.with_column(answer)
        usable = {key: value for key, value in wanted.items() if value in whole.columns}
        if any(key in entry.required for key in wanted.keys() - usable.keys()):
            continue
        found = bind(entry, whole, usable)
        if found is not None:
            return choice_of(name, whole, found), answer
    raise UserError(
        f"no column of questions among {', '.join(table.columns)}; expected question, instruction, prompt, input or messages.",
        where=table.path,
    )
