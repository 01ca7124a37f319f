"""From a rendering to tokens: ids are the tokenizer's own on the whole text, and control tokens come from the template only.

The loss is taken on what stands behind a prompt, so a row must begin with the prompt's tokens. Control tokens are walls between
which text is tokenized piece by piece; so it is enough to count them, and to compare the few tokens behind the last one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

SHORT = 200  # letters of a prompt's end that are worth remembering: they come again with every row


class Tokenizer(Protocol):
    """What a template needs of a tokenizer."""

    control: Mapping[str, int]
    """Control tokens, as spelled in templates → id: those that text by people must never become."""
    spoken: frozenset[str]
    """Those of them that answers spell, such as `<think>` and `<tool_call>`, because models write them."""
    named: Mapping[str, str]
    """Special tokens by the names that templates use: `bos_token`, `eos_token` …"""
    bos: str
    """Token that the tokenizer puts before every plain text; empty when it adds none."""
    eos: str
    """Token that ends a sequence."""

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of plain text, and for each the offset in `text` where it starts; control tokens in `text` stay text."""

    def between(self, before: str, text: str, after: str) -> list[int]:
        """Ids of plain text between two control tokens, one or both of which may be missing."""

    def render(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole renderings, in which control tokens are control tokens; many at once, on all cores."""

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Text of ids, control tokens left out unless asked for."""

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes that each id stands for, blanks and all; a character may lie in several."""


@dataclass(frozen=True)
class Encoded:
    """A training row: `loss_mask[i]` says whether the loss is taken on token `ids[i]`, predicted from the tokens before it."""

    ids: list[int]
    loss_mask: list[bool]
    rejected: "Encoded | None" = None
    """The row with the rejected answer, of a pair of answers."""
    left_out: int = 0
    """Messages behind the system message that the row lacks, because the whole conversation was too long."""

    @property
    def loss_tokens(self) -> int:
        """Tokens that the loss is taken on; a sequence's first token has nothing before it and is never one."""
        return self.loss_mask.count(True) - (self.loss_mask[:1] == [True])

    @property
    def tokens(self) -> int:
        """Tokens of the row, and of its rejected twin."""
        return len(self.ids) + (len(self.rejected.ids) if self.rejected else 0)


@dataclass(frozen=True)
class Rendering:
    """A text with the spans (begin, end) that the loss is taken on.

    `escapes` are letters that stand for control tokens which people spelled.
    """

    text: str
    loss_spans: Sequence[tuple[int, int]] = ()
    escapes: Mapping[str, str] = field(default_factory=dict)


class RenderingTokenizer:
    """Renderings to tokens with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        by_length = sorted(tokenizer.control, key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, by_length)) or r"(?!)")
        self.control_ids = frozenset(tokenizer.control.values())
        self._tails: dict[str, list[int]] = {}
        self._bare: dict[str, list[int]] = {}

    def ids(self, rendering: Rendering) -> list[int]:
        """The ids of a rendering."""
        if not rendering.escapes:
            return self.tokenizer.render([rendering.text])[0]
        return self._ids_with_escapes(rendering.text, rendering.escapes)

    def many(self, renderings: Sequence[Rendering]) -> list[list[int]]:
        """The ids of renderings; those in which nobody spelled a control token all at once.

        Beside them, for `row`, the prompts that have no control token from which a few tokens would tell where they end.
        """
        plain = [one for one in renderings if not one.escapes]
        bare = [
            one.text[:begin]
            for one in plain
            for begin, _ in one.loss_spans
            if not self.control.search(one.text, 0, begin)
        ]
        coded = self.tokenizer.render([one.text for one in plain] + bare)
        self._bare.update(zip(bare, coded[len(plain) :], strict=True))
        ids = iter(coded)
        return [self._ids_with_escapes(one.text, one.escapes) if one.escapes else next(ids) for one in renderings]

    def row(self, rendering: Rendering, ids: list[int]) -> Encoded | None:
        """The row of a rendering with its ids; None where several answers need it to begin with different tokens."""
        marks = list(self.control.finditer(rendering.text))
        controls = [position for position, token in enumerate(ids) if token in self.control_ids]
        if [ids[position] for position in controls] != [self.tokenizer.control[mark.group()] for mark in marks]:
            # Control tokens do not match: compare whole beginnings.
            marks, controls = [], []
        loss_mask = [False] * len(ids)
        for begin, end in rendering.loss_spans:
            first, prompt = self._tokens_before(rendering, begin, ids, marks, controls)
            if ids[first - len(prompt) : first] != prompt:
                return None if len(rendering.loss_spans) > 1 else self._spliced(rendering, begin, end)
            last = self._end(rendering, end, ids, marks, controls)
            loss_mask[first:last] = [True] * (last - first)
        return Encoded(ids, loss_mask)

    def _tokens_before(
        self,
        rendering: Rendering,
        position: int,
        ids: list[int],
        marks: Sequence[re.Match[str]],
        controls: Sequence[int],
    ) -> tuple[int, list[int]]:
        """How many tokens a prompt has that ends at this place of the text, and its last ones, from a control token on."""
        number = -1
        for mark in marks:
            if mark.end() > position:
                break
            number += 1
        if number < 0:
            start, text = 0, rendering.text[:position]
        else:
            start, text = controls[number], rendering.text[marks[number].start() : position]
        if any(letter in text for letter in rendering.escapes):
            tail = self._ids_with_escapes(text, rendering.escapes)
        else:
            tail = self.tail(text)
        return start + len(tail), tail

    def tail(self, text: str) -> list[int]:
        """The ids of a prompt's end; short ones are remembered."""
        if text in self._bare:
            return self._bare.pop(text)
        if text in self._tails:
            return self._tails[text]
        ids = self.tokenizer.render([text])[0]
        if len(text) < SHORT:
            self._tails[text] = ids
        return ids

    def _end(
        self,
        rendering: Rendering,
        position: int,
        ids: list[int],
        marks: Sequence[re.Match[str]],
        controls: Sequence[int],
    ) -> int:
        """Number of tokens that lie before this position as a whole."""
        if position == len(rendering.text):
            return len(ids)
        for mark, control in zip(marks, controls, strict=True):
            if mark.end() == position:
                return control + 1
        count, tail = self._tokens_before(rendering, position, ids, marks, controls)
        start = count - len(tail)
        same = 0
        while same < len(tail) and start + same < len(ids) and ids[start + same] == tail[same]:
            same += 1
        return start + same

    def _spliced(self, rendering: Rendering, begin: int, end: int) -> Encoded:
        """The prompt's tokens, and behind them those of the rest: as generation goes on from a prompt."""
        text, escapes = rendering.text, rendering.escapes
        prompt = self.ids(Rendering(text[:begin], escapes=escapes))
        rest = self._continued(text[begin:end], escapes)
        return Encoded(prompt + rest, [False] * len(prompt) + [True] * len(rest))

    def _continued(self, text: str, escapes: Mapping[str, str]) -> list[int]:
        """Ids of a text that other text precedes, of which none of these ids is a part."""
        for before in ("\n", ".", "x"):
            alone, both = (self.ids(Rendering(one, escapes=escapes)) for one in (before, before + text))
            if both[: len(alone)] == alone:
                return both[len(alone) :]
        return self.ids(Rendering(text, escapes=escapes))

    def _ids_with_escapes(self, text: str, escapes: Mapping[str, str]) -> list[int]:
        """Ids of a text with letters that stand for spelled control tokens: the pieces that hold some, as plain text."""
        letters = re.compile(f"[{''.join(map(re.escape, escapes))}]")
        parts: list[tuple[str, str, str]] = []  # control token before, piece, control token behind
        position, before = 0, ""
        for mark in self.control.finditer(text):
            parts.append((before, text[position : mark.start()], mark.group()))
            position, before = mark.end(), mark.group()
        parts.append((before, text[position:], ""))
        ids: list[int] = []
        run = ""  # what was written since the last piece with such a letter
        for before, piece, after in parts:
            run += before
            if not letters.search(piece):
                run += piece
                continue
            ids += self.tokenizer.render([run])[0] if run else []
            run = ""
            ids += self.tokenizer.between(before, letters.sub(lambda found: escapes[found.group()], piece), after)
        return ids + (self.tokenizer.render([run])[0] if run else [])
