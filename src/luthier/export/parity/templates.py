"""The prompt that llama.cpp makes of a conversation against ours, byte for byte; and what ids it makes of that prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from luthier.chat import Message, Template
from luthier.errors import UserError
from luthier.export.running import Running
from luthier.export.texts import Difference, TextCase, conversations, spells_control
from luthier.model.tokenizer import HubTokenizer

SHOWN = 30  # bytes around the first that differs


@dataclass
class Rendered:
    """What came of the conversations."""

    same: int = 0
    differences: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Conversations that the model's own template does not take."""
    merged: list[str] = field(default_factory=list)
    """Those with a system message, of a template that has no place for one: each engine merges it in its own way."""
    ids: list[Difference] = field(default_factory=list)


def compare(template: Template, llama: Running, *, system_trained: bool) -> Rendered:
    """Twenty conversations, rendered by both. `system_trained`: whether the run's rows have system messages."""
    found, tokenizer = Rendered(), template.tokenizer
    assert isinstance(tokenizer, HubTokenizer)
    prompts: list[TextCase] = []
    for name, messages in conversations(template).items():
        try:
            ours = template.render(messages)
        except UserError as refusal:
            found.refused.append(f"{name}: {refusal.message}")
            continue
        if template.merges_system_message and messages[0].role == "system" and not system_trained:
            found.merged.append(name)
            continue
        theirs = _theirs(messages, llama)
        bos = tokenizer.bos if ours.startswith(tokenizer.bos) and not theirs.startswith(tokenizer.bos) else ""
        if ours == bos + theirs:
            found.same += 1
        else:
            found.differences.append(f"template: {_parted(name, ours, bos + theirs)}")
        if not any(spells_control(message.content, tokenizer) for message in messages):
            prompts.append(TextCase(theirs, template.prompt(messages), f"conversation with {name}", special=True))
    ids = llama.tokenize([case.text for case in prompts], special=True, add=True)
    found.ids = [
        Difference(n, case, own) for n, (case, own) in enumerate(zip(prompts, ids, strict=True)) if own != case.ids
    ]
    return found


def _theirs(messages: Sequence[Message], llama: Running) -> str:
    try:
        return llama.render([{"role": message.role, "content": message.content} for message in messages])
    except UserError as refusal:
        return f"[{refusal.message}]"


def _parted(name: str, ours: str, theirs: str) -> str:
    a, b = ours.encode(), theirs.encode()
    at = next((n for n, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
    shown = (each[max(0, at - 5) : at + SHOWN].decode("utf-8", "replace") for each in (a, b))
    before, after = shown
    return f"byte {at} of the conversation with {name}: expected {before!r}, the export writes {after!r}"


def has_system(messages: Sequence[Sequence[Message]]) -> bool:
    """Whether any of these conversations has a system message."""
    return any(message.role == "system" for message in chain.from_iterable(messages))
