"""Rows of plain conversations without rendering each: what the template made of one is filled in for all of its pattern.

Rendering costs more than all else that happens to a row. Yet for most conversations a template writes the same words around
other contents. So the first one of a pattern (the roles in their order) is also rendered with stand-ins for its contents, and
where all that the template does with them could be followed, its texts and spans serve for others. Whatever is out of the
ordinary goes the long way: calls, thoughts, control tokens that people spell, a template that takes contents apart.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from luthier.chat.conversation import Conversation, Message
from luthier.chat.loss_spans import AnswerRendering
from luthier.chat.stand_ins import BORDERS, MARK, Question, Slot, Trial
from luthier.chat.tokens import Encoded, Rendering, RenderingTokenizer
from luthier.errors import UserError

MOST_PATTERNS = 6
"""Of one order of roles; a template that asks more of contents is rendered."""
MOST_ORDERS = 200
CHECKED = (10, 100, 1_000, 10_000, 100_000)
"""A pattern that was used so often is compared with a rendering once more."""


@dataclass(frozen=True)
class Draft:
    """The texts that become a conversation's rows, and its answers; a document has none."""

    renderings: list[Rendering]
    turns: Sequence[AnswerRendering] = ()
    together: bool = False
    """Whether all answers stand in one text, each ended by a control token or by the text's end."""


@dataclass(frozen=True)
class SpanTokens:
    """Where the loss tokens of an answer lie: from behind `prompt`, which begins with a control token, to another one."""

    control: int
    """The number of the control token with which the end of the prompt begins."""
    prompt: list[int]
    end: int | None
    """The number of the control token that ends the answer; None for the last one of the text."""


@dataclass
class Pattern:
    """The text of a conversation's row: `literals` with contents between them."""

    literals: tuple[str, ...]
    slots: tuple[Slot, ...]
    questions: tuple[Question, ...]
    spans: tuple[tuple[int, int], ...]
    """Spans of the loss: begin and end, counted in the literals alone, each followed by the number of slots before it."""
    slots_before: tuple[tuple[int, int], ...]
    controls: list[int]
    """The ids of the literals' control tokens."""
    tokens: tuple[SpanTokens, ...] | None
    used: int = 0

    def fits(self, contents: Sequence[str]) -> bool:
        """Whether the template would treat these contents alike."""
        return all(question.holds(contents) for question in self.questions)

    def fill(self, contents: Sequence[str]) -> Rendering:
        """The row's text with these contents; with spans only where tokens do not tell them."""
        filled = [slot.fill(contents) for slot in self.slots]
        parts = [""] * (2 * len(filled) + 1)
        parts[::2] = self.literals
        parts[1::2] = filled
        text = "".join(parts)
        return Rendering(text) if self.tokens is not None else Rendering(text, self.spans_with(filled))

    def spans_with(self, filled: Sequence[str]) -> list[tuple[int, int]]:
        """The spans of the loss in the text with these contents in its slots."""
        sums = [0]
        for content in filled:
            sums.append(sums[-1] + len(content))
        return [
            (begin + sums[first], end + sums[last])
            for (begin, end), (first, last) in zip(self.spans, self.slots_before, strict=True)
        ]

    def row(self, ids: list[int], control_ids: frozenset[int]) -> Encoded | None:
        """The row of these tokens, or None where they are not cut as expected, or the spans have to be looked for."""
        if self.tokens is None:
            return None
        at = [position for position, token in enumerate(ids) if token in control_ids]
        if [ids[position] for position in at] != self.controls:
            return None
        loss_mask = [False] * len(ids)
        for span in self.tokens:
            first = at[span.control] + len(span.prompt)
            if ids[at[span.control] : first] != span.prompt:
                return None
            last = len(ids) if span.end is None else at[span.end] + 1
            loss_mask[first:last] = [True] * (last - first)
        return Encoded(ids, loss_mask)


class Patterns:
    """The patterns of one template that have been met. `draft` makes the texts of a conversation the long way."""

    def __init__(self, draft: Callable[[Conversation], Draft | UserError], tokenization: RenderingTokenizer) -> None:
        self._draft, self._tokenization = draft, tokenization
        self._known: dict[tuple[str, ...], list[Pattern]] = {}
        self._met: set[tuple[str, ...]] = set()
        self._hopeless: set[tuple[str, ...]] = set()

    def find(self, conversation: Conversation) -> tuple[Pattern, Rendering] | None:
        """The pattern of a conversation and its row's text, if it has one."""
        messages = conversation.messages
        roles = tuple([message.role for message in messages])
        if roles in self._hopeless or conversation.tools or not all(map(_is_plain, messages)):
            return None
        contents = [message.content for message in messages]
        search = self._tokenization.control.search
        if any(not content or content.isspace() or search(content) for content in contents):
            return None
        if roles not in self._met:  # perhaps the only one: no trial for a single conversation
            self._met.add(roles)
            return None
        known = self._known.setdefault(roles, [])
        pattern = next((pattern for pattern in known if pattern.fits(contents)), None)
        if pattern is None:
            pattern = self._follow(conversation, contents) if len(known) < MOST_PATTERNS else None
            if pattern is None or len(self._known) > MOST_ORDERS:
                self._hopeless.add(roles)
                return None
            known.append(pattern)
        rendering = pattern.fill(contents)
        pattern.used += 1
        if pattern.used in CHECKED:
            draft = self._draft(conversation)
            assert isinstance(draft, Draft) and draft.renderings[0].text == rendering.text, "filled in as rendered"
        return pattern, rendering

    def _follow(self, conversation: Conversation, contents: Sequence[str]) -> Pattern | None:
        """The pattern of a conversation, where its rendering could be followed."""
        trial = Trial()
        stand_ins = [trial.stand_in(Slot(number), content) for number, content in enumerate(contents)]
        messages = tuple(
            replace(message, content=content) for message, content in zip(conversation.messages, stand_ins, strict=True)
        )
        followed, real = self._draft(Conversation(messages)), self._draft(conversation)
        if isinstance(followed, UserError) or isinstance(real, UserError) or not trial.followed:
            return None
        if not (followed.together and real.together):
            return None
        pattern = self._pattern(followed.renderings[0], trial)
        if pattern is None or not pattern.fits(contents):
            return None
        spans = pattern.spans_with([slot.fill(contents) for slot in pattern.slots])
        return pattern if (pattern.fill(contents).text, spans) == _text_and_spans(real.renderings[0]) else None

    def _pattern(self, rendering: Rendering, trial: Trial) -> Pattern | None:
        """A rendering with stand-ins as a pattern; None where something of it would depend on the contents."""
        text, spans, control = rendering.text, rendering.loss_spans, self._tokenization.tokenizer.control
        marks = list(MARK.finditer(text))
        edges = [0, *(edge for mark in marks for edge in mark.span()), len(text)]
        literals = tuple(text[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True))
        found = list(self._tokenization.control.finditer(text))
        if any(border in literal for border in BORDERS for literal in literals) or _could_join(literals, control):
            return None
        if not {end for _, end in spans} <= {one.end() for one in found}:
            return None
        before = [tuple([sum(mark.end() <= edge for mark in marks) for edge in span]) for span in spans]
        widths = [sum(mark.end() - mark.start() for mark in marks[:number]) for number in range(len(marks) + 1)]
        return Pattern(
            literals,
            tuple(trial.slots[int(mark.group(1))] for mark in marks),
            tuple(question for question in trial.questions if question != _has_content(question.slot)),
            tuple(
                (begin - widths[first], end - widths[last])
                for (begin, end), (first, last) in zip(spans, before, strict=True)
            ),
            tuple((first, last) for first, last in before),
            [control[one.group()] for one in found],
            self._span_tokens(rendering, found),
        )

    def _span_tokens(self, rendering: Rendering, found: Sequence[re.Match[str]]) -> tuple[SpanTokens, ...] | None:
        """Where the loss tokens lie, counted from control tokens; None where a content is part of what has to be compared."""
        tokens = []
        for begin, end in rendering.loss_spans:
            number = sum(one.end() <= begin for one in found) - 1
            if number < 0 or MARK.search(prompt := rendering.text[found[number].start() : begin]):
                return None
            ids = self._tokenization.tail(prompt)
            last = next(at for at, one in enumerate(found) if one.end() == end)
            tokens.append(SpanTokens(number, ids, None if end == len(rendering.text) else last))
        return tuple(tokens)


def _text_and_spans(rendering: Rendering) -> tuple[str, list[tuple[int, int]]]:
    return rendering.text, list(rendering.loss_spans)


def _has_content(slot: Slot) -> Question:
    """What is true of every content that is filled in."""
    return Question(slot, "__bool__", (), True)


def _is_plain(message: Message) -> bool:
    return (
        message.role in ("system", "user", "assistant")
        and message.reasoning is None
        and not message.tool_calls
        and message.name is None
        and message.tool_call_id is None
        and message.in_loss
    )


def _could_join(literals: Sequence[str], control: Collection[str]) -> bool:
    """Whether a content and what stands beside it could spell a control token together."""
    ends = {token[at:] for token in control for at in range(1, len(token))}
    beginnings = {token[:at] for token in control for at in range(1, len(token))}
    longest = max(map(len, control), default=0)
    behind = [each for each in literals[1:] if each]
    ahead = [each for each in literals[:-1] if each]
    return (
        not all(literals[1:-1])
        or any(each[:size] in ends for each in behind for size in range(1, longest))
        or any(each[-size:] in beginnings for each in ahead for size in range(1, longest))
        or any(each in part for each in (*behind, *ahead) if len(each) < longest for part in ends | beginnings)
    )
