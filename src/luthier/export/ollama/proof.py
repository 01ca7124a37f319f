"""Whether a template of Go's renders the very prompts that the model was trained with, on conversations and the run's rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from luthier.chat import Message
from luthier.errors import UserError
from luthier.export.ollama.go_template import GoTemplate
from luthier.export.source import Source
from luthier.export.texts import conversations

ROWS = 300
SHOWN = 30  # bytes around the first that differs


@dataclass
class Proof:
    """What came of the comparison."""

    same: int = 0
    differences: list[str] = field(default_factory=list)
    trimmed: int = 0
    """Prompts that differ only by blanks around contents, which the chat template takes away and Go's templates cannot."""


def prove(source: Source, go: GoTemplate, *, bos: str) -> Proof:
    """Twenty conversations and the run's own rows through both."""
    found = Proof()
    for name, messages in _asked(source):
        try:
            ours = source.template.render(messages).removeprefix(bos)
        except UserError:
            continue  # the model's own template refuses this conversation
        theirs = go.render(data_of(messages))
        if ours == theirs:
            found.same += 1
        elif ours == go.render(data_of(_stripped(messages))):
            found.trimmed += 1
        else:
            found.differences.append(_parted(name, ours, theirs))
    return found


def _asked(source: Source) -> Iterator[tuple[str, Sequence[Message]]]:
    yield from ((f"the conversation with {name}", it) for name, it in conversations(source.template).items())
    for item in islice(source.items(), ROWS):
        if not item.conversation.is_document:
            yield item.location, item.conversation.prompt


def data_of(messages: Sequence[Message]) -> dict[str, Any]:
    """What Ollama gives a template for these messages: those of one role in a row are one; all system messages once more."""
    joined: list[dict[str, str]] = []
    for message in messages:
        if joined and joined[-1]["Role"] == message.role:
            joined[-1]["Content"] += f"\n\n{message.content}"
        else:
            joined.append({"Role": message.role, "Content": message.content})
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    last = messages[-1].content if messages else ""
    return {"System": system, "Messages": joined, "Prompt": last, "Response": ""}


def _stripped(messages: Sequence[Message]) -> list[Message]:
    return [replace(message, content=message.content.strip()) for message in messages]


def _parted(name: str, ours: str, theirs: str) -> str:
    a, b = ours.encode(), theirs.encode()
    at = next((n for n, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
    before, after = (each[max(0, at - 5) : at + SHOWN].decode("utf-8", "replace") for each in (a, b))
    return f"byte {at} of {name}: expected {before!r}, Ollama's template writes {after!r}"
