"""Whether a file can be trained on: OpenAI's rules and words with line numbers, over the readers that every run uses.

Rows are chats (`messages`, perhaps with `tools`), pairs (`prompt`, `completion`) or preferences (`input`, `preferred_output`,
`non_preferred_output`). A file with other columns is taken where a run understands it by itself.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from luthier.data import reading
from luthier.data.readers import files as readers
from luthier.data.readers.values import Number, Record
from luthier.errors import UserError
from luthier.jobs.hyperparameters import FEWEST_EXAMPLES
from luthier.jobs.rows import JobError, Method
from luthier.recipe import Data

SHOWN = 20
"""Faults that a message lists."""
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MESSAGE_KEYS = {
    "role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal", "reasoning_content",
}  # fmt: skip
PREFERENCE = ("input", "preferred_output", "non_preferred_output")
_LINE = re.compile(r"^.*?:(?:row )?(\d+)(?:, record \d+)?$", re.DOTALL)

Faults = Iterator[str]


class Unusable(Exception):
    """The file cannot be trained on; `error` says why in an API's words."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


def check(path: Path, method: Method, *, param: str = "training_file", fewest: int = FEWEST_EXAMPLES) -> int:
    """The number of examples in a file; raises Unusable where there are too few, or some that break the rules."""
    count, more = 0, 0
    faults: list[str] = []
    rules: Callable[[Mapping[str, Any]], Faults] | None = None
    try:
        for row in readers.read_rows(path):
            if rules is None and (rules := rules_of(row, method)) is None:
                count = _check_other(path)
                break
            count += 1
            found = [f"Line {_line(row.location)}: {fault}" for fault in rules(row.values)]
            faults, more = (faults + found, more) if len(faults) < SHOWN else (faults, more + len(found))
    except UserError as error:
        faults.append(_located(error))
    if faults:
        words = " ".join(faults) + (f" ({more:,} more)" if more else "")
        name = "training" if param == "training_file" else "validation"
        message = f"The job failed due to an invalid {name} file. Invalid file format. {words}"
        raise Unusable(JobError(f"invalid_{param}", message, param))
    if count < fewest:
        name = param.replace("_", " ").capitalize()
        message = f"{name} has {count} example(s), but must have at least {fewest} examples"
        raise Unusable(JobError("invalid_n_examples", message, param))
    return count


def check_upload(path: Path) -> int:
    """The number of rows of a file that arrives; raises UserError with the line of the first that is none."""
    try:
        return sum(1 for _ in readers.read_rows(path))
    except UserError as error:
        raise UserError(f"Invalid file format. {_located(error)}") from None


def rules_of(row: Record, method: Method) -> Callable[[Mapping[str, Any]], Faults] | None:
    """The rules for rows like this first one; None where it is of another kind than OpenAI's."""
    keys = row.values.keys()
    if method == "dpo":
        return _preference_faults
    if "messages" in keys or PREFERENCE[1] in keys:
        return _chat_faults
    return _pair_faults if {"prompt", "completion"} & keys and _LINE.match(row.location) else None


def _check_other(path: Path) -> int:
    """The usable rows of a file whose columns are not OpenAI's."""
    try:
        return sum(1 for _ in reading.open_data(Data(path=path)).items())
    except UserError as error:
        message = f"Missing 'messages' list (missing_messages_list), and the columns say nothing else: {error.message}"
        raise UserError(message, where=error.where) from None


def _chat_faults(row: Mapping[str, Any]) -> Faults:
    """What is wrong with a row of chat; the words in brackets are those of OpenAI's guide to checking data."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "Missing 'messages' list (missing_messages_list)."
        return
    for number, message in enumerate(messages):
        yield from _message_faults(message, f"messages[{number}]")
    spoken = [message for message in messages if isinstance(message, dict)]
    if not any(message.get("role") == "assistant" for message in spoken):
        yield "No message from the assistant (example_missing_assistant_message)."
    elif messages[-1] is not spoken[-1] or spoken[-1].get("role") != "assistant":
        yield "Last message is not from the assistant."
    if not isinstance(row.get("tools", []), list):
        yield "'tools' is not a list."


def _message_faults(message: object, where: str) -> Faults:
    if not isinstance(message, dict):
        yield f"{where} is not an object (data_type)."
        return
    if "role" not in message:
        yield f"{where} has no 'role' (message_missing_key)."
    elif message["role"] not in ROLES:
        yield f"{where} has the unrecognized role {str(message['role'])[:40]!r} (unrecognized_role)."
    if unknown := sorted(message.keys() - MESSAGE_KEYS):
        yield f"{where} has the unrecognized key {unknown[0][:40]!r} (message_unrecognized_key)."
    calls = message.get("tool_calls") or message.get("function_call")
    content = message.get("content")
    if "content" not in message and not calls:
        yield f"{where} has no 'content' (message_missing_key)."
    elif isinstance(content, Number) or not (isinstance(content, str | list) or (content is None and calls)):
        yield f"{where} has a 'content' that is no text (missing_content)."
    if "weight" in message and (message.get("role") != "assistant" or str(message["weight"]) not in ("0", "1")):
        yield f"{where} has a 'weight' that is not 0 or 1, or is not the assistant's."


def _pair_faults(row: Mapping[str, Any]) -> Faults:
    for key in ("prompt", "completion"):
        if key not in row:
            yield f'Expected file to have JSONL format with prompt/completion keys. Missing "{key}" key.'
        elif not isinstance(row[key], str):
            yield f"'{key}' is no text."


def _preference_faults(row: Mapping[str, Any]) -> Faults:
    for key in PREFERENCE:
        if key not in row:
            yield f"Missing '{key}'; a DPO example has {', '.join(PREFERENCE)}."
    asked = row.get("input")
    messages = asked.get("messages") if isinstance(asked, dict) else None
    if "input" in row and (not isinstance(messages, list) or not messages):
        yield "Missing 'messages' list in 'input' (missing_messages_list)."
    if isinstance(asked, dict) and asked.get("tools"):
        yield "A DPO example with 'tools' cannot be trained on; only supervised ones can."
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        yield from _message_faults(message, f"input.messages[{number}]")
    for key in PREFERENCE[1:]:
        answer = row.get(key, [{"role": "assistant", "content": ""}])
        if not isinstance(answer, list) or len(answer) != 1:
            yield f"'{key}' is not a list of one message."
            continue
        yield from _message_faults(answer[0], f"{key}[0]")
        if isinstance(answer[0], dict) and answer[0].get("role") not in (None, "assistant"):
            yield f"'{key}' is not from the assistant."


def _line(location: str) -> str:
    found = _LINE.match(location)
    return found[1] if found else Path(location).name


def _located(error: UserError) -> str:
    """A reader's message, beginning with its line in place of the path."""
    found = _LINE.match(error.where or "")
    return f"Line {found[1]}: {error.message}" if found else error.message
