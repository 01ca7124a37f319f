"""Marks of chat templates that are spelled in texts: control tokens, and the headings of prompts that were made beforehand."""

import re
from collections.abc import Callable, Iterator
from itertools import chain

from luthier.data.checks.findings import Finding, Severity, Spot, plural, share
from luthier.data.checks.rows import Check, Row, Scope

_KNOWN = re.compile(
    r"<\|[A-Za-z][\w ./-]{1,40}\|>|<\uff5c[^\uff5c<>]{2,40}\uff5c>|</?start_of_turn>|</?end_of_turn>|\[/?INST\]|<</?SYS>>"
    r"|<(?:bos|eos|pad|unk|mask)>|\[(?:PAD|CLS|SEP|MASK|UNK|BOS|EOS)\]|<fim_(?:prefix|middle|suffix)>|<\|>|(?:\A|\n)<s>"
    r"|</s>\s*\Z|</s>(?=<s>|\[INST\])|</?think>|</?tool_call>|</?tool_response>"
)
"""Control tokens of well-known models, as they are spelled."""
_SPOKEN = re.compile(r"</?think>|</?tool_call>|</?tool_response>")
"""Those that models write themselves, so that answers may have them."""
_HEADING = re.compile(
    r"^(?:#{2,3} ?(?:Instruction|Input|Response|Question|Answer|Human|User|Assistant)s?:?|"
    r"(?:Human|User|Assistant|ASSISTANT|USER): ?)",
    re.MULTILINE,
)
MANY = 0.1
"""Share of the rows from which on the texts seem to have been put into another template already."""


class ControlTokens:
    """Rows in which control tokens are spelled; the model's own are told from those of others."""

    def __init__(self, scope: Scope) -> None:
        spelled = sorted(scope.control_tokens, key=len, reverse=True)
        self.own = re.compile("|".join(map(re.escape, spelled))) if spelled else None
        self.rows = 0
        self.spots: list[Spot] = []

    def see(self, row: Row) -> None:
        self.rows += 1
        found = list(dict.fromkeys(chain.from_iterable(self._spelled(*each) for each in _parts(row))))
        if found:
            self.spots.append(Spot(row.location, ", ".join(found)))

    def _spelled(self, text: str, is_answer: bool) -> Iterator[str]:
        for pattern in (_KNOWN, self.own):
            for match in pattern.finditer(text) if pattern else ():
                if not (is_answer and _SPOKEN.fullmatch(match[0])):
                    yield match[0].strip()

    def findings(self) -> Iterator[Finding]:
        if not self.spots:
            return
        many = len(self.spots) >= max(2, MANY * self.rows)
        severity: Severity = "warning" if many else "note"
        rows = f"{plural(len(self.spots), 'row')} ({share(len(self.spots), self.rows)})"
        sentence = f"{rows} with control tokens of a chat template spelled in them"
        advice = (
            "The texts seem to have been put into a template already: give the questions and answers without it."
            if many
            else "They are trained on as plain letters and control nothing. If they are leftovers, take them out."
        )
        yield Finding("control-token", severity, sentence, advice, tuple(self.spots))


def _parts(row: Row) -> Iterator[tuple[str, bool]]:
    conversation = row.item.conversation
    for message in conversation.messages:
        yield message.content, message.role == "assistant"
    if conversation.rejected:
        yield conversation.rejected, True


def headings(row: Row) -> str | None:
    """A heading that opens an answer, or two in a question, as prompts that were made beforehand have them."""
    conversation = row.item.conversation
    if conversation.is_document:
        return None
    start = _HEADING.match(conversation.answer.lstrip())
    if start:
        return start[0].strip()
    found = list(dict.fromkeys(match[0].strip() for match in _HEADING.finditer(conversation.question)))
    return ", ".join(found) if len(found) > 1 else None


control_tokens: Callable[[Scope], Check] = ControlTokens
