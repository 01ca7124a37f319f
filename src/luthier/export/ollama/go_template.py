"""Templates of Go's text/template, as far as ours go; what is beyond is refused, never guessed.

Text; `{{ "text" }}`; `{{ .Field }}`; `if`, `else if`, `else`; `range $i, $m := .Messages`; and in conditions `eq`, `ne`,
`and`, `index`, `slice`, `len`, brackets, `$i`, `$.Field` and numbers. The meaning is that of
pkg.go.dev/text/template, and the tests hold it against Go itself where that is installed.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.errors import UserError

ACTION = re.compile(r"\{\{(?P<inside>(?:\"(?:\\.|[^\"\\])*\"|(?!\}\}).)*)\}\}", re.DOTALL)
WORD = re.compile(
    r'\s*(?:(?P<text>"(?:\\.|[^"\\])*")|(?P<number>\d+)|(?P<name>\$?\.?[A-Za-z_]\w*(?:\.\w+)*|\$\.\w+|\$)|(?P<sign>:=|[(),]|\.\w+))'
)
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
LETTERS = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
PLAIN = frozenset("\n\t ")
"""Beside printable characters, what the parser of Modelfiles keeps as it is; it drops everything else."""


@dataclass(frozen=True)
class _Scope:
    """What names stand for: the root, the dot, and variables."""

    root: dict[str, Any]
    dot: Any
    variables: dict[str, Any]


Value = Callable[[_Scope], Any]


@dataclass
class _Branches:
    """An `if` with its conditions, the last of which may be empty."""

    cases: list[tuple[Value | None, "list[_Node]"]] = field(default_factory=list)

    def render(self, scope: _Scope) -> str:
        for condition, body in self.cases:
            if condition is None or condition(scope):
                return _render(body, scope)
        return ""


@dataclass
class _Range:
    """A loop over a list, with the names of its index and its element."""

    index: str
    element: str
    over: Value
    body: "list[_Node]"

    def render(self, scope: _Scope) -> str:
        return "".join(
            _render(self.body, _Scope(scope.root, each, {**scope.variables, self.index: number, self.element: each}))
            for number, each in enumerate(self.over(scope))
        )


@dataclass
class _Output:
    """A value, written."""

    value: Value

    def render(self, scope: _Scope) -> str:
        return str(self.value(scope))


_Node = str | _Branches | _Range | _Output


def _render(body: Sequence[_Node], scope: _Scope) -> str:
    return "".join(node if isinstance(node, str) else node.render(scope) for node in body)


class GoTemplate:
    """A template that has been read. `where` is the `where` of its errors."""

    def __init__(self, source: str, where: str) -> None:
        self.source, self._where = source, where
        self._parts = list(self._split())
        self._at = 0
        self._body, end = self._read_body()
        if end is not None:
            raise self._refusal(f"{{{{ {end} }}}} without a beginning")

    def render(self, data: dict[str, Any]) -> str:
        """The template on this data."""
        return _render(self._body, _Scope(data, data, {}))

    def _split(self) -> Iterator[tuple[bool, str]]:
        """Texts and the insides of actions, in turn."""
        at = 0
        for found in ACTION.finditer(self.source):
            yield False, self.source[at : found.start()]
            yield True, found["inside"]
            at = found.end()
        if "{{" in self.source[at:]:
            raise self._refusal("an action that does not end")
        yield False, self.source[at:]

    def _read_body(self) -> tuple[list[_Node], str | None]:
        """Nodes up to the action that ends them, and its words; None at the template's end."""
        body: list[_Node] = []
        while self._at < len(self._parts):
            action, text = self._parts[self._at]
            self._at += 1
            words = text.strip()
            if not action:
                body.append(text)
            elif words.split(" ")[0] in ("else", "end"):
                return body, words
            elif words.startswith("if "):
                body.append(self._read_branches(words[3:]))
            elif words.startswith("range "):
                body.append(self._read_range(words[6:]))
            else:
                body.append(_Output(self._value(words)))
        return body, None

    def _read_branches(self, condition: str) -> _Branches:
        found = _Branches()
        value: Value | None = self._value(condition)
        while True:
            body, end = self._read_body()
            found.cases.append((value, body))
            if end == "end":
                return found
            if end is None or value is None:
                raise self._refusal("an if without its end")
            if end != "else" and not end.startswith("else if "):
                raise self._refusal(f"{{{{ {end} }}}}")
            value = self._value(end.removeprefix("else if ")) if end != "else" else None

    def _read_range(self, words: str) -> _Range:
        found = re.fullmatch(r"(\$\w+), (\$\w+) := (\.\w+)", words)
        if not found:
            raise self._refusal(f"range {words}")
        body, end = self._read_body()
        if end != "end":
            raise self._refusal("a range without its end")
        return _Range(found[1], found[2], self._value(found[3]), body)

    def _value(self, words: str) -> Value:
        """A whole expression."""
        tokens = self._words(words)
        value, left = self._call(tokens)
        if left:
            raise self._refusal(words)
        return value

    def _words(self, words: str) -> list[str]:
        tokens, at = [], 0
        while at < len(words.rstrip()):
            found = WORD.match(words, at)
            if not found:
                raise self._refusal(words)
            tokens.append(found[0].strip())
            at = found.end()
        return tokens

    def _call(self, tokens: list[str]) -> tuple[Value, list[str]]:
        """A function with its arguments, or a single value, up to a closing bracket."""
        if not tokens:
            raise self._refusal("an empty action")
        name = tokens[0]
        if name not in FUNCTIONS:
            return self._single(tokens)
        count, function = FUNCTIONS[name]
        arguments, left = [], tokens[1:]
        while left and left[0] != ")":
            value, left = self._single(left)
            arguments.append(value)
        if len(arguments) != count:
            raise self._refusal(f"{name} with {len(arguments)} values")
        return (lambda scope: function(*(each(scope) for each in arguments))), left

    def _single(self, tokens: list[str]) -> tuple[Value, list[str]]:
        if not tokens:
            raise self._refusal("an action that ends in its middle")
        token, left = tokens[0], tokens[1:]
        if token == "(":
            value, left = self._call(left)
            if left[:1] != [")"]:
                raise self._refusal("a bracket that does not end")
            left = left[1:]
            if left and re.fullmatch(r"\.[A-Za-z]\w*", left[0]):
                return _field_of(value, left[0][1:]), left[1:]
            return value, left
        if token.startswith('"'):
            text = self._unquote(token)
            return (lambda scope: text), left
        if token.isdigit():
            return (lambda scope: int(token)), left
        if re.fullmatch(r"\$\.[A-Za-z]\w*", token):
            return (lambda scope: scope.root[token[2:]]), left
        if re.fullmatch(r"\$[A-Za-z]\w*", token):
            return (lambda scope: scope.variables[token]), left
        if re.fullmatch(r"\.[A-Za-z]\w*", token):
            return (lambda scope: scope.dot[token[1:]]), left
        raise self._refusal(token)

    def _unquote(self, token: str) -> str:
        def letter(found: re.Match[str]) -> str:
            if found[1] or found[2]:
                return chr(int(found[1] or found[2], 16))
            if found[3] not in LETTERS:
                raise self._refusal(f"\\{found[3]}")
            return LETTERS[found[3]]

        return ESCAPE.sub(letter, token[1:-1])

    def _refusal(self, what: str) -> UserError:
        return UserError(
            f"its template has {what!r}, which is beyond the part of Go's templates that Luthier reads.",
            where=self._where,
        )


def _field_of(value: Value, name: str) -> Value:
    return lambda scope: value(scope)[name]


FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "eq": (2, lambda one, other: one == other),
    "ne": (2, lambda one, other: one != other),
    "and": (2, lambda one, other: one and other),
    "len": (1, len),
    "slice": (2, lambda values, begin: values[begin:]),
    "index": (2, lambda values, number: values[number]),
}
"""By name, with the number of their values."""


def literal(text: str) -> str:
    """A text as a template writes it, whatever is in it: what a Modelfile or Go would read otherwise, as a quoted action."""
    return "".join(piece if keep else f"{{{{ {_quoted(piece)} }}}}" for keep, piece in _pieces(text))


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Runs of what can stand as it is, and of what cannot."""
    at = 0
    for found in re.finditer(r'\{+|"""+|[^\n\t -~]', text):
        odd = found[0]
        if odd[0] not in '{"' and odd.isprintable():
            continue
        if found.start() > at:
            yield True, text[at : found.start()]
        yield False, odd
        at = found.end()
    if at < len(text):
        yield True, text[at:]


def _quoted(text: str) -> str:
    """A string of Go's, in ASCII."""
    return '"' + "".join(_escaped(sign) for sign in text) + '"'


def _escaped(sign: str) -> str:
    for letter, meant in LETTERS.items():
        if sign == meant:
            return f"\\{letter}"
    if " " <= sign <= "~":
        return sign
    return f"\\u{ord(sign):04x}" if ord(sign) < 1 << 16 else f"\\U{ord(sign):08x}"
