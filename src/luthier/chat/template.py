"""From a conversation to tokens and back: the one object that training, evaluation and talking share.

A chat template is rendered once per pattern of roles, with marks in the place of every content. What stands between the marks
is the template's own text, the only place that control tokens can come from: a user who spells `<|im_end|>` wrote text.
The text between two control tokens is tokenized as one piece, as the model saw it in pretraining, except that an assistant's
answer always starts a piece of its own, because that is where generation starts. So a prompt's tokens are, by construction,
the beginning of the training row's tokens, and which tokens are learnt follows from the pieces, never from comparing texts.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from luthier.chat.conversation import Conversation, Message, Role
from luthier.errors import Mistake

VERSION = "1"  # part of the hash: a change of the rules below is a change of the template

BASE_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}

{% elif message.role == 'user' %}### Question:
{{ message.content }}

{% else %}### Answer:
{{ message.content }}{{ eos_token }}
{% endif %}{% endfor %}{% if add_generation_prompt %}### Answer:
{% endif %}"""
"""For base models, which bring no template: headings that a model knows from its pretraining text, and the end token."""


class Tokenizer(Protocol):
    """What a template needs of a tokenizer."""

    control: Mapping[str, int]
    """Control tokens, as spelled in templates → id."""
    bos: str
    """Token that starts every sequence; empty when the model uses none."""
    eos: str
    """Token that ends a sequence."""

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of plain text, and for each the offset in `text` where it starts; control tokens in `text` stay text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""


@dataclass(frozen=True)
class Encoded:
    """A row to learn from: `learn[i]` says whether token `ids[i]` is to be predicted (from the tokens before it)."""

    ids: list[int]
    learn: list[bool]
    rejected: "Encoded | None" = None
    """The row with the rejected answer, where preferences are learnt."""

    @property
    def learnt(self) -> int:
        """Tokens that are learnt; a sequence's first token has nothing before it and is never one."""
        return sum(self.learn[1:])

    @property
    def tokens(self) -> int:
        """Tokens of the row, and of its rejected twin."""
        return len(self.ids) + (len(self.rejected.ids) if self.rejected else 0)


@dataclass(frozen=True)
class _Piece:
    """Template text (`message` is None), or the place of a message's content."""

    text: str
    message: int | None = None


@dataclass(eq=False)
class Template:
    """A chat template with its tokenizer. `source` is Jinja, as in a model's `chat_template.jinja`."""

    source: str
    tokenizer: Tokenizer
    name: str
    _patterns: dict[tuple[tuple[Role, ...], bool], list[_Piece]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._jinja = _environment().from_string(_GENERATION_TAGS.sub("", self.source))
        spelled = sorted(self.tokenizer.control, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, spelled)) or r"(?!)")
        self._takes_system = self._accepts(("system", "user"))

    @property
    def sha256(self) -> str:
        """Identifies how conversations become tokens; a model must be used with the template that it was trained with."""
        parts = (
            VERSION,
            self.source,
            self.tokenizer.bos,
            self.tokenizer.eos,
            str(sorted(self.tokenizer.control.items())),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ends = {self.tokenizer.control[self.tokenizer.eos]} if self.tokenizer.eos in self.tokenizer.control else set()
        closing = self._closing(("user", "assistant"))
        if end := self._control.search(closing):
            ends.add(self.tokenizer.control[end.group()])
        return frozenset(ends)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids that ask for the assistant's next answer; of a document, its beginning."""
        if not messages or messages[0].role == "text":
            text = "".join(message.content for message in messages)
            return self._beginning() + self.tokenizer.encode(text)[0]
        return self._tokens(self._pieces(messages, ask=True), messages).ids

    def row(self, conversation: Conversation) -> Encoded:
        """A conversation to learn: every answer of the assistant and the token that ends it."""
        if conversation.is_document:
            start = self._beginning()
            ids = self.tokenizer.encode(conversation.answer)[0]
            end = [self.tokenizer.control[self.tokenizer.eos]] if self.tokenizer.eos in self.tokenizer.control else []
            return Encoded(start + ids + end, [False] * len(start) + [True] * (len(ids) + len(end)))
        messages = self._with_system(conversation.messages)
        assert messages[-1].role == "assistant", "a conversation to learn ends with the answer"
        pieces = self._pieces(messages[:-1], ask=True)
        closing = self._closing(tuple(message.role for message in messages))
        stop = self._control.search(closing)
        # What stands behind the end token is nothing to learn; a template that forgets the end gets one, to learn to stop.
        closing = closing[: stop.end()] if stop else closing + self.tokenizer.eos
        return self._tokens([*pieces, _Piece("", len(messages) - 1), _Piece(closing)], messages)

    def reply(self, ids: Sequence[int]) -> str:
        """The text of generated ids, up to the first token that ends an answer."""
        stops = self.stop_ids
        end = next((place for place, token in enumerate(ids) if token in stops), len(ids))
        return self.tokenizer.decode(ids[:end]).strip()

    def _beginning(self) -> list[int]:
        return [self.tokenizer.control[self.tokenizer.bos]] if self.tokenizer.bos else []

    def _with_system(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages; where the template knows no system role, its text opens the first question."""
        if self._takes_system or not messages or messages[0].role != "system":
            return tuple(messages)
        system, first, *rest = messages
        return (Message(first.role, f"{system.content}\n\n{first.content}"), *rest)

    def _pieces(self, messages: Sequence[Message], *, ask: bool) -> list[_Piece]:
        return self._pattern(tuple(message.role for message in self._with_system(messages)), ask=ask)

    def _closing(self, roles: tuple[Role, ...]) -> str:
        """The template's text behind the last message's content."""
        return "".join(piece.text for piece in self._after_last_content(self._pattern(roles, ask=False)))

    @staticmethod
    def _after_last_content(pieces: list[_Piece]) -> Iterator[_Piece]:
        last = max(place for place, piece in enumerate(pieces) if piece.message is not None)
        yield from pieces[last + 1 :]

    def _pattern(self, roles: tuple[Role, ...], *, ask: bool) -> list[_Piece]:
        """The template's text around the contents of messages with these roles."""
        if (roles, ask) not in self._patterns:
            marks = [f"\ue000{number}\ue001" for number in range(len(roles))]
            try:
                text = self._jinja.render(
                    messages=[{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)],
                    add_generation_prompt=ask,
                    bos_token=self.tokenizer.bos,
                    eos_token=self.tokenizer.eos,
                )
            except TemplateError as error:
                raise Mistake(
                    f"the chat template refuses the roles {', '.join(roles)}: {error}.", where=self.name
                ) from None
            parts = re.split("\ue000(\\d+)\ue001", text)
            shown = [int(number) for number in parts[1::2]]
            if shown != list(range(len(roles))):
                raise Mistake(
                    f"the chat template does not show each message once and in order (roles {', '.join(roles)}), so Luthier "
                    "cannot tell what is to be learnt. Use the model's base version, or a model with a plainer template.",
                    where=self.name,
                )
            self._patterns[roles, ask] = [
                _Piece("", int(part)) if number % 2 else _Piece(part) for number, part in enumerate(parts)
            ]
        return self._patterns[roles, ask]

    def _accepts(self, roles: tuple[Role, ...]) -> bool:
        try:
            self._pattern(roles, ask=True)
        except Mistake:
            return False
        return True

    def _tokens(self, pieces: Sequence[_Piece], messages: Sequence[Message]) -> Encoded:
        """Tokenize: control tokens to their ids, the text between them piece by piece, with what is learnt."""
        messages = self._with_system(messages)
        ids: list[int] = []
        learn: list[bool] = []
        run = ""  # text since the last control token or start of an answer
        learnt_from: int | None = None  # offset in `run` from which tokens are learnt, while inside an answer
        learnt_to: int | None = None

        def flush() -> None:
            nonlocal run, learnt_from, learnt_to
            tokens, starts = self.tokenizer.encode(run) if run else ([], [])
            low, high = (
                (len(run), 0) if learnt_from is None else (learnt_from, len(run) if learnt_to is None else learnt_to)
            )
            ids.extend(tokens)
            learn.extend(low <= start < high for start in starts)
            run, learnt_from, learnt_to = "", None, None

        closing = False  # behind an answer, before the token that ends it
        for piece in pieces:
            if piece.message is not None:
                message = messages[piece.message]
                closing = message.role == "assistant"
                if closing:
                    flush()
                    learnt_from = 0
                elif learnt_from is not None and learnt_to is None:
                    learnt_to = len(run)
                run += message.content
                answer_end = len(run)
                continue
            place = 0
            for control in self._control.finditer(piece.text):
                run += piece.text[place : control.start()]
                flush()
                ids.append(self.tokenizer.control[control.group()])
                learn.append(closing)
                closing = False
                place = control.end()
            if closing:
                learnt_to = answer_end  # no end token follows at once: only the answer itself is learnt
                closing = False
            run += piece.text[place:]
        flush()
        return Encoded(ids, learn)


_GENERATION_TAGS = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates, in a sandbox."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def today(form: str) -> str:
        return datetime.now().strftime(form)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    extras: dict[str, Any] = {"raise_exception": refuse, "strftime_now": today}
    environment.globals.update(extras)
    return environment
