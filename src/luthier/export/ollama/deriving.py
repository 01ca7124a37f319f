"""A chat template as one of Go's, from what it does with messages whose contents are placeholders.

It is a guess at the general form (what opens and ends each turn, what stands before the first), and `proof` decides whether
it is right. Nothing in it depends on a family's name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.chat import Message, Template
from luthier.chat.conversation import Role
from luthier.chat.loss_spans import count_equal
from luthier.chat.placeholders import PLACEHOLDER, placeholder
from luthier.errors import UserError
from luthier.export.ollama.go_template import literal

WAY_OUT = (
    "Take --to gguf: its file holds the template itself, which llama.cpp renders, and newer versions of Ollama as well"
)


@dataclass(frozen=True)
class Turns:
    """What a template writes around messages."""

    head: str
    """Before all else."""
    without_system: str
    """Next, where the conversation begins without a system message: often one of the template's own."""
    system: tuple[str, str] | None
    """Before and behind a system message."""
    system_opens_question: bool
    """Whether a system message stands inside the first question, which then has no beginning of its own."""
    system_in_last_question: tuple[str, str] | None
    """Before and behind a system message that stands in the last question, wherever it was said."""
    user: tuple[str, str]
    assistant: tuple[str, str]
    ask: str
    """At the end, where an answer is asked for."""

    @classmethod
    def of(cls, template: Template, *, bos: str) -> "Turns":
        """Those of a template, without the token `bos`, which Ollama puts in front by itself where the file says so."""
        begin, question, answer, end = _around(template, ("user", "assistant", "user"))
        begin = begin.removeprefix(bos)
        closing = _around(template, ("user", "assistant"), ask=False)[-1]
        after_question = _whole_tokens(question[: count_equal(question, end)])
        after_answer = _whole_tokens(answer[: count_equal(answer, closing)])
        if not begin.endswith(answer[len(after_answer) :]):
            after_answer = answer[: len(answer) - len(_common_end(begin, answer))]
        before_question = answer[len(after_answer) :]
        first = begin.removesuffix(before_question) if before_question else begin
        system, opens = None, False
        try:
            before_system, between = _around(template, ("system", "user", "assistant", "user"))[:2]
        except UserError:
            before_system = between = ""
        else:
            before_system = before_system.removeprefix(bos)
            opens = not between.endswith(before_question)
            system = before_system, between if opens or not before_question else between.removesuffix(before_question)
        last = None if system else _in_last_question(template, after_answer + before_question)
        head = first if system is None or system[0].startswith(first) else ""
        if system is not None:
            system = system[0].removeprefix(head), system[1]
        return cls(
            head, first.removeprefix(head), system, opens, last, (before_question, after_question),
            (question[len(after_question) :], after_answer), end[len(after_question) :],
        )  # fmt: skip

    def to_go(self) -> str:
        """As a template of Go's on Ollama's data, whose `.Messages` hold system messages as well."""
        first = ""
        if self.without_system:
            begins = '{{ if eq $i 0 }}{{ if ne .Role "system" }}'
            first = f"{begins}{literal(self.without_system)}{{{{ end }}}}{{{{ end }}}}"
        opening, closing = map(literal, self.user)
        if self.system_opens_question and opening:
            behind = 'and (eq $i 1) (eq (index $.Messages 0).Role "system")'
            opening = f"{{{{ if {behind} }}}}{{{{ else }}}}{opening}{{{{ end }}}}"
        if self.system_in_last_question is not None:
            before, behind = map(literal, self.system_in_last_question)
            last = "and $.System (eq (len (slice $.Messages $i)) 1)"
            opening += f"{{{{ if {last} }}}}{before}{{{{ $.System }}}}{behind}{{{{ end }}}}"
        roles = [("user", (opening, closing)), ("assistant", tuple(map(literal, self.assistant)))]
        if self.system is not None:
            roles.insert(0, ("system", tuple(map(literal, self.system))))
        branches = "{{ else ".join(
            f'if eq .Role "{role}" }}}}{around[0]}{{{{ .Content }}}}{around[1]}' for role, around in roles
        )
        loop = f"{{{{ range $i, $message := .Messages }}}}{first}{{{{ {branches}{{{{ end }}}}{{{{ end }}}}"
        return f"{literal(self.head)}{loop}{literal(self.ask)}"


def _around(template: Template, roles: Sequence[Role], *, ask: bool = True) -> list[str]:
    """The text before, between and behind the contents of messages with these roles."""
    messages = [Message(role, placeholder(number)) for number, role in enumerate(roles)]
    text = template.render(messages, add_generation_prompt=ask)
    if PLACEHOLDER.findall(text) != [str(number) for number in range(len(roles))]:
        raise UserError(
            f"the chat template does not show the messages {', '.join(roles)} one after the other, each once, so Ollama's "
            f"templates cannot express it. {WAY_OUT}.",
            where=template.name,
        )
    return PLACEHOLDER.split(text)[::2]  # texts and numbers in turn


def _in_last_question(template: Template, opening: str) -> tuple[str, str] | None:
    """What stands around a system message in the last question, which begins so; None where it stands elsewhere."""
    roles: tuple[Role, ...] = ("system", "user", "assistant", "user")
    parts = PLACEHOLDER.split(template.render([Message(role, placeholder(n)) for n, role in enumerate(roles)]))
    if parts[1::2] != ["1", "2", "0", "3"] or not parts[4].startswith(opening):
        return None
    return parts[4].removeprefix(opening), parts[6]


def _whole_tokens(text: str) -> str:
    """Without a control token that is cut in its middle."""
    return re.sub(r"<[^<>\n]*$", "", text)


def _common_end(one: str, other: str) -> str:
    return one[len(one) - count_equal(one[::-1], other[::-1]) :]
