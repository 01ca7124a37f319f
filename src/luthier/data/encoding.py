"""From items to rows of tokens, each of which fits and keeps its answer; the others are noted in the ledger."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from itertools import islice

from luthier.chat import Conversation, Encoded, Message, Template
from luthier.data import shortening
from luthier.data.dataset import Item
from luthier.data.ledger import Ledger
from luthier.data.shortening import Rows
from luthier.errors import UserError

REFUSED, TOO_LONG, EMPTY, UNPAIRED = (
    "refused by the chat template",
    "too long to keep its answer",
    "no loss tokens in it",
    "no rejected answer",
)
NO_TOOLS = "functions that the chat template does not show"
BLOCK = 256  # items of which those that are too long are shortened together
SHORTENED = "without its oldest turns, because all of it is too long"
THOUGHTS_LEFT_OUT = "its thoughts are not trained on, because the chat template does not show them"


def encode(item: Item, template: Template, limit: int, ledger: Ledger, *, pairs: bool = False) -> list[Encoded]:
    """One item's training rows; see `encode_all`."""
    return encode_all([item], template, limit, ledger, pairs={item.location} if pairs else set())[item.location]


def encode_all(
    items: Sequence[Item], template: Template, limit: int, ledger: Ledger, *, pairs: Set[str]
) -> dict[str, list[Encoded]]:
    """By location, each item's training rows; none, noted in the ledger, if its answer would be cut.

    Rows are one for an item, several for a long document, and one per answer where the template shows earlier answers in
    another form. Each row has loss tokens. Of the items named by location in `pairs`, a row carries the one with the
    rejected answer, and an item without such an answer has none. A conversation that does not fit loses its oldest turns.
    """
    each = encode_each(items, template, limit, ledger, pairs=lambda item: item.location in pairs)
    shared: dict[int, int] = {}  # equal tokens are one object in all rows, which makes 16 bytes a token of 42
    return {
        item.location: [replace(row, ids=[shared.setdefault(token, token) for token in row.ids]) for row in rows]
        for item, rows in each
    }


def encode_each(
    items: Iterable[Item], template: Template, limit: int, ledger: Ledger, *, pairs: Callable[[Item], bool]
) -> Iterator[tuple[Item, list[Encoded]]]:
    """The items, one after the other, each with its rows as `encode_all` gives them; a few are in memory at a time."""

    def encode_shorter(items: Sequence[Item]) -> list[Rows]:
        return list(_encode_whole([(item, item, pairs(item)) for item in items], template))

    waiting: deque[_Shown] = deque()
    encoded = _encode_whole(_shown(items, template, ledger, pairs, waiting), template)
    found = _beside(waiting, encoded)
    while block := list(islice(found, BLOCK)):
        too_long = [shown for _, shown, rows in block if shown and _is_too_long(shown, rows, limit)]
        shorter = shortening.shorten(too_long, encode_shorter, limit)
        for item, shown, rows in block:
            yield item, _fitting(shown, rows, shorter.get(item.location), limit, template, ledger) if shown else []


_Shown = tuple[Item, Item | None, bool]
"""An item, how it is shown if it can have rows, and whether it is a pair."""


def _shown(
    items: Iterable[Item], template: Template, ledger: Ledger, pairs: Callable[[Item], bool], waiting: "deque[_Shown]"
) -> Iterator[tuple[Item, Item, bool]]:
    """Those that can have rows; all of them wait to be put beside their rows."""
    for item in items:
        shown, pair = _as_shown(item, template, ledger), pairs(item)
        reason = None if template.takes_tools_of(shown.conversation) else NO_TOOLS
        reason = UNPAIRED if reason is None and pair and item.conversation.rejected is None else reason
        if reason is not None:
            ledger.drop(reason, item.location)
        waiting.append((item, None if reason else shown, pair))
        if reason is None:
            yield item, shown, pair


def _encode_whole(items: Iterable[tuple[Item, Item, bool]], template: Template) -> Iterator[Rows]:
    """The rows of items however long they are, those of pairs with the rejected answer's row."""
    pairs: deque[bool] = deque()

    def conversations() -> Iterator[Conversation]:
        for _, item, pair in items:
            pairs.append(pair)
            yield item.conversation
            if pair:
                yield _rejected(item.conversation)

    encoded = template.stream_rows(conversations())
    for rows in encoded:
        yield _with_rejected(rows, next(encoded) if pairs.popleft() else None)


def _beside(waiting: "deque[_Shown]", encoded: Iterator[Rows]) -> Iterator[tuple[Item, Item | None, Rows]]:
    """All items in their order, beside their rows."""
    for rows in encoded:
        while waiting[0][1] is None:
            yield waiting.popleft()[0], None, []
        item, shown, _ = waiting.popleft()
        yield item, shown, rows
    while waiting:
        yield waiting.popleft()[0], None, []


def _with_rejected(rows: Rows, rejected: Rows | None) -> Rows:
    """The row of the last answer with that of the rejected one; or what is wrong with either."""
    for either in (rows, rejected):
        if isinstance(either, UserError):
            return either
    assert isinstance(rows, list) and not isinstance(rejected, UserError)
    return [replace(rows[-1], rejected=rejected[-1])] if rejected else rows  # both differ in the last answer only


def _is_too_long(item: Item, rows: Rows, limit: int) -> bool:
    """Whether a conversation has rows, but not such that fit."""
    return not item.conversation.is_document and isinstance(rows, list) and shortening.longest(rows) > limit


def in_order(ledger: Ledger, template: Template) -> Ledger:
    """The ledger of `encode_each` with what is seen before a row is rendered in front."""
    seen_first = {NO_TOOLS, UNPAIRED} | (set() if template.keeps_thoughts_in_rows else {THOUGHTS_LEFT_OUT})
    for account in (ledger.dropped, ledger.notes):
        for name in [name for name in account if name not in seen_first]:
            account[name] = account.pop(name)
    return ledger


def _note(item: Item, template: Template, ledger: Ledger) -> None:
    """Remarks on a row that is kept, but not quite as it was given."""
    messages = item.conversation.messages
    if template.merges_system_message and messages[0].role == "system":
        ledger.note(
            "its system message opens the question, because the chat template has no place for it", item.location
        )
    if not template.allows_thoughts and any(message.reasoning for message in messages):
        ledger.note(THOUGHTS_LEFT_OUT, item.location)


def _fitting(
    item: Item, rows: Rows, shorter: list[Encoded] | None, limit: int, template: Template, ledger: Ledger
) -> list[Encoded]:
    """An item's rows, or where they are too long those without its oldest turns; what became of them is in the ledger."""
    if isinstance(rows, UserError):
        ledger.drop(REFUSED, f"{item.location} ({rows.message})")
        return []
    longest = shortening.longest(rows)
    if not all(row.loss_tokens and (row.rejected is None or row.rejected.loss_tokens) for row in shorter or rows):
        ledger.drop(EMPTY, item.location)
        return []
    if longest > limit and not item.conversation.is_document and not shorter:
        ledger.drop(TOO_LONG, f"{item.location} ({longest:,} tokens, {limit:,} fit)")
        return []
    _note(item, template, ledger)
    if shorter:
        what = f"{shorter[0].left_out} of {len(item.conversation.messages)} messages; {longest:,} tokens, {limit:,} fit"
        ledger.note(SHORTENED, f"{item.location} ({what})")
        return shorter
    if longest <= limit:
        return rows
    [row] = rows
    cut = [Encoded(row.ids[at : at + limit], row.loss_mask[at : at + limit]) for at in range(0, len(row.ids), limit)]
    return [piece for piece in cut if piece.loss_tokens]  # a last piece of one token follows nothing


def why_none(ledger: Ledger, limit: int) -> str:
    """Why of all items none has a row that can be trained on: the commonest reason, with its first location, and what to do."""
    reason = max((REFUSED, TOO_LONG, EMPTY, UNPAIRED, NO_TOOLS), key=lambda reason: len(ledger.dropped.get(reason, ())))
    first = ledger.dropped.get(reason, [""])[0]
    if reason == REFUSED:
        return (
            f"no row can be trained on: the model's chat template refuses them, the first at {first}. Change the rows (the "
            "roles and their order), or use a model whose template takes them."
        )
    if reason == NO_TOOLS:
        return (
            f"no row can be trained on: they offer or call functions, which the model's chat template does not show, the first "
            f"at {first}. Use a model whose template takes tools (luthier template MODEL says so)."
        )
    if reason == TOO_LONG:
        return (
            f"no row fits: with {limit:,} tokens (train.max_tokens, at most the model's context) every answer would be "
            "cut. Use a model with a longer context, or shorter rows."
        )
    return f"no row can be trained on: {reason}, the first at {first}. Give rows with answers."


def parts(row: Encoded, template: Template) -> tuple[int, int]:
    """Tokens of the longest thoughts that a row teaches, and of the longest answer behind them with its end token."""
    spans: list[list[int]] = []
    end = 0
    while True in row.loss_mask[end:]:
        start = row.loss_mask.index(True, end)
        end = row.loss_mask.index(False, start) if False in row.loss_mask[start:] else len(row.ids)
        spans.append(row.ids[start:end])
    starts = [template.answer_start(span) if template.thinks else 0 for span in spans]
    return max(starts), max(len(span) - start for span, start in zip(spans, starts, strict=True))


def _as_shown(item: Item, template: Template, ledger: Ledger) -> Item:
    """The item without thoughts that the template would leave out anyhow; that they are not trained on is noted."""
    messages = item.conversation.messages
    if template.keeps_thoughts_in_rows or all(message.reasoning is None for message in messages):
        return item
    ledger.note(THOUGHTS_LEFT_OUT, item.location)
    plain = tuple(replace(message, reasoning=None) for message in messages)
    return replace(item, conversation=replace(item.conversation, messages=plain))


def _rejected(conversation: Conversation) -> Conversation:
    """The conversation with the rejected answer in place of the chosen one."""
    return replace(
        conversation, messages=(*conversation.prompt, Message("assistant", conversation.rejected or "")), rejected=None
    )


def of_last_answer(rows: Sequence[Encoded]) -> list[Encoded]:
    """The row of the last answer, with the loss on that one alone, where a label speaks of it."""

    def masked(row: Encoded) -> Encoded:
        last = len(row.loss_mask) - 1 - row.loss_mask[::-1].index(True)
        first = last
        while first and row.loss_mask[first - 1]:
            first -= 1
        mask = [first <= position <= last for position in range(len(row.ids))]
        return replace(row, loss_mask=mask, rejected=masked(row.rejected) if row.rejected else None)

    return [masked(row) for row in rows[-1:]]


def both_sides(item: Item, row: Encoded) -> list[tuple[Item, Encoded]]:
    """A pair of answers as a liked and a disliked one, each with its row; another item as it is."""
    if row.rejected is None:
        return [(item, row)]
    chosen = replace(item.conversation, rejected=None, label=True)
    rejected = replace(_rejected(item.conversation), label=False)
    return [
        (replace(item, conversation=chosen), replace(row, rejected=None)),
        (replace(item, id=f"{item.id}.rejected", conversation=rejected), row.rejected),
    ]


def pieces(item: Item, encoded: Sequence[Encoded], *, last: bool = False) -> list[tuple[Item, Encoded]]:
    """An item with each of its rows, or where only its `last` answer is asked for, with that one.

    The pieces of a long document get ids of their own; so do rows of earlier answers, with the conversation up to there.
    What rows lack, because the conversation was too long, their item lacks too.
    """
    if left_out := encoded[0].left_out:
        item = replace(item, conversation=shortening.without_oldest(item.conversation, left_out))
    if len(encoded) == 1:
        return [(item, encoded[0])]
    if item.conversation.is_document:
        return [(replace(item, id=f"{item.id}.{number}"), piece) for number, piece in enumerate(encoded)]
    if last:
        return [(item, encoded[-1])]
    messages = item.conversation.messages
    ends = [number + 1 for number, message in enumerate(messages) if message.role == "assistant" and message.in_loss]
    rows = [
        (
            replace(
                item,
                id=f"{item.id}.{number}",
                conversation=replace(item.conversation, messages=messages[:end], rejected=None),
            ),
            row,
        )
        for number, (end, row) in enumerate(zip(ends, encoded, strict=True))
    ]
    return [*rows[:-1], (item, encoded[-1])]
