"""What a row means: the table of data formats, and which of them a file's columns make.

A format names its columns and builds a conversation from their values. A row that cannot become one raises `Unfit` with
the reason that the ledger shows; columns that are missing altogether are a UserError, since then the file is at fault.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from luthier.chat import Conversation, Message
from luthier.data import prompt_templates, tool_messages
from luthier.data.messages import Unfit, chat
from luthier.data.prompt_templates import ALPACA, ALPACA_WITH_INPUT, ANSWER, QUESTION, QUESTION_ANSWER, PromptTemplate
from luthier.data.readers.values import Record, Value, as_text, shown
from luthier.errors import UserError, nearest, together, unknown
from luthier.extensions import import_function, look_up
from luthier.recipe import Data

Cells = Mapping[str, Value]
"""A row's values by the format's own names for its columns."""


@dataclass(frozen=True)
class Format:
    """How to build a conversation, and from which columns: the format's word → the names it is recognised by.

    A column without such names is used only where the recipe names it.
    """

    build: Callable[[Cells], Conversation]
    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    by_name_only: bool = False
    """Never recognised from the columns, since another format has the same ones."""

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        return {**self.required, **self.optional}


@dataclass(frozen=True)
class Choice:
    """The format of the rows. `columns` maps the format's word to the user's column, `unused` are the others."""

    format: str
    columns: dict[str, str]
    alternatives: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def sentence(self) -> str:
        """One line for the screen: what was chosen, from which columns, and what else it could have been."""
        pairs = [column if column == word else f"{column} as {word}" for word, column in self.columns.items()]
        parts = [f"columns {', '.join(pairs)}"] if pairs else []
        parts += [f"not used: {shown(list(self.unused))}"] if self.unused else []
        verb = "read with" if prompt_templates.is_template(self.format) else "read as"
        line = f"{verb} {named(self.format)}" + (f" ({'; '.join(parts)})" if parts else "")
        if self.alternatives:
            line += f"; could also be read as {' or '.join(self.alternatives)} with data.format={self.alternatives[0]}"
        return line


def named(word: str) -> str:
    """A format as a message names it: its word, or of a template its text, on one line."""
    return f"the template {json.dumps(word, ensure_ascii=False)}" if prompt_templates.is_template(word) else word


def _pair(question: str, answer: str) -> Callable[[Cells], Conversation]:
    def build(cells: Cells) -> Conversation:
        system = as_text(cells.get("system"))
        return Conversation.pair(as_text(cells[question]), as_text(cells[answer]), system=system or None)

    return build


def _instruction(cells: Cells) -> Conversation:
    question = _instructed(cells, "instruction")
    return Conversation.pair(question, as_text(cells["output"]), system=as_text(cells.get("system")) or None)


def _prompt_completion(cells: Cells) -> Conversation:
    """Two texts, or two lists of messages."""
    if not isinstance(cells["prompt"], list):
        return _pair("prompt", "completion")(cells)
    answer = cells["completion"]
    end = chat(answer).messages if isinstance(answer, list) else (Message("assistant", as_text(answer)),)
    return Conversation((*chat(cells["prompt"]).messages, *end))


def _preference(cells: Cells) -> Conversation:
    """A prompt with a chosen and a rejected answer: texts, or lists of messages, which may repeat the prompt."""
    chosen, rejected = _end(cells["chosen"]), _end(cells["rejected"])
    if chosen[0] != rejected[0]:
        raise Unfit("chosen and rejected do not answer the same prompt")
    if chosen[0]:
        before = chosen[0]
    elif isinstance(cells.get("prompt"), list):
        before = chat(cells["prompt"]).messages
    elif "prompt" in cells:
        before = (Message("user", _instructed(cells, "prompt")),)
    else:
        raise Unfit("no question before the chosen answer")
    if (system := as_text(cells.get("system"))) and all(message.role != "system" for message in before):
        before = (Message("system", system), *before)
    return Conversation((*before, Message("assistant", chosen[1])), rejected[1])


def _end(value: Value) -> tuple[tuple[Message, ...], str]:
    """What stands before an answer, and the answer: of a text, nothing and the text."""
    if not isinstance(value, list):
        return (), as_text(value)
    messages = chat(value).messages
    if not messages or messages[-1].role != "assistant":
        raise Unfit("no answer at the end")
    if messages[-1].tool_calls:
        raise Unfit("a chosen or rejected answer that calls a function")
    return messages[:-1], messages[-1].content


def _instructed(cells: Cells, word: str) -> str:
    """An instruction with its input, where there is one, below it."""
    parts = [as_text(cells[word]), as_text(cells.get("input"))]
    return "\n\n".join(part for part in parts if part.strip())


def _columns(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


def _offering(build: Callable[[Cells], Conversation]) -> Callable[[Cells], Conversation]:
    """The same with the functions that the row's `tools` define."""

    def with_tools(cells: Cells) -> Conversation:
        return replace(build(cells), tools=tool_messages.definitions(cells.get("tools")))

    return with_tools


def _transcript(cells: Cells) -> Conversation:
    return tool_messages.transcript(as_text(cells["system"]), as_text(cells["chat"]))


_SYSTEM: dict[str, tuple[str, ...]] = {"system": ()}
_TOOLS: dict[str, tuple[str, ...]] = {"tools": ("tools", "functions")}

FORMATS: dict[str, Format] = {
    "preference": Format(
        _preference,
        {"prompt": ("prompt", "instruction", "question"), **_columns("chosen", "rejected")},
        {"input": ("input",), **_SYSTEM},
    ),
    "preference-chats": Format(_preference, _columns("chosen", "rejected"), _SYSTEM),
    "messages": Format(_offering(lambda cells: chat(cells["messages"])), _columns("messages"), _TOOLS),
    "conversations": Format(_offering(lambda cells: chat(cells["conversations"])), _columns("conversations"), _TOOLS),
    "transcript": Format(_transcript, _columns("system", "chat")),
    "question-answer": Format(_pair("question", "answer"), _columns("question", "answer"), _SYSTEM),
    "instruction": Format(
        _instruction,
        {"instruction": ("instruction",), "output": ("output", "response")},
        {"input": ("input",), **_SYSTEM},
    ),
    "prompt-completion": Format(_offering(_prompt_completion), _columns("prompt", "completion"), {**_SYSTEM, **_TOOLS}),
    "input-output": Format(_pair("input", "output"), _columns("input", "output"), _SYSTEM),
    "text": Format(lambda cells: Conversation.document(as_text(cells["text"])), _columns("text")),
    "question-answer-text": Format(
        prompt_templates.document(PromptTemplate(QUESTION_ANSWER), needed=("question", "answer")),
        _columns("question", "answer"),
        by_name_only=True,
    ),
    "question-answer-prompt": Format(
        prompt_templates.question(PromptTemplate(QUESTION), "answer"),
        _columns("question", "answer"),
        _SYSTEM,
        by_name_only=True,
    ),
    "alpaca-prompt": Format(
        prompt_templates.question(PromptTemplate(ALPACA_WITH_INPUT), "output", without_input=PromptTemplate(ALPACA)),
        {"instruction": ("instruction",), "output": ("output", "response")},
        {"input": ("input",), **_SYSTEM},
        by_name_only=True,
    ),
}
"""Every data format by the word in `data.format`, in the order in which columns are recognised."""

RECOGNISED = {name: entry for name, entry in FORMATS.items() if not entry.by_name_only}


def format_of(word: str, columns: Mapping[str, str]) -> Format:
    """The format of this name, or what a user's template makes: a text, or with a column named `answer`, a question."""
    if not prompt_templates.is_template(word):
        return look_up("data format", word, FORMATS, where="data.format")
    template = PromptTemplate(word)
    gaps = _columns(*template.gaps)
    if template.holds_answer or ANSWER not in columns:
        return Format(prompt_templates.document(template), gaps)
    return Format(prompt_templates.question(template, ANSWER), {**gaps, **_columns(ANSWER)}, _SYSTEM)


def is_own(word: str) -> bool:
    """Whether a format is the user's function, "package.module:function"."""
    return ":" in word and not prompt_templates.is_template(word)


def recognise(columns: Sequence[str], data: Data) -> Choice:
    """The format of rows with these columns: the recipe's, else the first whose columns are all there."""
    if data.group is not None and data.group not in columns:
        raise unknown("column", data.group, columns, where="data.group")
    if data.format is not None and is_own(data.format):
        if data.columns:
            raise UserError(f"has no effect: {data.format} reads the row itself. Leave it out.", where="data.columns")
        return Choice(data.format, {})
    table = RECOGNISED if data.format is None else {data.format: format_of(data.format, data.columns)}
    _expect_known(columns, data, table)
    bound = {
        name: _bind(entry, columns, data.columns)
        for name, entry in table.items()
        if data.columns.keys() <= entry.columns.keys()
    }
    fitting = [name for name, found in bound.items() if table[name].required.keys() <= found.keys()]
    if not fitting:
        raise _no_format(columns, data)
    used = bound[fitting[0]]
    unused = tuple(column for column in columns if column not in used.values() and column != data.group)
    return Choice(fitting[0], used, tuple(fitting[1:]), unused)


def _expect_known(columns: Sequence[str], data: Data, table: Mapping[str, Format]) -> None:
    """Refuses words in `data.columns` that no format knows, and columns that the rows do not have, all at once."""
    words = list(dict.fromkeys(word for entry in table.values() for word in entry.columns))
    what = "column of a format" if data.format is None else f"column of the format {named(data.format)}"
    errors = []
    for word, column in data.columns.items():
        if word not in words:
            errors.append(unknown(what, word, words, where=f"data.columns.{word}"))
        elif _find((column,), columns) is None:
            errors.append(unknown("column", column, columns, where=f"data.columns.{word}"))
    if errors:
        raise together(errors)


def reader(choice: Choice) -> Callable[[Record], Conversation]:
    """From a row to its conversation: a function that raises Unfit for the ledger, a UserError for a missing column."""
    if is_own(choice.format):
        return _own_reader(choice.format)
    entry = format_of(choice.format, choice.columns)

    def read(row: Record) -> Conversation:
        cells = {word: row.values[column] for word, column in choice.columns.items() if column in row.values}
        if len(cells) < len(choice.columns):
            missing = [choice.columns[word] for word in entry.required if word not in cells]
            if missing:
                raise missing_column(row, missing[0])
        try:
            return entry.build(cells)
        except ValueError as error:
            raise Unfit(str(error)) from None

    return read


def missing_column(row: Record, column: str) -> UserError:
    """The message for a row that lacks a column which the other rows have."""
    names = list(row.values)
    guess = nearest(column, names)
    hint = f' ("{guess}" perhaps?)' if guess else ""
    return UserError(
        f'the column "{column}" is missing; this row has {shown(names) or "no column"}{hint}. Every row needs it: '
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


def _find(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """The column with one of these names: the very same, else the same but for case and outer blanks."""
    for name in names:
        if name in columns:
            return name
        for column in columns:
            if column.strip().casefold() == name.strip().casefold():
                return column
    return None


def _bind(entry: Format, columns: Sequence[str], named: Mapping[str, str]) -> dict[str, str]:
    """The format's word → the user's column, for every word that has one."""
    found = {word: _find((named[word],) if word in named else names, columns) for word, names in entry.columns.items()}
    return {word: column for word, column in found.items() if column is not None}


def _no_format(columns: Sequence[str], data: Data) -> UserError:
    """The message for columns that make no format, with the words that would name them."""
    fitting = [
        name for name, entry in RECOGNISED.items() if data.columns and data.columns.keys() <= entry.columns.keys()
    ]
    name = data.format or next(iter(fitting), "question-answer" if len(columns) > 1 else "text")
    entry = format_of(name, data.columns)
    bound = _bind(entry, columns, data.columns)
    free = [column for column in columns if column not in bound.values()]
    for word in entry.required:
        if word not in bound and free:
            bound[word] = nearest(word, free) or free[0]
            free.remove(bound[word])
    words = [] if prompt_templates.is_template(name) else [f"data.format={name}"]
    words += [f"data.columns.{word}={bound.get(word, 'COLUMN')}" for word in entry.required if bound.get(word) != word]
    say = " ".join(shlex.quote(word) for word in words)
    if data.format:
        lack = f"{named(name)} needs {', '.join(entry.required)}."
    else:
        known = [f"{known} ({', '.join(entry.required)})" for known, entry in RECOGNISED.items()]
        lack = f"expected those of a format: {'; '.join(known)}."
    return UserError(f"found the columns {shown(list(columns))}; {lack} Name yours: {say}", where=str(data.path))
