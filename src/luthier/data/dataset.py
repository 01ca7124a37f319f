"""Items to train on and to ask, and what has to be known of their conversations; with the account of the rows, a data set."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from luthier.chat import Conversation, Message
from luthier.data.formats import Choice
from luthier.data.ledger import Ledger
from luthier.data.readers.values import normalise

Progress = Callable[[int], None]
"""Is told how many rows are read."""
CUT_END = "cut behind its last answer that is learnt"
HALF_A_CHARACTER = "half a character (a lone surrogate)"
OPEN_END = "without the user's last message, which has no answer"

_CANONICAL = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
SURROGATE = re.compile("[\ud800-\udfff]")


Parts = Sequence[tuple[str, str]]
"""All texts of a conversation with what they are."""


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


def prompt_of(conversation: Conversation, normalised: Sequence[str]) -> str:
    """`normalised_prompt`, out of all texts, each normalised, where that is the same: in ASCII, and one text a message."""
    messages = conversation.messages if conversation.is_document else conversation.messages[:-1]
    if any(message.tool_calls or message.reasoning is not None for message in messages):
        return normalised_prompt(conversation)
    found = " ".join([text for text in normalised[: len(messages)] if text])
    return found.lower() if found.isascii() else normalised_prompt(conversation)


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
    if any(not text.isascii() and SURROGATE.search(text) for _, text in parts_of(conversation)):
        return HALF_A_CHARACTER
    return fault_of_whole(conversation)


def fault_of_whole(conversation: Conversation) -> str | None:
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
    return id_of(parts_of(conversation))


def id_of(parts: Parts) -> str:
    """The id of a conversation with these texts."""
    return hashlib.sha256(_CANONICAL.encode(parts).encode("utf-8")).hexdigest()[:16]


def with_system(conversation: Conversation, system: str | None) -> Conversation:
    """The conversation with a system message in front, where it has none and is not a document."""
    if not system or conversation.is_document or any(message.role == "system" for message in conversation.messages):
        return conversation
    return replace(conversation, messages=(Message("system", system), *conversation.messages))


def parts_of(conversation: Conversation) -> list[tuple[str, str]]:
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
