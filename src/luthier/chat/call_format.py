"""Calls in replies: the form in which a template writes them, found from its own renderings, and replies read back by it.

A call is rendered with words that no template has. Where they stand in the rendering tells the form: an object with name and
arguments, a name before the arguments as JSON, Python's way, or a tag for each argument. A form that does not read its own
example back is none.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.chat.conversation import ToolCall

NAME, KEYS, CALL_ID = "zqname", ("zqfirst", "zqsecond"), "call00000"
VALUES = ("zq one", "zq two")
EXAMPLE = ToolCall(NAME, json.dumps(dict(zip(KEYS, VALUES, strict=True))), CALL_ID)
OTHER_EXAMPLE = ToolCall(NAME, json.dumps({KEYS[0]: 7, KEYS[1]: [1, True, VALUES[1]]}), CALL_ID)
_WORD = r"[\w.\-]+?"

Found = list[tuple[str, dict[str, Any]]]
"""Names and arguments."""


@dataclass(frozen=True)
class CallFormat:
    """How a template writes calls. `mark` stands before the first one, and tells a call from an answer."""

    mark: str
    above: str
    """What stands in the lines before the mark, which are no words of an answer either."""
    find: Callable[[str], Found]
    """All calls in a text that begins behind the mark."""
    typed: bool = True
    """Whether values show their types, so that a text that spells a number is still a text."""

    def read(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """A reply's words before its calls, and these; none where the reply holds no call, or one that cannot be read."""
        start = text.find(self.mark) if self.mark else 0
        if start < 0:
            return text, ()
        try:
            found = self.find(text[start + len(self.mark) :])
            calls = tuple(ToolCall(name, _as_json(arguments)) for name, arguments in found)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            calls = ()
        if not calls:
            return text, ()
        above = _flexible(self.above).replace(NAME, _WORD)
        return re.sub(rf"\s*{above}\s*$", "", text[:start]).strip(), calls


def find_format(one: str, two: str | None, other: str | None = None) -> CallFormat | None:
    """The form of a reply with the example's call, of one with two such calls, and of one with the other example's.

    None where they cannot be read back.
    """
    for made in (_json_objects, _name_and_json, _quoting_object, _python, _tags):
        found = made(one, two)
        if found and all(
            text is None or _reads(found, text, calls)
            for text, calls in ((one, [EXAMPLE]), (two, [EXAMPLE] * 2), (other, [OTHER_EXAMPLE]))
        ):
            return found
    return None


def _reads(form: CallFormat, text: str, wanted: Sequence[ToolCall]) -> bool:
    _, calls = form.read(text)
    return [(call.name, json.loads(call.arguments)) for call in calls] == [
        (call.name, json.loads(call.arguments)) for call in wanted
    ]


def _json_objects(one: str, two: str | None) -> CallFormat | None:
    """`{"name": …, "arguments": {…}}`, whatever the two are called, alone, in a list or in other objects."""
    for start, _, value in _json_values(one):
        for inner in _objects(value):
            name = next((key for key, held in inner.items() if held == NAME), None)
            arguments = next((key for key, held in inner.items() if _as_object(held) == _arguments()), None)
            if name and arguments:
                above, mark = _lines(one[:start])
                return CallFormat(mark, above, _Objects(name, arguments, alone=not mark))
    return None


@dataclass(frozen=True)
class _Objects:
    name: str
    arguments: str
    alone: bool
    """Nothing stands before a call, so a reply is one only if it is nothing but calls."""

    def __call__(self, text: str) -> Found:
        if self.alone and not text.lstrip().startswith(("{", "[")):
            return []
        found = []
        for _, _, value in _json_values(text):
            for inner in _objects(value):
                name, arguments = inner.get(self.name), _as_object(inner.get(self.arguments))
                odd = self.alone and inner.keys() - {self.name, self.arguments, "type", "id"}
                if isinstance(name, str) and name and isinstance(arguments, dict) and not odd:
                    found.append((name, arguments))
        return found


def _name_and_json(one: str, two: str | None) -> CallFormat | None:
    """A name, words of the template, and the arguments as JSON."""
    at = next((start for start, _, value in _json_values(one) if value == _arguments()), -1)
    name = one.rfind(NAME, 0, max(0, at))
    if at < 0 or name < 0:
        return None
    before, between = one[:name], one[name + len(NAME) : at]
    if two is not None:
        end = two.find(NAME, two.find(NAME) + len(NAME))
        before = before[len(before) - _same_end(before, two[:end]) :]
    above, line = _lines(one[:name])
    mark = line.partition(CALL_ID)[0].strip()
    if not mark or not between.strip():
        return None
    head = re.compile(rf"{_flexible(_lines(before)[1])}\s*({_WORD})\s*{_flexible(between)}\s*(?=\{{)")

    def find(text: str) -> Found:
        found: Found = []
        for match in head.finditer(mark + text):
            value, _ = _DECODER.raw_decode(mark + text, match.end())
            found.append((match[1], value))
        return found

    return CallFormat(mark, above, find)


_BARE = {"True": "true", "False": "false", "None": "null"}


def _quoting_object(one: str, two: str | None) -> CallFormat | None:
    """A name and an object whose keys are bare, and whose texts stand between two of the same sign."""
    match = re.search(rf"{NAME}\s*\{{\s*{KEYS[0]}\s*:\s*(\S+){VALUES[0]}\1\s*,", one)
    if match is None or match[1] == '"':
        return None
    above, mark = _lines(one[: match.start()])
    parts = re.compile(
        rf"{re.escape(match[1])}(.*?){re.escape(match[1])}|({_WORD[:-1]})(?=\s*:)|(True|False|None)\b", re.DOTALL
    )

    def as_json(part: re.Match[str]) -> str:
        return _BARE[part[3]] if part[3] else json.dumps(part[1] if part[1] is not None else part[2])

    def find(text: str) -> Found:
        text, found, position = mark + text, [], 0
        head = re.compile(rf"{_flexible(mark)}\s*({_WORD})\s*(?=\{{)")
        while call := head.search(text, position):
            written = parts.sub(as_json, text[call.end() :])
            value, _ = _DECODER.raw_decode(written)
            found.append((call[1], value))
            position = call.end()
        return found

    return CallFormat(mark, above, find) if mark else None


def _python(one: str, two: str | None) -> CallFormat | None:
    """`name(key=value)`, alone or in a list."""
    start, end = one.find(NAME), one.rfind(")")
    inside = one[start + len(NAME) :].lstrip()
    if start < 0 or end < 0 or not inside.startswith("(") or not inside[1:].lstrip().startswith(f"{KEYS[0]}="):
        return None
    above, mark = _lines(one[:start].rstrip().removesuffix("["))
    behind = one[end + 1 :].strip().removeprefix("]").strip()

    def find(text: str) -> Found:
        text = (text.partition(behind)[0] if behind else text).strip()
        if not re.match(r"\[?\s*[\w.]+\(", text):
            return []
        return [_python_call(call) for statement in ast.parse(text).body for call in _expressions(statement)]

    return CallFormat(mark, above, find)


def _expressions(statement: ast.stmt) -> list[ast.expr]:
    """The expression that a line is, or those of a list."""
    if not isinstance(statement, ast.Expr):
        raise ValueError("no expression")
    return statement.value.elts if isinstance(statement.value, ast.List | ast.Tuple) else [statement.value]


def _python_call(call: ast.expr) -> tuple[str, dict[str, Any]]:
    if not isinstance(call, ast.Call) or call.args:
        raise ValueError("no call with named arguments")
    return ast.unparse(call.func), {
        str(word.arg): ast.literal_eval(_JSONWords().visit(word.value)) for word in call.keywords
    }


class _JSONWords(ast.NodeTransformer):
    """JSON's words for constants are Python's."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(json.loads(node.id)) if node.id in ("true", "false", "null") else node


def _tags(one: str, two: str | None) -> CallFormat | None:
    """A name, and words of the template around each argument's name and value."""
    words = (NAME, KEYS[0], VALUES[0], KEYS[1], VALUES[1])
    match = re.fullmatch("(.*)" + "(.*?)".join(words) + "(.*)", one, re.DOTALL)
    if match is None:
        return None
    before, head, equals, between, _, behind = match.groups()
    close = between[: _same_begin(between, behind)]
    opening = head[len(head) - _same_end(head, between[len(close) :]) :]
    named = head[: len(head) - len(opening)].strip()
    above, mark = _lines(before)
    if not mark or not close.strip() or not equals.strip():
        return None
    behind_name = _flexible(named) if named else rf"(?={_flexible(opening.strip())})"
    call = re.compile(rf"{_flexible(mark)}\s*({_WORD})\s*{behind_name}")
    argument = re.compile(
        rf"{_flexible(opening.strip())}\s*({_WORD})\s*{_flexible(equals.strip())}(.*?){_flexible(close.strip())}",
        re.DOTALL,
    )

    def find(text: str) -> Found:
        text = mark + text
        heads = list(call.finditer(text))
        ends = [*(head.start() for head in heads[1:]), len(text)]
        return [
            (head[1], {found[1]: _tagged(found[2]) for found in argument.finditer(text, head.end(), end)})
            for head, end in zip(heads, ends, strict=True)
        ]

    return CallFormat(mark, above, find, typed=False)


def _tagged(text: str) -> object:
    """A value between tags: JSON where it is some, or what Python writes for constants and lists, else a text."""
    text = text.strip("\n")
    try:
        return json.loads(_BARE.get(text, text), parse_constant=_refuse)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text) if text.startswith(("[", "{")) else text
    except (ValueError, SyntaxError):
        return text


def _arguments() -> dict[str, Any]:
    return dict(zip(KEYS, VALUES, strict=True))


def _as_object(value: object) -> object:
    """An object, also from its JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value, parse_constant=_refuse)
        except ValueError:
            return value
    return value


def _as_json(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False, allow_nan=False, default=str)


def _json_values(text: str) -> Iterator[tuple[int, int, Any]]:
    """The outermost objects and lists in a text, with where they begin and end."""
    position = 0
    while found := re.compile(r"[{\[]").search(text, position):
        try:
            value, position = _DECODER.raw_decode(text, found.start())
        except ValueError:
            position = found.start() + 1
        else:
            yield found.start(), position, value


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """An object or those of a list, and what an object holds as its function."""
    if isinstance(value, list):
        for each in value:
            yield from _objects(each)
    if isinstance(value, dict):
        yield value
        if isinstance(value.get("function"), dict):
            yield value["function"]


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _lines(text: str) -> tuple[str, str]:
    """The lines of a text before its last one, and this."""
    before, _, last = text.strip().rpartition("\n")
    return before.strip(), last.strip()


def _flexible(literal: str) -> str:
    """A regular expression for the words of a template: blanks may differ, and the example's id stands for any."""
    return r"\s*".join(re.escape(word).replace(CALL_ID, r"\S*?") for word in literal.split())


def _same_begin(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _same_end(one: Sequence[str], other: Sequence[str]) -> int:
    return _same_begin(one[::-1], other[::-1])
