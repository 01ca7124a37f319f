"""A file of questions to ask: rows in any of the data formats, where answers may be missing."""

from pathlib import Path

from luthier.chat import Conversation
from luthier.data.formats import Choice, format_of, is_own, reader, recognise
from luthier.data.messages import Unfit
from luthier.data.prompt_templates import ANSWER, is_template
from luthier.data.readers.files import read_rows
from luthier.data.readers.values import Record, as_text
from luthier.errors import UserError
from luthier.recipe import Data

ANSWERS = {
    "messages": None,
    "conversations": None,
    "question-answer": "answer",
    "instruction": "output",
    "prompt-completion": "completion",
    "input-output": "output",
    "question-answer-prompt": "answer",
    "alpaca-prompt": "output",
}
"""Formats that ask something → the column that holds the answer."""


def read(path: Path, like: Data | None = None) -> list[Conversation]:
    """What each row asks, in file order: messages up to the last question, and the functions that they offer.

    `like` is the recipe of the data that the model was trained with.
    """
    rows = list(read_rows(path))
    if not rows:
        raise UserError("no rows in it; expected one question a row.", where=str(path))
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    choice, answer = _choose(columns, like or Data(), path)
    understand = reader(choice)
    asked = []
    for row in rows:
        filled = {**row.values, answer: row.values.get(answer) or "…"} if answer else row.values
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


def _choose(columns: list[str], like: Data, path: Path) -> tuple[Choice, str | None]:
    """The format whose question is in these columns, and its answer's column."""
    if like.format and is_own(like.format):
        return Choice(like.format, {}), None
    if like.format == "preference":  # a prompt is an instruction, with its input below it
        like = Data(format="instruction", columns={"instruction": like.columns.get("prompt", "prompt")})
    asks = dict(ANSWERS)
    if like.format and is_template(like.format) and ANSWER in like.columns:
        asks[like.format] = ANSWER
    first = [like.format] if like.format in asks else []
    for name in [*first, *ANSWERS]:
        named = like.columns if name == like.format else {}
        word = asks[name]
        answer = named.get(word, word) if word else None
        known = {key: value for key, value in named.items() if key in format_of(name, named).required}
        try:
            found = recognise([*columns, answer] if answer else columns, Data(format=name, columns=known))
        except UserError:
            continue
        return found, answer
    raise UserError(
        f"no column of questions among {', '.join(columns)}; expected question, instruction, prompt, input or messages.",
        where=str(path),
    )
