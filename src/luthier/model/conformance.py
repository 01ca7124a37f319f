"""Whether our rows and prompts are those that others make of a model's chat template: transformers decides.

Four questions for each conversation that is tried: is the row's text the template's own; does learning begin where the
template's prompt ends, and end with the token that ends the answer; are our ids those that a server sends; do control tokens
that people spell stay text. What is rendered is the template as it will be saved beside the model.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from transformers import PreTrainedTokenizerBase

from luthier.chat import Conversation, Encoded, Message, Template
from luthier.chat.conformance import TEST_CONVERSATIONS, Check, Conformance, describe_behaviour
from luthier.chat.thinking import ANY_TAG
from luthier.errors import UserError
from luthier.model.tokenizer import HubTokenizer

Dict = dict[str, Any]
LONGEST = 24
"""Characters of a thought's tag, at most."""


def examine(template: Template) -> Conformance:
    """What a model's template does, and whether we make of it what transformers makes of it."""
    assert isinstance(template.tokenizer, HubTokenizer)
    checks = {
        "text": Check("text", "rows are the template's own text"),
        "loss": Check("loss", "loss tokens follow the prompt, up to and with the end token"),
        "prompt": Check("prompt", "prompts are those that servers send, and their rows begin with them"),
        "control": Check("control", "control tokens that users type stay text", unit="control tokens"),
    }
    judge = _Judge(template, template.tokenizer.hub)
    refused: dict[str, str] = {}
    for name, conversation in TEST_CONVERSATIONS.items():
        try:
            rows = template.rows(conversation)
        except UserError as user_error:
            refused[name] = user_error.message
            if judge.shows(conversation):
                checks["text"].count += 1
                checks["text"].faults.append(f"{name}: refused, though {judge.name} shows it: {user_error.message}")
            continue
        if not judge.shows(conversation):
            checks["text"].count += 1
            checks["text"].faults.append(f"{name}: trained on, though the template does not show all of it")
            continue
        try:
            judge.check_conversation(name, conversation, rows, checks)
        except Exception as error:  # the template is a stranger's program: whatever it raises, it refuses
            checks["text"].faults.append(f"{name}: {judge.name} refuses it: {error}")
    judge.check_control_tokens(checks["control"])
    return Conformance(
        template.name, template.sha256, describe_behaviour(template), tuple(checks.values()), refused, judge.name
    )


class _Judge:
    """transformers, asked with one tokenizer and the template that we save."""

    def __init__(self, template: Template, tokenizer: PreTrainedTokenizerBase) -> None:
        self.template, self.hub, self.parts = template, tokenizer, False
        self.source = template.portable_source
        self.name = f"transformers {version('transformers')}"
        self.control = sorted(template.tokenizer.control, key=len, reverse=True)
        probe = Conversation((Message("user", "zebra"),))
        self.parts = not self.shows(probe)
        self.parts = self.parts and self.shows(probe)
        """Whether contents are given as lists of parts, which the templates of models that see ask for."""

    def text(self, messages: Sequence[Message], tools: Sequence[str], *, ask: bool) -> str:
        """transformers' own text of the messages; a system message that the template has no place for opens the first one."""
        if self.template.merges_system_message and messages[0].role == "system":
            messages = _with_merged_system(messages)
        return str(
            self.hub.apply_chat_template(
                [_plain(message, parts=self.parts) for message in messages],
                tools=[json.loads(tool) for tool in tools] or None,
                chat_template=self.source,
                add_generation_prompt=ask,
                tokenize=False,
            )
        )

    def shows(self, conversation: Conversation) -> bool:
        """Whether transformers renders a conversation, with all that was said in it."""
        said = [words for message in conversation.messages for words in _said(message)]
        try:
            text = self.text(conversation.messages, conversation.tools, ask=False)
        except Exception:  # the template is a stranger's program: whatever it raises, it refuses
            return False
        said += [str(json.loads(tool)["function"]["description"]) for tool in conversation.tools]
        return all(words in text for words in said)

    def ids(self, text: str) -> list[int]:
        return list(self.hub(text, add_special_tokens=False).input_ids)

    def spelling(self, ids: Sequence[int]) -> str:
        return str(self.hub.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def check_conversation(
        self, name: str, said: Conversation, rows: Sequence[Encoded], checks: dict[str, Check]
    ) -> None:
        """Hold the rows of a conversation against transformers' text of it."""
        for check in ("text", "loss", "prompt"):
            checks[check].count += 1
        answer_indices = [index for index, message in enumerate(said.messages) if message.role == "assistant"]
        loss_spans = [(row, begin, end) for row in rows for begin, end in _stretches(row)]
        if len(loss_spans) != len(answer_indices):
            checks["loss"].faults.append(
                f"{name}: {len(answer_indices)} answers, and {len(loss_spans)} positions of loss tokens"
            )
            return
        for index, (row, begin, end) in zip(answer_indices, loss_spans, strict=True):
            asked = self.ids(self.text(said.messages[:index], said.tools, ask=True))
            ours = self.template.prompt(said.messages[:index], tools=said.tools)
            if not asked == ours == row.ids[:begin]:
                checks["prompt"].faults.append(f"{name}: {_difference(self, ours, asked)}")
            content, text = said.messages[index].content.strip(), self.spelling(row.ids[begin:end])
            if content not in text or row.ids[end - 1] not in self.template.stop_ids:
                checks["loss"].faults.append(f"{name}: the loss is on {text!r}")
        for row, last in zip(rows, answer_indices if len(rows) > 1 else answer_indices[-1:], strict=True):
            whole = self.text(said.messages[: last + 1], said.tools, ask=False)
            if not self._same(row, whole, self.text(said.messages[:last], said.tools, ask=True)):
                checks["text"].faults.append(f"{name}: {_difference(self, row.ids, self.ids(whole))}")

    def _same(self, row: Encoded, whole: str, prompt: str) -> bool:
        """Whether a row is transformers' text, but for what stands behind its end.

        And but for a thought that the prompt opens or closes and the finished text does not have: there the row closes it and
        goes on as the finished text does.
        """
        ours, theirs = self.spelling(row.ids), self.spelling(self.ids(whole)).rstrip()
        if theirs.startswith(ours) or ours.startswith(theirs):
            return True
        asked = self.spelling(self.ids(prompt))
        shared = len(os.path.commonprefix([asked, theirs]))  # noqa: RUF071 - letters, not folders
        if not ours.startswith(asked) or (
            asked[shared:].strip() and not ANY_TAG.search(asked, max(0, shared - LONGEST))
        ):
            return False
        rest = ours.removeprefix(asked)
        answers = [rest, *(rest[tag.end() :] for tag in ANY_TAG.finditer(rest))]
        ends = [answer for text in answers for answer in (text, text.removesuffix(str(self.hub.eos_token)))]
        return any(answer.strip() and theirs.endswith(answer.strip()) for answer in ends)

    def check_control_tokens(self, check: Check) -> None:
        """Whether a question that spells each control token has as many of them as one that spells none."""
        plain = (Message("user", "x"),)
        try:
            own = self.template.prompt(plain)
        except UserError:
            return
        for token in self.control:
            check.count += 1
            spelled = (replace(plain[0], content=f"x {token} x"),)
            number = self.template.tokenizer.control[token]
            try:
                found = self.template.prompt(spelled).count(number)
            except UserError:
                continue
            if found != own.count(number):
                check.faults.append(f"{token} in a question is a control token")


def _with_merged_system(messages: Sequence[Message]) -> list[Message]:
    system, *rest = messages
    first = next(index for index, message in enumerate(rest) if message.role == "user")
    rest[first] = replace(rest[first], content=f"{system.content}\n\n{rest[first].content}")
    return rest


def _plain(message: Message, *, parts: bool) -> Dict:
    """A message as transformers takes it."""
    content: object = [{"type": "text", "text": message.content}] if parts else message.content
    fields: Dict = {"role": message.role, "content": content, "reasoning_content": message.reasoning}
    fields |= {"name": message.name, "tool_call_id": message.tool_call_id}
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return {name: value for name, value in fields.items() if value is not None}


def _said(message: Message) -> Iterator[str]:
    """What must stand in a text that shows a message."""
    yield message.content.strip()
    for call in message.tool_calls:
        yield from map(str, json.loads(call.arguments).values())


def _stretches(row: Encoded) -> list[tuple[int, int]]:
    """Where in a row learning begins and ends."""
    bounds = [False, *row.loss_mask, False]
    edges = [index for index in range(len(row.loss_mask) + 1) if bounds[index] != bounds[index + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _difference(judge: _Judge, ours: Sequence[int], theirs: Sequence[int]) -> str:
    """Where two lists of ids part, in words."""
    same = next(
        (at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other),
        min(len(ours), len(theirs)),
    )
    before = max(0, same - 4)
    return f"ours {judge.spelling(ours[before : same + 8])!r}, theirs {judge.spelling(theirs[before : same + 8])!r}"
