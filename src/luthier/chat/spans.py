"""What is learnt of a rendering: behind each answer's prompt, up to and with the token that ends the answer.

Nothing is searched by its words. A template is asked for three texts: `prompt` (what asks for the answer), `upto` (the
conversation that ends with it) and the whole conversation; what is learnt follows from where they part.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luthier.chat.thoughts import opened

Control = re.Pattern[str]


@dataclass(frozen=True)
class Turn:
    """One answer: the text that asks for it, and the conversation that ends with it."""

    prompt: str
    upto: str
    before: str = ""
    """What stands in `upto` before the answer's content, and `after` what stands behind it."""
    after: str = ""
    reasoning: str = ""


@dataclass(frozen=True)
class Ends:
    """Tokens that end answers: those that the template writes, and those that the model is said to stop at."""

    known: frozenset[str]

    def of(self, text: str, begin: int, body: int, control: Control) -> re.Match[str] | None:
        """The end token behind an answer whose body ends at `body`, if only blanks and other control tokens lie between."""
        return next((mark for mark in trail(text, max(begin, body), control) if mark.group() in self.known), None)


def trail(text: str, place: int, control: Control) -> Iterator[re.Match[str]]:
    """The control tokens that follow a place of the text with nothing but blanks between them."""
    for mark in control.finditer(text, place):
        if text[place : mark.start()].strip():
            return
        yield mark
        place = mark.end()


def body_end(text: str, begin: int, end: int, control: Control) -> int:
    """Where an answer's own text ends before control tokens and blanks at the end of `text[begin:end]`."""
    marks = [mark for mark in control.finditer(text, begin) if mark.end() <= end]
    last = end
    for mark in reversed(marks):
        if text[mark.end() : last].strip():
            break
        last = mark.start()
    return last


def together(
    whole: str, turns: Sequence[Turn], ends: Ends, control: Control
) -> tuple[str, list[tuple[int, int]]] | None:
    """The whole conversation as one text and what is learnt of it.

    None where some answer has another prompt or form there, or an earlier one no end token, which it would never learn.
    """
    learnt = []
    for turn in turns:
        begin = len(turn.prompt)
        if not (whole.startswith(turn.prompt) and turn.upto.startswith(turn.prompt)):
            return None
        body = body_end(turn.upto, begin, len(turn.upto), control)
        own = ends.of(turn.upto, begin, body, control)
        if not whole.startswith(turn.upto[: own.start() if own else body]):
            return None
        here = ends.of(whole, begin, body, control)
        if own and (here is None or here.group() != own.group()):
            return None
        if here is None and turn is not turns[-1]:
            return None
        learnt.append((begin, here.end() if here else begin + len(whole[begin:body].rstrip())))
    return whole, learnt


def alone(turn: Turn, ends: Ends, control: Control) -> tuple[str, list[tuple[int, int]]]:
    """The prompt of one answer with the answer behind it, and what is learnt of it."""
    text = turn.prompt + _rest(turn, control)
    begin = len(turn.prompt)
    end = ends.of(text, begin, body_end(text, begin, len(text), control), control)
    text = text[: end.end()] if end else text
    return text, [(begin, len(text))]


def _rest(turn: Turn, control: Control) -> str:
    """What follows the prompt: in the template's words where it goes on from it, else as near to them as can be."""
    if turn.upto.startswith(turn.prompt):
        return turn.upto[len(turn.prompt) :]
    shared = common(turn.prompt, turn.upto, control)
    own = turn.prompt[shared:]
    if tags := opened(own):
        thoughts = turn.reasoning.strip()
        return f"{thoughts}\n{tags.close}\n\n{_unled(turn, shared)}"
    if not own.strip():
        return _unled(turn, shared)
    return _header(turn, control) + turn.upto[len(turn.before) :]


def _unled(turn: Turn, shared: int) -> str:
    """What the template writes behind a place, without the blanks there that are not the answer's own."""
    if not (turn.before and turn.upto.startswith(turn.before)):
        return turn.upto[shared:].lstrip()
    return turn.upto[shared : len(turn.before)].lstrip() + turn.upto[max(shared, len(turn.before)) :]


def _header(turn: Turn, control: Control) -> str:
    """What the template writes between the end of the prompt and the content."""
    start = max((mark.start() for mark in control.finditer(turn.prompt)), default=len(turn.prompt))
    tail = turn.prompt[start:]
    at = turn.before.rfind(tail) if tail else -1
    return turn.before[at + len(tail) :] if at >= 0 else ""


def common(one: str, other: str, control: Control) -> int:
    """Length of the common beginning, which ends in no control token's spelling."""
    same = alike(one, other)
    for text in (one, other):
        for mark in control.finditer(text):
            if mark.start() < same < mark.end():
                same = mark.start()
    return same


def alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many letters or words from the beginning are the same in both."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
