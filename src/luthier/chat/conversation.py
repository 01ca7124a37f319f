"""What people and models say to each other: the one shape that every data format becomes."""

import json
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool", "text"]


@dataclass(frozen=True)
class ToolCall:
    """A function that the assistant asks for. `arguments` is a JSON object, as the data had it."""

    name: str
    arguments: str
    id: str | None = None

    @property
    def text(self) -> str:
        """The call as it stands in answers, references and reports, whatever the form of a template is."""
        name = json.dumps(self.name, ensure_ascii=False)
        return f'<tool_call>\n{{"name": {name}, "arguments": {self.arguments}}}\n</tool_call>'


@dataclass(frozen=True)
class Message:
    """One turn. The role `text` marks a plain document: no template, and the loss is taken on every token."""

    role: Role
    content: str
    reasoning: str | None = None
    """The assistant's thoughts, apart from its answer."""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    """Of a tool's answer: the function that gave it."""
    tool_call_id: str | None = None
    in_loss: bool = True
    """Of an answer: whether a loss is taken on it; an answer that is not learnt is context for those that follow."""

    @property
    def text(self) -> str:
        """All that is said: the content, and calls behind it."""
        if not self.tool_calls:
            return self.content
        return "\n".join([*([self.content] if self.content else ()), *(call.text for call in self.tool_calls)])


@dataclass(frozen=True)
class Conversation:
    """Messages in order. One for training or evaluation ends with the assistant's answer; a document is one `text` message."""

    messages: tuple[Message, ...]
    rejected: str | None = None
    """Another answer to the same prompt, which people liked less than the one that the messages end with."""
    tools: tuple[str, ...] = ()
    """Definitions of the functions that the assistant may call, each a JSON object as the data had it."""
    references: tuple[str, ...] = ()
    """Other right answers to the last question: never trained on, but an answer is scored against the nearest of all."""
    label: bool | None = None
    """Whether people liked the answer, where the data says so of single answers (unpaired preference)."""

    @classmethod
    def pair(
        cls, question: str, answer: str, *, system: str | None = None, rejected: str | None = None
    ) -> "Conversation":
        """A question and its answer, with an optional system message before them."""
        head = (Message("system", system),) if system else ()
        return cls((*head, Message("user", question), Message("assistant", answer)), rejected)

    @classmethod
    def document(cls, text: str) -> "Conversation":
        """Unlabelled text to continue."""
        return cls((Message("text", text),))

    @property
    def is_document(self) -> bool:
        return self.messages[0].role == "text"

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the last answer: what an arm gets to see."""
        return self.messages[:-1]

    @property
    def question(self) -> str:
        """What the last answer answers: the last user message, and calls and results behind it; of a document, nothing."""
        messages = self.messages
        start = len(messages) - 1
        while start >= 0 and messages[start].role != "user":
            start -= 1
        if start < 0:
            return ""
        end = len(messages) - (messages[-1].role == "assistant")
        return "\n".join([message.text for message in messages[start:end]])

    @property
    def answer(self) -> str:
        """What the last message says, calls included: the reference answer, or the document's text."""
        return self.messages[-1].text

    @property
    def uses_tools(self) -> bool:
        """Whether functions are offered, called or answer."""
        return bool(self.tools) or any(message.tool_calls or message.role == "tool" for message in self.messages)
