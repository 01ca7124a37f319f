"""Which spans of a rendering the loss is taken on: behind each answer's prompt, up to and with the token that ends the answer.

Nothing is searched by its words. A template is asked for three texts: `prompt` (what asks for the answer), `with_answer` (the
conversation that ends with it) and the whole conversation; the spans follow from where they part.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luthier.chat.thinking import open_tags

Control = re.Pattern[str]


@dataclass(frozen=True)
class AnswerRendering:
    """One answer: the text that asks for it, and the conversation that ends with it."""

    prompt: str
    with_answer: str
    before_content: str = ""
    """What stands in `with_answer` before the answer's content, and `after_content` what stands behind it."""
    after_content: str = ""
    reasoning: str = ""


@dataclass(frozen=True)
class EndTokens:
    """Tokens that end answers: those that the template writes, and those that the model is said to stop at."""

    tokens: frozenset[str]

    def find(self, text: str, begin: int, body: int, control: Control) -> re.Match[str] | None:
        """The end token behind an answer whose body ends at `body`, if only blanks and other control tokens lie between."""
        return next(
            (mark for mark in control_tokens_after(text, max(begin, body), control) if mark.group() in self.tokens),
            None,
        )


def control_tokens_after(text: str, position: int, control: Control) -> Iterator[re.Match[str]]:
    """The control tokens that follow a position of the text with nothing but blanks between them."""
    for mark in control.finditer(text, position):
        if text[position : mark.start()].strip():
            return
        yield mark
        position = mark.end()


def body_end(text: str, begin: int, end: int, control: Control) -> int:
    """Where an answer's own text ends before control tokens and blanks at the end of `text[begin:end]`."""
    marks = [mark for mark in control.finditer(text, begin) if mark.end() <= end]
    last = end
    for mark in reversed(marks):
        if text[mark.end() : last].strip():
            break
        last = mark.start()
    return last


def conversation_spans(
    whole: str, turns: Sequence[AnswerRendering], ends: EndTokens, control: Control
) -> tuple[str, list[tuple[int, int]]] | None:
    """The whole conversation as one text, and the spans of its answers.

    None where some answer has another prompt or form there, or an earlier one no end token: a model would not learn to stop.
    """
    spans = []
    for turn in turns:
        begin = len(turn.prompt)
        if not (whole.startswith(turn.prompt) and turn.with_answer.startswith(turn.prompt)):
            return None
        body = body_end(turn.with_answer, begin, len(turn.with_answer), control)
        own = ends.find(turn.with_answer, begin, body, control)
        if not whole.startswith(turn.with_answer[: own.start() if own else body]):
            return None
        here = ends.find(whole, begin, body, control)
        if own and (here is None or here.group() != own.group()):
            return None
        if here is None and turn is not turns[-1]:
            return None
        spans.append((begin, here.end() if here else begin + len(whole[begin:body].rstrip())))
    return whole, spans


def answer_spans(turn: AnswerRendering, ends: EndTokens, control: Control) -> tuple[str, list[tuple[int, int]]]:
    """The prompt of one answer with the answer behind it, and the span of the answer."""
    text = turn.prompt + _answer_text(turn, control)
    begin = len(turn.prompt)
    end = ends.find(text, begin, body_end(text, begin, len(text), control), control)
    text = text[: end.end()] if end else text
    return text, [(begin, len(text))]


def _answer_text(turn: AnswerRendering, control: Control) -> str:
    """What follows the prompt: in the template's words where it goes on from it, else as near to them as can be."""
    if turn.with_answer.startswith(turn.prompt):
        return turn.with_answer[len(turn.prompt) :]
    shared = common_prefix(turn.prompt, turn.with_answer, control)
    own = turn.prompt[shared:]
    if tags := open_tags(own):
        thoughts = turn.reasoning.strip()
        return f"{thoughts}\n{tags.close}\n\n{_without_leading_blanks(turn, shared)}"
    if not own.strip():
        return _without_leading_blanks(turn, shared)
    return _header(turn, control) + turn.with_answer[len(turn.before_content) :]


def _without_leading_blanks(turn: AnswerRendering, shared: int) -> str:
    """What the template writes behind a place, without the blanks there that are not the answer's own."""
    if not (turn.before_content and turn.with_answer.startswith(turn.before_content)):
        return turn.with_answer[shared:].lstrip()
    return (
        turn.with_answer[shared : len(turn.before_content)].lstrip()
        + turn.with_answer[max(shared, len(turn.before_content)) :]
    )


def _header(turn: AnswerRendering, control: Control) -> str:
    """What the template writes between the end of the prompt and the content."""
    start = max((mark.start() for mark in control.finditer(turn.prompt)), default=len(turn.prompt))
    tail = turn.prompt[start:]
    at = turn.before_content.rfind(tail) if tail else -1
    return turn.before_content[at + len(tail) :] if at >= 0 else ""


def common_prefix(one: str, other: str, control: Control) -> int:
    """Length of the common beginning, which ends in no control token's spelling."""
    same = count_equal(one, other)
    for text in (one, other):
        for mark in control.finditer(text):
            if mark.start() < same < mark.end():
                same = mark.start()
    return same


def count_equal(one: Sequence[str], other: Sequence[str]) -> int:
    """How many letters or words from the beginning are the same in both."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
