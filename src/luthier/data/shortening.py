"""Conversations that are too long: without their oldest turns, so that system message and last answer stay.

A turn is what the user says, with all that answers it: calls, their results, the answer. How many have to go is found by
halving, for many conversations at once, because only the template knows how many tokens what is left has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from luthier.chat import Conversation, Encoded
from luthier.data.dataset import Item
from luthier.errors import UserError

Rows = list[Encoded] | UserError
"""An item's rows, or why it has none."""


def without_oldest(conversation: Conversation, messages: int) -> Conversation:
    """The conversation without so many messages behind the system messages that it begins with."""
    head = _system_messages(conversation)
    return replace(conversation, messages=(*conversation.messages[:head], *conversation.messages[head + messages :]))


def cuts(conversation: Conversation) -> list[int]:
    """How many messages can be left out, the fewest first: what is left begins with the user and has the last turn at least."""
    head, messages = _system_messages(conversation), conversation.messages
    starts = [
        number
        for number in range(head + 1, len(messages))
        if messages[number].role == "user" and messages[number - 1].role != "user"
    ]
    return [start - head for start in starts]


def longest(rows: Sequence[Encoded]) -> int:
    """Tokens of the longest row, rejected answers' rows included."""
    return max(max(len(row.ids), len(row.rejected.ids) if row.rejected else 0) for row in rows)


def shorten(items: Sequence[Item], encode: Callable[[list[Item]], list[Rows]], limit: int) -> dict[str, list[Encoded]]:
    """By location, the rows of each item without as few messages as make them fit; nothing of items that never do."""
    searches = {item.location: _Search(item, cuts(item.conversation)) for item in items}
    while open_now := [search for search in searches.values() if search.is_open]:
        for search, rows in zip(open_now, encode([search.shortened for search in open_now]), strict=True):
            search.look(rows, limit)
    return {location: search.fitting for location, search in searches.items() if search.fitting}


@dataclass
class _Search:
    """Which of an item's cuts is the first that makes it fit: one of `low` … `high`, or none."""

    item: Item
    cuts: Sequence[int]
    low: int = 0
    high: int = -1
    fitting: list[Encoded] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.high = len(self.cuts) - 1

    @property
    def is_open(self) -> bool:
        return self.low <= self.high

    @property
    def middle(self) -> int:
        return (self.low + self.high) // 2

    @property
    def shortened(self) -> Item:
        return replace(self.item, conversation=without_oldest(self.item.conversation, self.cuts[self.middle]))

    def look(self, rows: Rows, limit: int) -> None:
        """Go on in the half that the rows of the middle cut point to."""
        if isinstance(rows, UserError) or longest(rows) > limit:
            self.low = self.middle + 1
        else:
            self.fitting = [replace(row, left_out=self.cuts[self.middle]) for row in rows]
            self.high = self.middle - 1


def _system_messages(conversation: Conversation) -> int:
    """How many messages stand before the first one that is not a system message."""
    roles = [message.role for message in conversation.messages]
    return next((number for number, role in enumerate(roles) if role != "system"), len(roles))
