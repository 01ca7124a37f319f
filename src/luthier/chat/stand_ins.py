"""Contents that stand in for real ones while a template renders, and note all that it wants to know of them.

A template mostly writes a content down and looks at roles only. A stand-in leaves a mark where it is written. What the template
asks of it (`'</think>' in content`) is answered by the real content and noted: another content that gives the same answers is
written in the same places. Whatever cannot be followed so, such as taking a content apart, makes the trial worthless.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import nodes

MARK = re.compile('\ue002"(\\d+)\\\\Aa \ue003')
"""A quote, a backslash, letters of both cases and a blank: whoever writes a content in another form breaks the mark."""
BORDERS = ("\ue002", "\ue003")

Strips = tuple[tuple[str, str | None], ...]
"""Methods by which a content was stripped, each with the characters that it was told to take."""


@dataclass(frozen=True)
class Slot:
    """A place for the content of a message, and how it is stripped there."""

    message: int
    strips: Strips = ()

    def fill(self, contents: Sequence[str]) -> str:
        """What stands there."""
        content = contents[self.message]
        for method, characters in self.strips:
            content = getattr(content, method)(characters)
        return content


@dataclass(frozen=True)
class Question:
    """What a template asked of a content, by a method of `str`, and the answer that it got."""

    slot: Slot
    method: str
    arguments: tuple[Any, ...]
    answer: bool

    def holds(self, contents: Sequence[str]) -> bool:
        """Whether these contents give the same answer."""
        return ASKING[self.method](self.slot.fill(contents), *self.arguments) == self.answer


@dataclass
class Trial:
    """One rendering with stand-ins: their places by number, the questions asked, and whether all of it could be followed."""

    slots: list[Slot] = field(default_factory=list)
    questions: dict[Question, None] = field(default_factory=dict)
    followed: bool = True

    def stand_in(self, slot: Slot, content: str) -> "StandIn":
        """What stands for a content, stripped as the slot says."""
        if slot not in self.slots:
            self.slots.append(slot)
        return StandIn(f'\ue002"{self.slots.index(slot)}\\Aa \ue003', self, slot, content)


class StandIn(str):
    """A text that is a mark when written, and answers by a real content."""

    _trial: Trial
    _slot: Slot | None
    _content: str

    def __new__(cls, mark: str, trial: Trial, slot: Slot | None, content: str) -> "StandIn":
        made = super().__new__(cls, mark)
        made._trial, made._slot, made._content = trial, slot, content
        return made

    def _joined(self, mark: str, content: str) -> "StandIn":
        return StandIn(mark, self._trial, None, content)

    def __add__(self, other: str) -> "StandIn":
        return self._joined(str.__str__(self) + str.__str__(other), self._content + _content(other))

    def __radd__(self, other: str) -> "StandIn":
        return self._joined(str.__str__(other) + str.__str__(self), _content(other) + self._content)


def _content(text: Any) -> Any:
    return text._content if isinstance(text, StandIn) else text


ASKING: Mapping[str, Callable[..., bool]] = {
    "__bool__": bool,
    "__contains__": operator.contains,
    "__eq__": operator.eq,
    "__ne__": operator.ne,
    "startswith": str.startswith,
    "endswith": str.endswith,
}


def _asking(method: str) -> Callable[..., bool]:
    def asked(self: StandIn, *arguments: Any) -> bool:
        answer = bool(ASKING[method](self._content, *map(_content, arguments)))
        if self._slot is None or not all(type(each) is str or each is None for each in arguments):
            self._trial.followed = False
        else:
            self._trial.questions[Question(self._slot, method, arguments, answer)] = None
        return answer

    return asked


def _stripping(method: str) -> Callable[..., StandIn]:
    def stripped(self: StandIn, characters: str | None = None) -> StandIn:
        content = getattr(self._content, method)(characters)
        if self._slot is None or isinstance(characters, StandIn):
            self._trial.followed = False
            return self._joined(str.__str__(self), content)
        return self._trial.stand_in(Slot(self._slot.message, (*self._slot.strips, (method, characters))), content)

    return stripped


def _looking(method: str) -> Callable[..., Any]:
    def looked(self: StandIn, *arguments: Any, **named: Any) -> Any:
        self._trial.followed = False
        return getattr(self._content, method)(*arguments, **named)

    return looked


STRIPPING = ("strip", "lstrip", "rstrip")
OWN = frozenset(vars(object)) - {
    "__eq__",
    "__ne__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__hash__",
    "__format__",
} | {
    "__add__",
    "__getnewargs__",
}
"""What stays as it is."""
for _name in {*dir(str), "__bool__"} - OWN:
    _kind = _asking if _name in ASKING else _stripping if _name in STRIPPING else _looking
    setattr(StandIn, _name, _kind(_name))


FOLLOWED_FILTERS = frozenset(
    (
        "trim",
        "string",
        "default",
        "d",
        "length",
        "count",
        "first",
        "last",
        "list",
        "lower",
        "upper",
        "selectattr",
        "rejectattr",
    )
)
"""Jinja's filters and tests that go by a text's own methods, or by its being there."""
FOLLOWED_TESTS = frozenset(
    ("defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "boolean", "true", "false")
) | frozenset(("eq", "equalto", "==", "ne", "!=", "in"))
FOLLOWED_FUNCTIONS = frozenset({"namespace", "raise_exception", "strftime_now", "range", "dict"})


def can_be_followed(tree: nodes.Template) -> bool:
    """Whether a template looks at contents as they are, and not at texts that it has made of them.

    A text joined of several (`~`, a macro's result) is a plain one and notes nothing. It may be written, but not kept or asked.
    """
    if any(True for _ in tree.find_all((nodes.AssignBlock, nodes.FilterBlock))):
        return False
    written = [expression for output in tree.find_all(nodes.Output) for expression in output.nodes]
    only_written = {id(part) for expression in written for part in _written(expression)}
    return all(id(made) in only_written for made in tree.find_all(nodes.Expr) if _makes_text(made))


def _makes_text(node: nodes.Expr) -> bool:
    """Whether this joins or changes texts in a way that a stand-in does not notice."""
    if isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Name):
            return node.node.name not in FOLLOWED_FUNCTIONS
        return isinstance(node.node, nodes.Getattr) and node.node.attr in ("join", "format", "format_map")
    if isinstance(node, nodes.Filter):
        return node.name not in FOLLOWED_FILTERS
    if isinstance(node, nodes.Test):
        return node.name not in FOLLOWED_TESTS
    return isinstance(node, nodes.Concat | nodes.Mod)


def _written(expression: nodes.Node) -> Iterable[nodes.Node]:
    """The parts of an expression that are written as they come, and looked at by nothing."""
    yield expression
    if isinstance(expression, nodes.Concat):
        for part in expression.nodes:
            yield from _written(part)
    elif isinstance(expression, nodes.Add):
        yield from _written(expression.left)
        yield from _written(expression.right)
    elif isinstance(expression, nodes.CondExpr):
        yield from _written(expression.expr1)
        if expression.expr2 is not None:
            yield from _written(expression.expr2)
