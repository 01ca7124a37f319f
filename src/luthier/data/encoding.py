"""From items to rows of tokens, each of which fits and keeps its answer; the others are noted in the ledger."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace

from luthier.chat import Conversation, Encoded, Message, Template
from luthier.data.dataset import Item, Ledger
from luthier.errors import UserError

REFUSED, TOO_LONG, EMPTY, UNPAIRED = (
    "refused by the chat template",
    "too long to keep its answer",
    "no loss tokens in it",
    "no rejected answer",
)
NO_TOOLS = "functions that the chat template does not show"
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
    rejected answer, and an item without such an answer has none.
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
    waiting: deque[tuple[Item, Item | None, bool]] = deque()
    """Items, each as it is shown if it can have rows, and whether it is in `pairs`."""

    def conversations() -> Iterator[Conversation]:
        for item in items:
            shown, pair = _as_shown(item, template, ledger), pairs(item)
            if not template.takes_tools_of(shown.conversation):
                ledger.drop(NO_TOOLS, item.location)
                waiting.append((item, None, pair))
                continue
            if pair and item.conversation.rejected is None:
                ledger.drop(UNPAIRED, item.location)
                waiting.append((item, None, pair))
                continue
            waiting.append((item, shown, pair))
            yield shown.conversation
            if pair:
                yield _rejected(shown.conversation)

    encoded = template.stream_rows(conversations())
    for chosen in encoded:
        while waiting[0][1] is None:
            yield waiting.popleft()[0], []
        item, shown, pair = waiting.popleft()
        assert shown is not None
        rows = _fitting(shown, chosen, next(encoded) if pair else None, limit, ledger)
        if rows:
            _note(shown, template, ledger)
        yield item, rows
    yield from ((item, []) for item, *_ in waiting)


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
    item: Item, rows: list[Encoded] | UserError, rejected: list[Encoded] | UserError | None, limit: int, ledger: Ledger
) -> list[Encoded]:
    for either in (rows, rejected):
        if isinstance(either, UserError):
            ledger.drop(REFUSED, f"{item.location} ({either.message})")
            return []
    assert isinstance(rows, list) and not isinstance(rejected, UserError)
    if rejected:  # both differ in the last answer only
        rows = [replace(rows[-1], rejected=rejected[-1])]
    longest = max(max(len(row.ids), len(row.rejected.ids) if row.rejected else 0) for row in rows)
    if not all(row.loss_tokens and (row.rejected is None or row.rejected.loss_tokens) for row in rows):
        ledger.drop(EMPTY, item.location)
        return []
    if longest <= limit:
        return rows
    if not item.conversation.is_document:
        ledger.drop(TOO_LONG, f"{item.location} ({longest:,} tokens, {limit:,} fit)")
        return []
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
        return Encoded(row.ids, mask, masked(row.rejected) if row.rejected else None)

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
    """
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
