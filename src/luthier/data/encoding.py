"""From items to rows of tokens, each of which fits and keeps its answer; the others are noted in the ledger."""

from collections.abc import Sequence
from dataclasses import replace

from luthier.chat import Conversation, Encoded, Message, Template
from luthier.data.dataset import Item, Ledger
from luthier.errors import Mistake


def encode(item: Item, template: Template, limit: int, ledger: Ledger, *, pairs: bool = False) -> list[Encoded]:
    """An item's training rows: one, or for a long document several; none, noted in the ledger, if its answer would be cut.

    Of each row something is learnt. With `pairs`, a row carries the one with the rejected answer, and an item without such an
    answer has none.
    """
    if pairs and item.conversation.rejected is None:
        ledger.drop("no rejected answer", item.place)
        return []
    try:
        row = template.row(item.conversation)
        if pairs:
            row = replace(row, rejected=template.row(_rejected(item.conversation)))
    except Mistake as mistake:
        ledger.drop("refused by the chat template", f"{item.place} ({mistake.message})")
        return []
    longer = row.rejected if row.rejected and len(row.rejected.ids) > len(row.ids) else row
    if not row.learnt or (row.rejected and not row.rejected.learnt):
        ledger.drop("nothing to learn in it", item.place)
        return []
    if len(longer.ids) <= limit:
        return [row]
    if not item.conversation.is_document:
        ledger.drop("too long to keep its answer", f"{item.place} ({len(longer.ids):,} tokens, {limit:,} fit)")
        return []
    cut = [Encoded(row.ids[at : at + limit], row.learn[at : at + limit]) for at in range(0, len(row.ids), limit)]
    return [piece for piece in cut if piece.learnt]  # a last piece of one token follows nothing


def _rejected(conversation: Conversation) -> Conversation:
    """The conversation with the rejected answer in place of the chosen one."""
    return Conversation((*conversation.prompt, Message("assistant", conversation.rejected or "")))


def pieces(item: Item, encoded: Sequence[Encoded]) -> list[tuple[Item, Encoded]]:
    """An item with each of its rows; the pieces of a long document get ids of their own."""
    if len(encoded) == 1:
        return [(item, encoded[0])]
    return [(replace(item, id=f"{item.id}.{number}"), piece) for number, piece in enumerate(encoded)]
