"""A data file as items to train on and to ask, with an account of every row that was read."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from luthier.chat import Conversation, Message
from luthier.data import tool_messages
from luthier.data.documents.pairs import grounding_fault, is_divided, is_grounded
from luthier.data.documents.records import find_rows
from luthier.data.first_seen import FirstSeen, Locations
from luthier.data.formats import Choice, control_tokens, missing_column, reader, understand
from luthier.data.ledger import Ledger
from luthier.data.messages import Unfit
from luthier.data.readers.files import Files
from luthier.data.readers.values import Record, as_text, normalise
from luthier.errors import UserError
from luthier.recipe import Data

DIGEST_BYTES = 16
COUNTED = 1000
"""After so many rows it is told how many there are."""
Progress = Callable[[int], None]
BLOCK = 512
"""Rows that are looked up among the earlier ones together."""
CUT_END = "cut behind its last answer that is learnt"
HALF_A_CHARACTER = "half a character (a lone surrogate)"
OPEN_END = "without the user's last message, which has no answer"

_CANONICAL = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Item:
    """One conversation of the data. `id` depends on its content alone; items of one `group` stay in one split."""

    id: str
    location: str
    group: str
    conversation: Conversation


@dataclass(frozen=True)
class Dataset:
    """The items in file order, the account of the rows, how they were read, and the hash over the items' ids."""

    items: Sequence[Item]
    ledger: Ledger
    choice: Choice
    sha256: str
    files: list[str]
    """The files on the disk that were read."""
    remarks: Sequence[str] = ()
    """What is to be said of how they were read."""

    def sentence(self) -> str:
        """One line for the screen: how the rows were read, and what is to be said of the files."""
        return "; ".join([self.choice.sentence(), *self.remarks])


def load(data: Data) -> Dataset:
    """The data as the recipe describes it, in memory; raises a UserError where nothing of it can be used."""
    reading = open_data(data)
    items = list(reading.items())
    return reading.with_items(items)


def open_data(
    data: Data, files: Files | None = None, *, like: Choice | None = None, progress: Progress | None = None
) -> "Reading":
    """The data as the recipe describes it, to be read once; raises a UserError where it cannot be read or understood.

    `files` are read in place of those at the recipe's path, if they were found otherwise. With `like`, rows with the same
    columns are read like those of other files. `progress` is told how many rows are read, each time that the files are.
    """
    if data.path is None:
        raise UserError("no data given; name a file or folder: luthier run tickets.jsonl.", where="data.path")
    files = files or find_rows(data, data.path)
    try:
        rows = files.rows if progress is None else partial(_counted, files.rows, progress)
        understood = understand(rows, data, path=files.name, like=like)
    except UserError as error:
        if error.where != files.name or not files.remarks:
            raise
        raise UserError(f"{error.message} Of the files: {'; '.join(files.remarks)}.", where=error.where) from None
    if understood is None:
        raise UserError(
            "no rows in it. Expected at least three: one each to train, to choose and to test.", where=files.name
        )
    ledger = Ledger(ignored=[*files.ignored])
    return Reading(understood.choice, ledger, files, data, understood.rows(ledger.leave_out))


def _counted(rows: Callable[[], Iterator[Record]], progress: Progress) -> Iterator[Record]:
    for number, record in enumerate(rows(), start=1):
        if number % COUNTED == 0:
            progress(number)
        yield record


@dataclass
class Reading:
    """Data that is being read: how its rows are understood, and the account of those that came so far."""

    choice: Choice
    ledger: Ledger
    found: Files
    data: Data
    rows: Iterator[Record]
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)

    def items(self) -> Iterator[Item]:
        """The items in file order, once; a UserError at the end where there was none."""
        number = 0
        for number, item in enumerate(_items(self), start=1):
            self._digest.update(f"\n{item.id}".encode() if number > 1 else item.id.encode())
            yield item
        if not number:
            words = f"no usable row: {self.ledger.summary()}. The rows were {self.choice.sentence()}."
            raise UserError(words, where=self.found.name)

    @property
    def files(self) -> list[str]:
        """The files on the disk that are read."""
        return self.found.paths

    def with_items(self, items: Sequence[Item]) -> Dataset:
        """The data set of these items, which came of it."""
        return Dataset(items, self.ledger, self.choice, self.sha256, self.files, self.found.remarks)

    @property
    def sha256(self) -> str:
        """The hash over the ids of the items that came, one a line."""
        return str(self._digest.hexdigest())


@dataclass(frozen=True)
class _Understood:
    """A row with what it says, or why it says nothing."""

    row: Record
    conversation: Conversation
    reason: str | None
    parts: "Parts" = ()
    """Its texts with what they are."""
    whole: bytes = b""
    """A digest of the normalised conversation."""
    prompt: str = ""
    """The normalised prompt."""
    notes: Sequence[str] = ()
    """Remarks on what is left out of it."""


NOTHING = Conversation(())
Parts = Sequence[tuple[str, str]]


def _understood(row: Record, read: Callable[[Record], Conversation]) -> _Understood:
    try:
        written = read(row)
        answered = ending_with_answer(written)
        conversation = tool_messages.without_repeated_definitions(up_to_last_in_loss(answered))
    except Unfit as unfit:
        return _Understood(row, NOTHING, str(unfit))
    parts = _parts(conversation)
    normalised = [normalise(text) for _, text in parts]
    try:
        whole = _digest("\n".join([f"{role} {text}" for (role, _), text in zip(parts, normalised, strict=True)]))
    except UnicodeEncodeError:  # found without a search through all characters
        return _Understood(row, conversation, HALF_A_CHARACTER)
    reason = _fault_of_whole(conversation) or (grounding_fault(row.values) if is_grounded(row.values) else None)
    if reason is not None:
        return _Understood(row, conversation, reason)
    notes = [OPEN_END] if len(answered.messages) < len(written.messages) else []
    notes += [CUT_END] if len(conversation.messages) < len(answered.messages) else []
    return _Understood(row, conversation, None, parts, whole, _prompt(conversation, normalised), notes)


def _prompt(conversation: Conversation, normalised: Sequence[str]) -> str:
    """`normalised_prompt`, out of all texts, each normalised, where that is the same: in ASCII, and one text a message."""
    messages = conversation.messages if conversation.is_document else conversation.messages[:-1]
    if any(message.tool_calls or message.reasoning is not None for message in messages):
        return normalised_prompt(conversation)
    found = " ".join([text for text in normalised[: len(messages)] if text])
    return found.lower() if found.isascii() else normalised_prompt(conversation)


def _items(reading: Reading) -> Iterator[Item]:
    """The items that the rows make; each row is counted in the ledger."""
    ledger, data, read = reading.ledger, reading.data, reader(reading.choice)
    column = data.group or reading.choice.group
    seen, asked = FirstSeen(), FirstSeen()  # digests of normalised conversations, and of normalised prompts
    locations = Locations(reading.files)  # of the rows by which those are known
    groups = bytearray()  # where the data names groups, a digest for each such row
    while block := list(islice(reading.rows, BLOCK)):
        rows = [_understood(row, read) for row in block]
        ledger.read += len(rows)
        fit = [each for each in rows if each.reason is None]
        numbers = range(len(locations), len(locations) + len(fit))
        for each in fit:
            locations.append(each.row.location)
            groups += bytes(DIGEST_BYTES) if column is not None else b""
        twins = seen.look_up([each.whole for each in fit], numbers)
        new = [at for at, (number, twin) in enumerate(zip(numbers, twins, strict=True)) if number == twin]
        earlier = asked.look_up([_digest(fit[at].prompt) for at in new], [numbers[at] for at in new])
        same_question = dict(zip((numbers[at] for at in new), earlier, strict=True))
        number = numbers.start - 1
        for understood in rows:
            row, conversation = understood.row, understood.conversation
            if understood.reason is not None:
                ledger.drop(understood.reason, row.location)
                continue
            number += 1
            if number not in same_question:
                ledger.drop("exact duplicate", f"{row.location} (same as {locations[twins[number - numbers.start]]})")
                continue
            for what in understood.notes:
                ledger.note(what, row.location)
            group = _group(row, column, understood.prompt, ledger)
            if column is not None:
                groups[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES] = _digest(group)
            first = same_question[number]
            if first != number and _asks_for_one_answer(conversation):
                what = "answer" if conversation.rejected is None else "pair of answers"
                ledger.note(f"same question, different {what}", f"{row.location} (as {locations[first]})")
            if groups and _part(groups, first) != _part(groups, number):
                ledger.note("same question in two groups", f"{row.location} (as {locations[first]})")
            if remark := control_tokens(conversation):
                ledger.note(remark, row.location)
            conversation = with_system(conversation, data.system)
            parts = understood.parts if conversation is understood.conversation else _parts(conversation)
            ledger.synthetic += row.values.get("synthetic") is True
            if is_grounded(row.values):
                ledger.evidence.append({"row": row.location, **row.values})
            yield Item(_id(parts), row.location, group, conversation)


def _asks_for_one_answer(conversation: Conversation) -> bool:
    """Whether another answer to the question is worth a remark."""
    return not (conversation.is_document or conversation.references) and conversation.label is None


def ending_with_answer(conversation: Conversation) -> Conversation:
    """A chat without the questions at its end, to which nobody answered."""
    messages = conversation.messages
    if messages and messages[-1].role == "assistant":
        return conversation
    last = max((number for number, message in enumerate(messages) if message.role == "assistant"), default=-1)
    if last < 0 or last == len(messages) - 1 or any(message.role != "user" for message in messages[last + 1 :]):
        return conversation
    return replace(conversation, messages=messages[: last + 1])


def up_to_last_in_loss(conversation: Conversation) -> Conversation:
    """The conversation without the end that is not learnt, where its last answer is not: nobody is asked for that answer."""
    last = conversation.messages[-1:]
    if not last or last[0].role != "assistant" or last[0].in_loss:
        return conversation
    in_loss = [number for number, message in enumerate(conversation.messages) if _is_loss_answer(message)]
    if not in_loss:
        return conversation
    return replace(conversation, messages=conversation.messages[: in_loss[-1] + 1], references=())


def _is_loss_answer(message: Message) -> bool:
    return message.role == "assistant" and message.in_loss


def fault(conversation: Conversation) -> str | None:
    """Why the conversation cannot be trained on or asked, as a reason for the ledger, or None."""
    if any(not text.isascii() and _SURROGATE.search(text) for _, text in _parts(conversation)):
        return HALF_A_CHARACTER
    return _fault_of_whole(conversation)


def _fault_of_whole(conversation: Conversation) -> str | None:
    """The same of a conversation without half characters."""
    messages = conversation.messages
    if not messages:
        return "no messages"
    if conversation.is_document:
        return None if conversation.answer.strip() else "empty text"
    if messages[-1].role != "assistant":
        return "no answer at the end"
    if not messages[-1].in_loss:
        return "no answer that is learnt (all have weight 0)"
    if all(message.role != "user" for message in messages):
        return "no question"
    empty = [
        word for word, text in (("question", conversation.question), ("answer", conversation.answer)) if _is_blank(text)
    ]
    if empty:
        return f"empty {' and '.join(empty)}"
    if any(_is_blank(message.text) for message in messages if message.role != "tool"):
        return "empty message before the last question"
    if conversation.rejected is not None:
        if not conversation.rejected.strip():
            return "empty rejected answer"
        if normalise(conversation.rejected) == normalise(conversation.answer):
            return "chosen and rejected answer are the same"
    return None


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def has_pairs(items: Sequence[Item]) -> bool:
    """Whether any of the items has a rejected answer beside the chosen one."""
    return any(item.conversation.rejected is not None for item in items)


def normalised_prompt(conversation: Conversation) -> str:
    """What is asked, alike for alike questions: one Unicode form, no case, single blanks; of a document, its text."""
    messages = conversation.messages if conversation.is_document else conversation.prompt
    return normalise(" ".join(message.text for message in messages).casefold())


def conversation_id(conversation: Conversation) -> str:
    """16 hex digits of the SHA-256 over the roles, contents and thoughts as JSON: the same from every file and place."""
    return _id(_parts(conversation))


def _id(parts: Parts) -> str:
    return hashlib.sha256(_CANONICAL.encode(parts).encode("utf-8")).hexdigest()[:16]


def with_system(conversation: Conversation, system: str | None) -> Conversation:
    """The conversation with a system message in front, where it has none and is not a document."""
    if not system or conversation.is_document or any(message.role == "system" for message in conversation.messages):
        return conversation
    return replace(conversation, messages=(Message("system", system), *conversation.messages))


def _parts(conversation: Conversation) -> list[tuple[str, str]]:
    """All texts of a conversation with what they are: roles, thoughts before an answer, the rejected answer."""
    parts: list[tuple[str, str]] = []
    for message in conversation.messages:
        if message.in_loss and message.reasoning is None and not message.tool_calls:
            parts.append((message.role, message.content))
            continue
        parts += [] if message.reasoning is None else [("thoughts", message.reasoning)]
        parts.append((message.role if message.in_loss else f"{message.role}, not learnt", message.content))
        parts += [("call", f"{call.name} {call.arguments}") for call in message.tool_calls]
    parts += [] if conversation.rejected is None else [("rejected", conversation.rejected)]
    parts += [("reference", reference) for reference in conversation.references]
    parts += [("tool definition", definition) for definition in conversation.tools]
    return parts + ([] if conversation.label is None else [("label", str(conversation.label).lower())])


def _group(row: Record, column: str | None, prompt: str, ledger: Ledger) -> str:
    """The row's value in the group column, or where there is none its prompt."""
    if column is None and is_divided(row.values):
        return as_text(row.values["document"])  # a document is in one split, and so is all that is made of it
    if column is None:
        return prompt
    if column not in row.values:
        raise missing_column(row, column)
    try:
        group = _SURROGATE.sub("\ufffd", as_text(row.values[column]))
    except ValueError as error:
        raise UserError(
            f'the column "{column}" cannot name a group: {error}. Choose another.', where=row.location
        ) from None
    if group.strip():
        return group
    ledger.note("no group given, grouped by its question", row.location)
    return prompt


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=DIGEST_BYTES).digest()


def _part(digests: bytearray, number: int) -> bytearray:
    return digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
