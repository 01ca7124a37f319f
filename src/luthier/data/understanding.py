"""A block of rows → its conversations, and the facts that tell which of them are kept among all rows.

All of this looks at one row alone, so that blocks can be understood side by side; what needs an account of all rows before is
in `reading`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from luthier.chat import Conversation
from luthier.data import tool_messages
from luthier.data.dataset import (
    CUT_END,
    HALF_A_CHARACTER,
    OPEN_END,
    SURROGATE,
    Item,
    ending_with_answer,
    fault_of_whole,
    id_of,
    parts_of,
    prompt_of,
    up_to_last_in_loss,
    with_system,
)
from luthier.data.documents.pairs import grounding_fault, is_divided, is_grounded
from luthier.data.formats import Choice, control_tokens, missing_column, reader
from luthier.data.messages import Unfit
from luthier.data.readers.values import Record, Value, as_text, normalise
from luthier.errors import UserError
from luthier.recipe import Data

DIGEST_BYTES = 16
NO_GROUP = "no group given, grouped by its question"


@dataclass
class Facts:
    """What has to be known of the rows of a block, without their texts. Rows are named by their places in the block.

    The lists have an entry for each row that says something, in order.
    """

    locations: list[str]
    faults: dict[int, str] = field(default_factory=dict)
    """Why the other rows say nothing."""
    wholes: list[bytes] = field(default_factory=list)
    """Digests of normalised conversations."""
    prompts: list[bytes] = field(default_factory=list)
    """Digests of normalised prompts."""
    ids: list[str] = field(default_factory=list)
    groups: list[bytes] = field(default_factory=list)
    """Digests of the groups that the data names; none where it names none."""
    group_faults: dict[int, UserError] = field(default_factory=dict)
    notes: dict[int, list[str]] = field(default_factory=dict)
    remarks: dict[int, str] = field(default_factory=dict)
    """What is said of a row behind what other rows say of it."""
    pairs: set[int] = field(default_factory=set)
    several_answers: set[int] = field(default_factory=set)
    """Rows of which another answer to the same question is not worth a remark."""
    synthetic: set[int] = field(default_factory=set)
    evidence: dict[int, Mapping[str, Value]] = field(default_factory=dict)
    """Rows that say where in a document their answer stands."""

    @property
    def fit(self) -> list[int]:
        """The rows that say something."""
        return [row for row in range(len(self.locations)) if row not in self.faults]

    @property
    def worth_a_word(self) -> set[int]:
        """Rows of which there is something to say whatever the others are."""
        noted = {*self.faults, *self.notes, *self.remarks, *self.group_faults}
        return noted | self.synthetic | self.evidence.keys()


class Understanding:
    """How the rows of some files are read; gives the facts of a block, and the items of the rows that say something."""

    def __init__(self, choice: Choice, data: Data) -> None:
        self._read, self._system = reader(choice), data.system
        self._column = data.group or choice.group

    def __call__(self, rows: Sequence[Record]) -> tuple[Facts, list[Item]]:
        facts, items = Facts([row.location for row in rows]), []
        for number, row in enumerate(rows):
            found = _understood(row, self._read)
            if isinstance(found, str):
                facts.faults[number] = found
            else:
                items.append(self._item(number, row, found, facts))
        return facts, items

    def _item(self, number: int, row: Record, found: "_Understood", facts: Facts) -> Item:
        """The item of a row, and its facts."""
        notes, conversation = found.notes, found.conversation
        group = self._group(number, row, found.prompt, facts, notes)
        if notes:
            facts.notes[number] = notes
        if remark := control_tokens(conversation):
            facts.remarks[number] = remark
        if conversation.rejected is not None:
            facts.pairs.add(number)
        if conversation.is_document or conversation.references or conversation.label is not None:
            facts.several_answers.add(number)
        if row.values.get("synthetic") is True:
            facts.synthetic.add(number)
        if is_grounded(row.values):
            facts.evidence[number] = row.values
        conversation = with_system(conversation, self._system)
        parts = found.parts if conversation is found.conversation else parts_of(conversation)
        facts.wholes.append(found.whole)
        facts.prompts.append(_digest(found.prompt))
        facts.ids.append(id_of(parts))
        return Item(facts.ids[-1], row.location, group, conversation)

    def _group(self, number: int, row: Record, prompt: str, facts: Facts, notes: list[str]) -> str:
        """The row's value in the group column, or where there is none its prompt."""
        if self._column is None:
            # a document is in one split, and so is all that is made of it
            return as_text(row.values["document"]) if is_divided(row.values) else prompt
        try:
            group = _named_group(row, self._column)
        except UserError as fault:
            facts.group_faults[number] = fault
            group = prompt
        if not group.strip():
            notes.append(NO_GROUP)
            group = prompt
        facts.groups.append(_digest(group))
        return group


@dataclass(frozen=True)
class _Understood:
    """What a row says."""

    conversation: Conversation
    parts: Sequence[tuple[str, str]]
    whole: bytes
    """A digest of the normalised conversation."""
    prompt: str
    """The normalised prompt."""
    notes: list[str]
    """Remarks on what is left out of it."""


def _understood(row: Record, read: Callable[[Record], Conversation]) -> _Understood | str:
    """What a row says, or why it says nothing."""
    try:
        written = read(row)
        answered = ending_with_answer(written)
        conversation = tool_messages.without_repeated_definitions(up_to_last_in_loss(answered))
    except Unfit as unfit:
        return str(unfit)
    parts = parts_of(conversation)
    normalised = [normalise(text) for _, text in parts]
    try:
        whole = _digest("\n".join([f"{role} {text}" for (role, _), text in zip(parts, normalised, strict=True)]))
    except UnicodeEncodeError:  # found without a search through all characters
        return HALF_A_CHARACTER
    reason = fault_of_whole(conversation) or (grounding_fault(row.values) if is_grounded(row.values) else None)
    if reason is not None:
        return reason
    notes = [OPEN_END] if len(answered.messages) < len(written.messages) else []
    notes += [CUT_END] if len(conversation.messages) < len(answered.messages) else []
    return _Understood(conversation, parts, whole, prompt_of(conversation, normalised), notes)


def _named_group(row: Record, column: str) -> str:
    if column not in row.values:
        raise missing_column(row, column)
    try:
        return SURROGATE.sub("\ufffd", as_text(row.values[column]))
    except ValueError as error:
        raise UserError(
            f'the column "{column}" cannot name a group: {error}. Choose another.', where=row.location
        ) from None


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=DIGEST_BYTES).digest()
