"""Generated tokens as text that can be shown at once: whole characters only, and nothing that may begin a stop string."""

import codecs
from collections.abc import Sequence

from luthier.model.tokenizer import HubTokenizer


class TextStream:
    """Text so far in parts that together are the decoded ids, up to the first stop string."""

    def __init__(self, tokenizer: HubTokenizer, stop_strings: Sequence[str] = ()) -> None:
        self._characters = _Bytes(tokenizer) if tokenizer.spells_bytes else _Window(tokenizer)
        self._stops = stop_strings
        self._held = ""
        self.stop_string: str | None = None
        """The stop string that was found; no text follows it."""

    def add(self, token: int) -> str:
        """What can be shown now that this token is there."""
        return self._show(self._characters.add(token), last=False)

    def end(self) -> str:
        """What was held back until now, where no more tokens come."""
        return self._show(self._characters.end(), last=True)

    def _show(self, more: str, *, last: bool) -> str:
        if self.stop_string is not None:
            return ""
        text = self._held + more
        found = [(index, stop) for stop in self._stops if (index := text.find(stop)) >= 0]
        if found:
            index, self.stop_string = min(found, key=lambda each: (each[0], -len(each[1])))
            self._held = ""
            return text[:index]
        held = 0 if last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop string."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)


class _Bytes:
    """Characters of a vocabulary that is spelled in bytes."""

    def __init__(self, tokenizer: HubTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        if token in self._tokenizer.unspoken:
            return ""
        return self._decoder.decode(self._tokenizer.pieces([token])[0])

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)


class _Window:
    """Characters of any other vocabulary, by decoding the last few tokens with and without the new one.

    Blanks at the beginning of a text depend on what precedes a token, so the tokens before it are decoded again.
    """

    def __init__(self, tokenizer: HubTokenizer) -> None:
        self._decode = tokenizer.decode
        self._ids: list[int] = []
        self._from, self._shown = 0, 0  # the window's first token, and the first of which nothing was shown

    def add(self, token: int) -> str:
        self._ids.append(token)
        before = self._decode(self._ids[self._from : self._shown])
        text = self._decode(self._ids[self._from :])
        if text.endswith("\ufffd") and len(self._ids) - self._shown < 4:  # a character has four bytes at most
            return ""
        if len(text) > len(before):
            self._from, self._shown = self._shown, len(self._ids)
        return text[len(before) :]

    def end(self) -> str:
        before = self._decode(self._ids[self._from : self._shown])
        return self._decode(self._ids[self._from :])[len(before) :]
