"""A row as the model sees it, for people: each token with its part in training, and nothing in it invisible."""

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from luthier.chat import Template

Role = Literal["context", "thought", "loss", "end"]
ROLES: dict[Role, str] = {
    "context": "context: given, no loss",
    "thought": "loss, in a thought",
    "loss": "loss",
    "end": "loss, ends the answer",
}
"""What a token is for, with the words of a legend."""
SHARED = "context that another row of the batch has too, computed once"

VISIBLE = {" ": "·", "\n": "↵", "\t": "⇥"}
SAME_PICTURES = 12
"""Of one picture in a row, such as blanks: more are counted."""
_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
"""Unicode's categories of what has no picture: controls, formats, blanks other than the space, and what is not assigned."""
_NO_PICTURE = {0x115F, 0x1160, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10)}  # fillers and variation selectors
_BYTES = range(0xDC80, 0xDD00)  # what Python's "surrogateescape" makes of bytes that are no character


@dataclass(frozen=True)
class ViewedToken:
    """One token: its id, its text with nothing invisible, and its part in training."""

    id: int
    text: str
    role: Role
    shared: bool = False
    """Whether another row of the batch has it too, so that it is computed there and not again."""


@dataclass(frozen=True)
class BatchPosition:
    """Where a row is trained on for the first time: counted from 1."""

    step: int
    steps: int
    batch: int
    batches: int
    """Micro-batches of the step."""
    rows: int
    """Rows of the micro-batch, this one included."""
    tokens: int
    """Tokens of all of them."""
    computed: int
    """Those that go through the model: a prefix that rows share does once."""

    def sentence(self) -> str:
        """Where it is, and beside what."""
        others = self.rows - 1
        beside = f"with {others:,} other row{'s' * (others != 1)}" if others else "alone"
        once = f", {self.computed:,} of them computed" if self.computed < self.tokens else ""
        return (
            f"first in step {self.step:,} of {self.steps:,}, micro-batch {self.batch:,} of {self.batches:,}, {beside}: "
            f"{self.tokens:,} tokens{once}"
        )


@dataclass(frozen=True)
class ViewedRow:
    """A row of tokens, where it comes from and where it is trained on."""

    location: str
    split: str
    tokens: tuple[ViewedToken, ...]
    part: str = ""
    """Which of a record's rows it is, where there are several: `row 2 of 3`, `rejected`, `liked`."""
    position: BatchPosition | None = None
    """None for a row that is not trained on."""
    shared_with: str = ""
    """The row of the batch that its first tokens are computed in."""
    notes: tuple[str, ...] = ()

    def count(self, *roles: Role) -> int:
        """How many tokens have one of these roles."""
        return sum(token.role in roles for token in self.tokens)

    @property
    def shared(self) -> int:
        """How many of its first tokens are computed in another row."""
        return sum(token.shared for token in self.tokens)

    def sentence(self) -> str:
        """What it is made of."""
        loss = f"{self.count('thought', 'loss', 'end'):,} with a loss"
        thoughts = f", {thought:,} of these in thoughts" if (thought := self.count("thought")) else ""
        once = f"; the first {self.shared:,} are computed in {self.shared_with}" if self.shared else ""
        return f"{len(self.tokens):,} tokens: {self.count('context'):,} context, {loss}{thoughts}{once}"


@dataclass(frozen=True)
class RowsView:
    """Rows under one model's template."""

    model: str
    template: str
    rows: tuple[ViewedRow, ...]
    beside: "RowsView | None" = None
    """The same rows under another model's template."""

    @property
    def views(self) -> tuple["RowsView", ...]:
        """This one and the one beside it."""
        return (self,) if self.beside is None else (self, self.beside)

    @property
    def roles(self) -> list[Role]:
        """Those that any of its tokens has."""
        found = {token.role for view in self.views for row in view.rows for token in row.tokens}
        return [role for role in ROLES if role in found]

    @property
    def shares(self) -> bool:
        """Whether any row begins with what another one has."""
        return any(row.shared for view in self.views for row in view.rows)

    def to_json(self) -> dict[str, object]:
        """Everything, for programs."""
        return asdict(self)


def view_tokens(
    ids: Sequence[int] | np.ndarray, loss_mask: Sequence[bool] | np.ndarray, template: Template, *, shared: int = 0
) -> tuple[ViewedToken, ...]:
    """A row's tokens, of which the first `shared` ones are computed in another row."""
    numbers = [int(token) for token in ids]
    texts = visible_pieces(template.tokenizer.pieces(numbers))
    roles = roles_of(numbers, loss_mask, template)
    return tuple(
        ViewedToken(token, text, role, shared=at < shared)
        for at, (token, text, role) in enumerate(zip(numbers, texts, roles, strict=True))
    )


def roles_of(ids: Sequence[int], loss_mask: Sequence[bool] | np.ndarray, template: Template) -> list[Role]:
    """What each token of a row is for. A thought reaches up to the tag that closes it."""
    roles: list[Role] = []
    for in_loss, group in groupby(zip(ids, loss_mask, strict=True), key=lambda pair: bool(pair[1])):
        span = [token for token, _ in group]
        if not in_loss:
            roles += ["context"] * len(span)
            continue
        thoughts = template.answer_start(span) if template.parse_reply(span).thoughts else 0
        roles += ["thought" if at < thoughts else "end" if token in template.stop_ids else "loss"
                  for at, token in enumerate(span)]  # fmt: skip
    return roles


def visible_pieces(pieces: Sequence[bytes]) -> list[str]:
    """What each token stands for, with nothing invisible. Bytes that are a part of a character only are shown as ⟨F0⟩."""
    return [visible(piece.decode("utf-8", "surrogateescape")) for piece in pieces]


def visible(text: str) -> str:
    """A text with a picture for what has none: · a space, ↵ a line feed, ⇥ a tab, and others by number, as [U+200B].

    The pictures themselves are shown by number where a text has them, so that nothing is shown alike.

    >>> visible("a b\\n\\u200b·")
    'a·b↵[U+200B][U+00B7]'
    """
    shown = [_visible(letter) for letter in text]
    if text and unicodedata.combining(text[0]):
        shown.insert(0, "◌")  # a mark that belongs to the letter before
    return "".join(shown)


def shortened(text: str) -> str:
    """A token's text, where a long run of one picture is counted."""
    if len(text) > SAME_PICTURES and len(set(text)) == 1:
        return f"{text[0]}×{len(text)}"
    return text


def _visible(letter: str) -> str:
    code = ord(letter)
    if letter in VISIBLE:
        return VISIBLE[letter]
    if code in _BYTES:
        return f"⟨{code - 0xDC00:02X}⟩"
    if letter in VISIBLE.values() or code in _NO_PICTURE or unicodedata.category(letter) in _HIDDEN:
        return f"[U+{code:04X}]"
    return letter
