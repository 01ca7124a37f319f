"""A chat template rendered as transformers does it: Jinja in a sandbox, with a date and variables that stay as they are."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from luthier.chat import stand_ins

EXTRA_CHARACTERS = 1_000_000  # characters that a template may write beyond four times what it was given
ALWAYS_SET = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
"""What every rendering sets; no variable may have such a name."""

Dict = dict[str, Any]


class TemplateRefusal(Exception):
    """A template that cannot or will not render some messages, in its own words."""


class Renderer:
    """A template's source with all that stays the same from one rendering to the next.

    `named` are the special tokens as templates call them (`bos_token`); `variables` what a user set (`enable_thinking`).
    """

    def __init__(self, source: str, named: Mapping[str, str], variables: Mapping[str, object], today: date) -> None:
        self.source, self.variables, self.today = source, variables, today
        jinja = environment(today)
        try:
            tree = jinja.parse(source)
            self._compiled: Any = jinja.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateRefusal(f"line {error.lineno}: {error.message}") from None
        self._always: Dict = {**jinja.globals, "documents": None, **named, **variables}
        self.known_variables = _settable(tree) - set(jinja.globals) - ALWAYS_SET - set(named)
        """Variables that the template looks at, and that somebody may set."""
        self.can_be_followed = stand_ins.can_be_followed(tree)
        self.reads_date = "strftime_now" in _names(tree) - {macro.name for macro in tree.find_all(nodes.Macro)}

    def render(
        self, messages: Sequence[Dict], tools: Sequence[Dict] | None = None, *, add_generation_prompt: bool
    ) -> str:
        """The conversation as text; `add_generation_prompt` ends it with the beginning of an answer."""
        values = {"messages": messages, "tools": tools or None, "add_generation_prompt": add_generation_prompt}
        context = self._compiled.new_context({**self._always, **values}, shared=True)
        limit = EXTRA_CHARACTERS + 4 * sum(len(str(message.get("content") or "")) for message in messages)
        if tools:
            limit += 4 * len(str(tools))
        try:
            return "".join(_limited(self._compiled.root_render_func(context), limit))
        except (TemplateRefusal, MemoryError):
            raise
        except Exception as error:  # the template is a stranger's program: whatever it raises is its own word
            raise TemplateRefusal(str(error) or type(error).__name__) from None

    @property
    def portable(self) -> str:
        """Jinja that renders anywhere what this one renders here, unless the variables are set there."""
        set_here = [
            f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}"
            for name, value in sorted(self.variables.items())
        ]
        if self.reads_date:
            formats = dict.fromkeys(_DATES.findall(self.source))
            known = "".join(
                f"{{%- {'elif' if number else 'if'} format == {_literal(form)} %}}"
                f"{{{{- {_literal(_formatted(self.today, form))} }}}}"
                for number, (_, form) in enumerate(formats)
            )
            if known:
                set_here.append(f"{{%- macro strftime_now(format) %}}{known}{{%- endif %}}{{%- endmacro %}}")
        return "".join(f"{line}\n" for line in set_here) + self.source


_DATES = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")


def _formatted(day: date, form: str) -> str:
    return datetime.combine(day, time()).strftime(form)


def _literal(value: object) -> str:
    """A value as Jinja writes it, which for these is as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def _limited(chunks: Iterator[str], limit: int) -> Iterator[str]:
    for chunk in chunks:
        limit -= len(chunk)
        if limit < 0:
            raise TemplateRefusal(f"it writes more than {EXTRA_CHARACTERS:,} characters beyond the messages' own")
        yield chunk


def _names(tree: nodes.Template) -> set[str]:
    return {name.name for name in tree.find_all(nodes.Name)}


def _settable(tree: nodes.Template) -> frozenset[str]:
    """Names that the template reads without giving them a value, or after asking whether they have one."""
    assigned = {name.name for name in tree.find_all(nodes.Name) if name.ctx in ("store", "param")}
    asking = (
        *(test for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")),
        *(use for use in tree.find_all(nodes.Filter) if use.name in ("default", "d")),
    )
    asked = {one.node.name for one in asking if isinstance(one.node, nodes.Name)}
    return frozenset(meta.find_undeclared_variables(tree)) - (assigned - asked)


class _Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`, with which some templates mark answers: what is inside, as it is."""

    tags = {"generation"}  # noqa: RUF012 — Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Callable[[], str]) -> str:
        return caller()


class _Namespace(Namespace):
    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace keeps no name that begins with an underscore ({name})")
        super().__setitem__(name, value)


def environment(today: date) -> Environment:
    """Jinja as transformers sets it up for chat templates, with a date that stays."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    jinja.filters["tojson"] = tojson
    added: Dict = {
        "raise_exception": refuse,
        "strftime_now": lambda form: _formatted(today, form),
        "namespace": _Namespace,
    }
    jinja.globals.update(added)
    return jinja
