"""What a template does, found by trying it on messages whose contents are marks."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import get_args

from luthier.chat.conversation import Message
from luthier.chat.forms import MARK, Arguments, Form, Kind, Silent, as_dicts, kinds, mark, marked, shown
from luthier.chat.rendering import Dict, Refusal, Renderer
from luthier.chat.spans import Control, alike, common, trail
from luthier.chat.thoughts import KNOWN, TAG, Manner, Tags, opened

USER, ANSWER, CALL, RESULT = ("user", False), ("assistant", False), ("assistant", True), ("tool", False)
DEFINITION: Dict = {
    "type": "function",
    "function": {
        "name": "call",
        "description": mark(0),
        "parameters": {"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]},
    },
}


class Habits:
    """The answers to what has to be known of a template before it renders anything real."""

    def __init__(self, renderer: Renderer, control: Control) -> None:
        self._renderer, self._control = renderer, control
        self._thought_text = ""
        self._seen: dict[tuple[tuple[Kind, ...], bool], tuple[int, int] | None] = {}
        self.form = Form()
        if shown(self._try([USER], ask=True) or "") != [0]:
            self.form = Form(parts=True)
            if shown(self._try([USER], ask=True) or "") != [0]:
                self.form = Form()
        self._find_calls()
        self.folds_system = not self._takes_system()
        self.manner = self._manner()
        self.ends = frozenset(self._ends())

    def hidden(self, messages: Sequence[Message], *, ask: bool) -> tuple[int, int] | None:
        """The first of such messages that the template does not show once, and how often it does; None if there is none.

        A system message may be left out behind an answer: some templates show it where they ask only.
        """
        wanted = kinds(messages)
        if (wanted, ask) not in self._seen:
            found = Counter(shown(self._try(wanted, ask=ask) or ""))
            needed = {number for number, (role, _) in enumerate(wanted) if ask or role != "system"}
            wrong = (
                (one, found[one]) for one in range(len(wanted)) if found[one] > 1 or (one in needed and not found[one])
            )
            self._seen[wanted, ask] = next(wrong, None)
        return self._seen[wanted, ask]

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the template shows definitions of functions."""
        try:
            text = self._renderer.text(as_dicts([Message("user", mark(1))], self.form), [DEFINITION], ask=True)
        except Refusal:
            return False
        return 0 in shown(text)

    def _try(self, wanted: Sequence[Kind], *, ask: bool, reasoning: str | None = None) -> str | None:
        messages = marked(wanted)
        if reasoning is not None:
            messages[-1] = replace(messages[-1], reasoning=reasoning)
        try:
            return self._renderer.text(as_dicts(messages, self.form), ask=ask)
        except Refusal:
            return None

    def _find_calls(self) -> None:
        """The form in which the template takes calls, if it shows any."""
        plain = self.form
        for arguments in get_args(Arguments):
            for silent in get_args(Silent):
                self.form = replace(plain, arguments=arguments, silent=silent)
                text = self._try([USER, CALL], ask=False) or ""
                # Python's own quotes, or JSON inside JSON, show that it expected the other form.
                if shown(text) == [0, 1] and "'value'" not in text and '\\"value' not in text:
                    return
        self.form = plain

    def _takes_system(self) -> bool:
        text = self._try([("system", False), USER], ask=True)
        return text is not None and sorted(shown(text)) == [0, 1]

    def _ends(self) -> Iterator[str]:
        """What ends an answer: of the control tokens behind it the last one that follows it in every turn.

        Where a template ends earlier turns otherwise than the last one, both ends; but none that also ends a thought.
        """
        text = self._try([USER, ANSWER, USER, ANSWER], ask=False)
        if text is None or not {1, 2, 3} <= set(shown(text)):
            text = self._try([USER, ANSWER], ask=False)
            yield from self._trail(text, 1)[:1] if text else ()
            return
        earlier, last = self._trail(text[: text.rfind(mark(2))], 1), self._trail(text, 3)
        if shared := alike(earlier, last):
            yield last[shared - 1]
            return
        yield from last[:1]
        yield from (end for end in earlier[:1] if end not in self._thought_text)

    @cached_property
    def example(self) -> str:
        """A question and its answer, without contents."""
        return MARK.sub("", self._try([USER, ANSWER], ask=False) or "")

    @cached_property
    def unended(self) -> str:
        """The word that follows an answer where no control token does."""
        text = self._try([USER, ANSWER], ask=False) or ""
        behind = text[text.rfind(mark(1)) + len(mark(1)) :] if mark(1) in text else ""
        return "" if self._control.search(behind) or not behind.strip() else behind.split()[0]

    def _trail(self, text: str, number: int) -> list[str]:
        """Control tokens behind the first one that follows an answer, itself included."""
        first = self._control.search(text, text.rfind(mark(number)) + len(mark(number)))
        return [found.group() for found in trail(text, first.start(), self._control)] if first else []

    def _manner(self) -> Manner:
        """How replies begin: from an answer without thoughts, and one with them."""
        prompt, plain = self._try([USER], ask=True), self._try([USER, ANSWER], ask=False)
        if prompt is None or plain is None or mark(1) not in plain:
            return Manner()
        header = plain[len(prompt) : plain.find(mark(1))] if plain.startswith(prompt) else ""
        tags, knows = self._tags(prompt, header)
        open_now = opened(prompt)
        if open_now and not knows:
            tags, knows = open_now, True
        behind = self._thought_text.strip()
        closes = prompt.rstrip().endswith(tags.close)
        return Manner(tags, behind, header, opens=bool(open_now), closes=closes, knows=knows)

    def _tags(self, prompt: str, header: str) -> tuple[Tags, bool]:
        text = self._try([USER, ANSWER], ask=False, reasoning=mark(7)) or ""
        if shown(text)[-2:] != [7, 1]:
            known = next((tags for tags in KNOWN if tags.close in self._renderer.source), None)
            return known or KNOWN[0], known is not None
        start, end, answer = text.find(mark(7)), text.find(mark(7)) + len(mark(7)), text.find(mark(1))
        before = text[len(prompt) if text.startswith(prompt) else common(prompt, text, self._control) : start]
        between = self._thought_text = text[end:answer]
        close = between[len(between) - alike(header[::-1], between[::-1]) :].strip()
        if not (self._control.search(close) or TAG.search(close)):
            close = between.strip()
        asked = opened(prompt)
        return Tags(before.strip() or (asked.open if asked else "<think>"), close or "</think>"), True
