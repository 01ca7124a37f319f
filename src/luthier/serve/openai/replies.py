"""What a reply's tokens say, in parts that are sure: its answer, its thoughts apart from it, the functions it calls."""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.chat import Template, ToolCall
from luthier.chat.thinking import KNOWN_TAGS
from luthier.engine.requests import Finished, Piece


@dataclass(frozen=True)
class Said:
    """A part of a reply, or all of it."""

    text: str = ""
    thoughts: str = ""
    calls: tuple[ToolCall, ...] = ()


class PlainReply:
    """A reply that comes as text alone, as those of other servers do."""

    def add(self, piece: Piece) -> Said:
        return Said(piece.text)

    def end(self, finished: Finished) -> Said:
        return Said()


class Reply:
    """A reply as it grows. The parts that `add` and `end` give are together what `luthier ask` would show.

    Where functions are offered, nothing is sure before the end: what looks like words may become a call.
    """

    def __init__(self, template: Template, *, tools: bool, stop_strings: Sequence[str] = ()) -> None:
        self._template, self._tools, self._stops = template, tools, stop_strings
        self._ids: list[int] = []
        self._shown = Said()
        self._plain: bool | None = False if template.thinks or tools else None
        """Whether what comes is the answer's text; None as long as it may be thoughts."""
        self._held = ""
        """Blanks at the end, which may turn out to be outer ones."""

    def add(self, piece: Piece) -> Said:
        """What can be shown now that this is there."""
        self._ids += piece.ids
        if self._plain is None:
            self._held += piece.text
            begun = self._held.lstrip()
            if not begun or any(tags.open.startswith(begun[: len(tags.open)]) for tags in KNOWN_TAGS):
                return Said()
            self._plain, self._held = not any(begun.startswith(tags.open) for tags in KNOWN_TAGS), ""
            return self._show(Said(self._without_outer_blanks(begun))) if self._plain else Said()
        if self._plain:
            return self._show(Said(self._without_outer_blanks(piece.text)))
        if self._tools or self._stops:
            return Said()
        found = self._template.parse_reply(self._ids)
        if found.text.endswith("\ufffd") or (found.thoughts or "").endswith("\ufffd"):
            return Said()
        return self._show(self._behind(Said(found.text, found.thoughts or "")))

    def end(self, finished: Finished) -> Said:
        """The rest, and the calls."""
        found = self._template.parse_reply(self._ids)
        text, calls = found.text, found.calls if self._tools else ()
        if calls:
            text = found.called or ""
            text = text.partition("<tool_call>")[0].strip()
        if finished.stop_string is not None:
            text = text.partition(finished.stop_string)[0].strip()
        rest = self._behind(Said(text, found.thoughts or ""))
        return Said(rest.text, rest.thoughts, tuple(calls))

    def _without_outer_blanks(self, text: str) -> str:
        """Text without the blanks at its end, which wait for what follows."""
        text = self._held + text
        kept = text.rstrip()
        self._held = text[len(kept) :]
        return kept

    def _show(self, more: Said) -> Said:
        self._shown = Said(self._shown.text + more.text, self._shown.thoughts + more.thoughts)
        return more

    def _behind(self, whole: Said) -> Said:
        """What of this was not shown yet; nothing where another beginning was shown."""
        pairs = ((whole.text, self._shown.text), (whole.thoughts, self._shown.thoughts))
        text, thoughts = (now[len(shown) :] if now.startswith(shown) else "" for now, shown in pairs)
        return Said(text, thoughts)
