"""A pair whose answer is taken word for word from blocks of a document, so that it is its own quote."""

from collections.abc import Sequence

from luthier.data.documents.blocks import Block
from luthier.data.documents.pairs import Dropped, Pair
from luthier.data.documents.passages import PATH, Passage, joined
from luthier.data.documents.reading import Document

LONGEST_ANSWER = 300
"""Words of an answer by rules; a longer section is no answer but a text."""


def quoted(
    document: Document, blocks: Sequence[Block], above: tuple[str, ...], question: str, answer: str, *, by: str,
    last: bool = False, at: int | None = None,
) -> Pair | Dropped:  # fmt: skip
    """The pair whose answer stands in these blocks: at an offset, at its last place, or at its first behind the question."""
    passage = Passage(document.location(blocks[0]), joined(blocks), PATH.join(above))
    if len(answer.split()) > LONGEST_ANSWER:
        return Dropped(f"an answer of more than {LONGEST_ANSWER} words", passage.location, by)
    if at is not None:
        start = at
    elif last:
        start = passage.text.rindex(answer)
    else:
        start = passage.text.index(answer, len(blocks[0].shown) if len(blocks) > 1 else 0)
    assert passage.text[start : start + len(answer)] == answer, "a rule takes its answer from the passage"
    return Pair(question, answer, document.name, passage, start, start + len(answer), by)
