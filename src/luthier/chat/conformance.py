"""What a chat template does, in words, and the result of holding our rows and prompts against those of transformers.

The comparison itself is in `luthier.model.conformance`, because this floor knows no tokenizers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.chat.conversation import Conversation, Message, ToolCall
from luthier.chat.template import Template
from luthier.chat.thinking import KNOWN_TAGS, open_tags
from luthier.errors import UserError

TOOL = (
    '{"type": "function", "function": {"name": "weather", "description": "The weather of a city.", "parameters": '
    '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}'
)
S, Q, A, R, B, T, U = (
    "Be brief, zebra.",
    "Where is it?",
    "In the folder.",
    "Which one?",
    "The blue one.",
    "Hm, yes.",
    "Hm, no.",
)
"""A system message, question, answer, question, answer, and the thoughts before the two answers."""

TWO_TURNS = (Message("user", Q), Message("assistant", A), Message("user", R), Message("assistant", B))
THINKING = (
    Message("user", Q),
    Message("assistant", A, reasoning=T),
    Message("user", R),
    Message("assistant", B, reasoning=U),
)
CALLING = (
    Message("user", "Does it rain there?"),
    Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Ostia"}', "call00001"),)),
    Message("tool", "31 degrees", name="weather", tool_call_id="call00001"),
    Message("assistant", "It is dry."),
)
TEST_CONVERSATIONS = {
    "one question": Conversation(TWO_TURNS[:2]),
    "two questions": Conversation(TWO_TURNS),
    "a system message": Conversation((Message("system", S), *TWO_TURNS[:2])),
    "a system message and two questions": Conversation((Message("system", S), *TWO_TURNS)),
    "blanks around contents": Conversation(
        (
            Message("user", f"  {Q}\n"),
            Message("assistant", f"\n{A}  "),
            Message("user", f"\n{R}"),
            Message("assistant", f" {B}"),
        )
    ),
    "an answer with thoughts": Conversation(THINKING[:2]),
    "two answers with thoughts": Conversation(THINKING),
    "tools offered": Conversation(TWO_TURNS[:2], tools=(TOOL,)),
    "a tool called": Conversation(CALLING, tools=(TOOL,)),
}
"""Conversations that every template is tried on; those with control tokens in people's words are made of these."""


@dataclass
class Check:
    """Something that should hold, on how many conversations it was tried, and where it was found not to."""

    name: str
    holds: str
    count: int = 0
    unit: str = "conversations"
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Conformance:
    """What a template does, and whether our rows and prompts are those that others make of it."""

    template: str
    sha256: str
    behaviour: dict[str, str]
    checks: tuple[Check, ...]
    refused: dict[str, str]
    """Conversations that the template itself refuses or does not show, with the reason."""
    judge: str
    """Who decided, with the version."""

    @property
    def clean(self) -> bool:
        """Whether no check found a fault."""
        return not any(check.faults for check in self.checks)

    @property
    def sentence(self) -> str:
        """The result in one line."""
        if self.clean:
            refused = f"; the template does not take {len(self.refused)} others" if self.refused else ""
            return f"rows and prompts of {self.checks[0].count} conversations are those of {self.judge}{refused}"
        first = next(check for check in self.checks if check.faults)
        more = sum(len(check.faults) for check in self.checks) - 1
        return f"not as {self.judge} has it: {first.faults[0]}" + (f" (and {more} more)" if more else "")

    def to_json(self) -> dict[str, Any]:
        """For events, files and `--json`."""
        return {
            "template": self.template,
            "sha256": self.sha256,
            "judge": self.judge,
            "clean": self.clean,
            "sentence": self.sentence,
            "checks": [
                {"name": check.name, "holds": check.holds, "tried": check.count, "faults": check.faults}
                for check in self.checks
            ],
            "habits": self.behaviour,
            "refused": self.refused,
        }


def describe_behaviour(template: Template) -> dict[str, str]:
    """What a template does with what people give it, a phrase for each."""
    return {
        "system message": _system(template),
        "contents": _contents(template),
        "thoughts": _thoughts(template),
        "earlier turns": _earlier(template),
        "tools": _tools(template),
        "begins with": _beginning(template),
        "ends with": _ends(template),
        "date": f"used; fixed to {template.today.isoformat()}" if template.reads_date else "not used",
        "variables": _variables(template),
    }


def _text(
    template: Template, messages: Sequence[Message], *, add_generation_prompt: bool, tools: tuple[str, ...] = ()
) -> str:
    """The rendering; empty where the template refuses the messages."""
    try:
        return template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools)
    except UserError:
        return ""


def _system(template: Template) -> str:
    if template.merges_system_message:
        return "has no place of its own; it opens the first user message"
    with_system = _text(template, (Message("system", S), *TWO_TURNS[:3]), add_generation_prompt=True)
    own = _text(template, TWO_TURNS[:1], add_generation_prompt=True).partition(Q)[0]
    with_ours = _text(template, (Message("system", S), *TWO_TURNS[:1]), add_generation_prompt=True).partition(S)[0]
    position = "stands before the last question" if S in with_system.partition(Q)[2] else "stands first"
    if len(own) > len(with_ours) + 12:
        return f"{position}; without one, the template writes its own"
    return position


def _contents(template: Template) -> str:
    text = _text(template, (Message("user", f" {Q} "), Message("assistant", f" {A} ")), add_generation_prompt=False)
    trimmed = [who for who, words in (("questions", Q), ("answers", A)) if f" {words} " not in text]
    return f"outer blanks of {' and '.join(trimmed)} are cut" if trimmed else "kept as they are"


def _thoughts(template: Template) -> str:
    text = _text(template, THINKING, add_generation_prompt=False)
    if not text and T in _text(template, THINKING[:2], add_generation_prompt=False):
        text = T + U
    shown = {(True, True): "are shown with every answer", (False, True): "are shown with the last answer only"}
    phrases = [shown.get((T in text, U in text), "are never shown")]
    prompt = _text(template, TWO_TURNS[:1], add_generation_prompt=True)
    if open_tags(prompt):
        phrases.append("the prompt opens one")
    elif any(prompt.rstrip().endswith(tags.close) for tags in KNOWN_TAGS):
        phrases.append("the prompt closes an empty one")
    if template.thinks:
        phrases.append("replies may begin with some, which are kept apart from the answer")
    return "; ".join(phrases)


def _earlier(template: Template) -> str:
    try:
        rows = len(template.rows(Conversation(TWO_TURNS)))
    except UserError:
        return "are refused: conversations have one turn"
    if rows == 1:
        return "are not changed by later turns: one row holds a conversation"
    return "are changed by later turns: a row for each answer"


def _tools(template: Template) -> str:
    found = {
        "definitions": "weather" in _text(template, TWO_TURNS[:1], add_generation_prompt=True, tools=(TOOL,)),
        "calls": "Ostia" in _text(template, CALLING[:2], add_generation_prompt=False),
        "results": "31 degrees" in _text(template, CALLING[:3], add_generation_prompt=True),
    }
    shown = [name for name, is_shown in found.items() if is_shown]
    lost = [name for name, is_shown in found.items() if not is_shown]
    if not lost or not shown:
        unread = "" if lost or template.reads_calls else "; calls in replies are not understood"
        return f"definitions, calls and results are {'not ' if lost else ''}shown{unread}"
    return f"{' and '.join(shown)} are shown, {' and '.join(lost)} are not"


def _beginning(template: Template) -> str:
    bos = template.tokenizer.named.get("bos_token", "")
    if not bos:
        return "no token of its own: the tokenizer names none"
    text = _text(template, TWO_TURNS[:1], add_generation_prompt=True)
    return bos if text.startswith(bos) else f"no {bos}, which the tokenizer knows"


def _ends(template: Template) -> str:
    spelled = {number: token for token, number in template.tokenizer.control.items()}
    return ", ".join(sorted(spelled.get(number, str(number)) for number in template.stop_ids))


def _variables(template: Template) -> str:
    phrases = [f"{name}={value}" for name, value in sorted(template.variables.items())]
    others = sorted(template.known_variables - set(template.variables))
    read = f"uses {', '.join(others)}" if others else "no others" if phrases else "none"
    return "; ".join([*phrases, read])
