"""What transformers makes of a conversation, and whether our rows and prompts are the same: the judge of chat templates.

Everything here is worked out from `apply_chat_template` and the tokenizer alone. Four questions are decided for a conversation:

1. `text`    is the row's text the template's own, on the whole conversation (or up to the answer that the row ends with);
2. `loss`    does it stand on exactly what follows the template's prompt, up to and with the token that ends the answer;
3. `prompt`  do row, our prompt and the prompt that servers send agree token for token, and with the tokenizer on the text;
4. `control` do control tokens that users type stay text.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from luthier.chat import Encoded, Template
from luthier.errors import UserError

Row = Mapping[str, Any]
"""A message as transformers takes it: role, content, perhaps reasoning_content and tool_calls."""

CHECKS = ("text", "loss", "prompt", "control")
THOUGHT = re.compile(r"(?:<think>|<\|channel>|\[THINK\])")
THOUGHT_END = re.compile(r"</think>|<channel\|>|\[/THINK\]")


class Refusal(Exception):
    """The template raises; `str()` is what it says."""


@dataclass
class Judgement:
    """What came of one conversation: `faults` by check, or why there was nothing to compare."""

    faults: dict[str, list[str]] = field(default_factory=dict)
    refused: str = ""
    """Why Luthier refuses it; empty where it does not."""
    theirs: str = ""
    """Why transformers refuses it, or what its text loses; empty where it does not."""
    rows: int = 0
    folded: bool = False

    def fault(self, check: str, words: str) -> None:
        self.faults.setdefault(check, []).append(words)


class Oracle:
    """A tokenizer with its template; `ends` are the tokens that end an answer, as the model's makers have it."""

    def __init__(
        self, hub: PreTrainedTokenizerBase, ends: Sequence[str], variables: Mapping[str, object] | None = None
    ):
        self.hub, self.ends, self.variables = hub, tuple(ends), dict(variables or {})
        self.parts = False
        asked: Row = {"role": "user", "content": "Qqq"}
        self.parts = not self._shows(asked) and self._shows({**asked, "content": [{"type": "text", "text": "Qqq"}]})
        """Whether the template takes contents as lists of parts only, as those of models that see do."""

    def _shows(self, message: Row) -> bool:
        try:
            return "Qqq" in self.text([message])
        except Refusal:
            return False

    def text(self, messages: Sequence[Row], *, ask: bool = False, tools: Sequence[Row] = ()) -> str:
        """transformers' own text; raises `Refusal`."""
        given = [dict(message) for message in messages]
        if self.parts:
            given = [
                {**message, "content": [{"type": "text", "text": message["content"]}]}
                if "content" in message
                else message
                for message in given
            ]
        how: dict[str, Any] = {
            "tools": [dict(tool) for tool in tools] or None,
            "add_generation_prompt": ask,
            **self.variables,
        }
        try:
            if any(message.get("content", "") is None for message in given):  # apply_chat_template would drop the key
                named = self.hub.special_tokens_map
                texts, _ = render_jinja_template([given], chat_template=self.hub.chat_template, **{**named, **how})
                return str(texts[0])
            return str(self.hub.apply_chat_template(given, tokenize=False, **how))
        except Exception as error:
            raise Refusal(str(error) or type(error).__name__) from None

    def ids(self, text: str) -> list[int]:
        return list(self.hub(text, add_special_tokens=False).input_ids)

    def spelling(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens included."""
        return str(self.hub.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def called(self, messages: Sequence[Row], tools: Sequence[Row]) -> Sequence[Row]:
        """The messages with their calls in a form that the template shows, if there is one; makers do not agree on it."""
        if not any(message.get("tool_calls") for message in messages):
            return messages
        for text in (False, True):
            for silent in ("", "no key", None):
                given = [_calling(message, text=text, silent=silent) for message in messages]
                try:
                    if not self.lost(given, tools):
                        return given
                except Refusal:
                    continue
        return messages

    def true(self, reason: str, messages: Sequence[Row], tools: Sequence[Row]) -> bool:
        """Whether Luthier's reason for a refusal holds: the template's own words, or what is indeed not shown."""
        if "definitions of tools" in reason:
            return self.hides_tools(messages, tools)
        for count in range(1, len(messages) + 1):
            said = messages[:count]
            forms = [(text, silent) for text in (False, True) for silent in ("", "no key", None)]
            for form in ([_calling(one, text=text, silent=silent) for one in said] for text, silent in forms):
                for ask in (True, False):
                    try:
                        self.text(form, ask=ask, tools=tools)
                    except Refusal as refusal:
                        if str(refusal).rstrip(".") in reason:
                            return True
            try:
                if f"does not show message {count} of" in reason and self.lost(messages[:count], tools):
                    return True
            except Refusal:
                continue
        return False

    def hides_tools(self, messages: Sequence[Row], tools: Sequence[Row]) -> bool:
        """Whether the text of a question does not show the tools that were offered with it."""
        asked = self.text(messages[:1], ask=True, tools=tools)
        return any(tool["function"]["description"] not in asked for tool in tools)

    def lost(self, messages: Sequence[Row], tools: Sequence[Row] = ()) -> str:
        """Which content transformers' text does not show, in words; empty where it shows all."""
        text = self.text(messages, tools=tools)
        if any(tool["function"]["description"] not in text for tool in tools):
            return "definitions of tools are not shown"
        for number, message in enumerate(messages):
            given = [call["function"]["arguments"] for call in message.get("tool_calls", ())]
            objects = [json.loads(one) if isinstance(one, str) else one for one in given]
            called = [str(value) for one in objects for value in one.values()]
            if not all(words in text for words in (str(message.get("content") or "").strip(), *called)):
                return f"message {number + 1} ({message['role']}) is not shown"
        return ""


def _calling(message: Row, *, text: bool, silent: str | None) -> Row:
    """A message whose calls have their arguments as JSON text, and where it says nothing, no key for it, or None."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        if text
        else call
        for call in message["tool_calls"]
    ]
    given = {key: value for key, value in message.items() if not (key == "content" and not value)}
    if "content" not in given and silent != "no key":
        given["content"] = silent
    return {**given, "tool_calls": calls}


@dataclass(frozen=True)
class Answer:
    """One answer in transformers' text: what asks for it, and what is to be learnt behind that."""

    prompt: str
    learnt: str
    whole: str
    """The text that it stands in, up to its end token."""
    closes: bool = False
    """Whether the prompt opens a thought that the finished text does not have, which must be closed before the answer."""
    closed: bool = False
    """Whether the prompt closes one that the finished text has otherwise: blanks before the answer are free."""


def answer_at(oracle: Oracle, messages: Sequence[Row], place: int, whole: str, tools: Sequence[Row]) -> Answer:
    """The answer `messages[place]` in `whole`, transformers' text of these messages."""
    prompt = oracle.text(messages[:place], ask=True, tools=tools)
    content = str(messages[place].get("content") or "").strip()
    shared = len(prompt) if whole.startswith(prompt) else _shared(prompt, whole)
    rest, opened = whole[shared:], prompt[shared:]
    closed = bool(THOUGHT_END.search(opened))
    closes = bool(opened.strip()) and not closed
    if closed:  # nothing but the answer can follow
        rest = rest[rest.index(content) :]
    assert not closes or THOUGHT.match(opened.strip()), (
        f"the prompt goes on with {opened!r}, the row with {rest[:40]!r}"
    )
    at = rest.find(content)
    assert at >= 0, f"{content!r} is not in {rest[:80]!r}"
    behind = rest[at + len(content) :]
    found = re.search("|".join(map(re.escape, oracle.ends)), behind)
    if found is not None:
        learnt = rest[: at + len(content) + found.end()]
    else:
        assert place + 1 == len(messages), "an earlier answer without an end token"
        learnt = rest.rstrip("\n") + str(oracle.hub.eos_token)
    return Answer(prompt, learnt, prompt + learnt, closes, closed)


def is_stable(oracle: Oracle, messages: Sequence[Row], tools: Sequence[Row], *, ends: bool = False) -> bool:
    """Whether the finished conversation holds each answer as the template writes it at that turn, behind its prompt's tokens.

    With `ends`, its end token too.
    """
    full = oracle.text(messages, tools=tools)
    if len(answers_in(messages)) == 1:
        return True
    for place in answers_in(messages):
        then = answer_at(oracle, messages[: place + 1], place, oracle.text(messages[: place + 1], tools=tools), tools)
        if then.closes or not full.startswith(then.whole if ends else without_end(oracle, then.whole)):
            return False
        asked = oracle.ids(then.prompt)
        if oracle.ids(full)[: len(asked)] != asked:  # a token lies across the answer's beginning
            return False
    return True


def without_end(oracle: Oracle, text: str) -> str:
    end = next((end for end in (*oracle.ends, str(oracle.hub.eos_token)) if text.endswith(end)), "")
    return text.removesuffix(end).rstrip()


def _shared(prompt: str, whole: str) -> int:
    """How many characters both begin with, where no token is cut in two."""
    same = len(os.path.commonprefix([prompt, whole]))  # noqa: RUF071 - letters, not folders
    cut = next((match for match in THOUGHT.finditer(prompt) if match.start() < same < match.end()), None)
    return cut.start() if cut else same


def judge(
    template: Template,
    oracle: Oracle,
    conversation: Any,
    messages: Sequence[Row],
    *,
    tools: Sequence[Row] = (),
    spelled: Sequence[str] = (),
    exact: bool = True,
) -> Judgement:
    """Hold Luthier's rows of a conversation against transformers' text of the same messages.

    `conversation` is Luthier's, `messages` are transformers'. `spelled`: control tokens that people spell in it. `exact`: the
    tokenizer gives back every character, so texts can be compared.
    """
    found, said = Judgement(), messages
    try:
        rows = template.rows(conversation)
    except UserError as user_error:
        found.refused = user_error.message
    messages = oracle.called(messages, tools)
    try:
        found.theirs = oracle.lost(messages, tools)
        if not found.theirs:
            for place in answers_in(messages):
                oracle.text(messages[:place], ask=True, tools=tools)
    except Refusal as refusal:
        found.theirs = str(refusal)
    if found.theirs and not found.refused and messages[0]["role"] == "system":
        found.folded = True
        messages = folded(messages)
        try:
            found.theirs = oracle.lost(messages, tools)
        except Refusal as refusal:
            found.theirs = str(refusal)
    if found.refused:
        if not found.theirs:
            found.fault("text", f"refused by Luthier only: {found.refused}")
        elif not oracle.true(found.refused, said, tools):
            found.fault("text", f"refused for another reason than the template's, {found.theirs!r}: {found.refused}")
        return found
    if found.theirs:
        found.fault("text", f"Luthier makes a row where transformers does not: {found.theirs}")
        return found
    found.rows = len(rows)
    if not spelled:
        for place, here in zip(answers_in(said), answers_in(messages), strict=True):
            ours = template.prompt(conversation.messages[:place], tools=conversation.tools)
            theirs = oracle.ids(oracle.text(messages[:here], ask=True, tools=tools))
            if ours != theirs:
                found.fault("prompt", f"asked with {_differ(ours, theirs)}")
    _compare(found, oracle, rows, messages, tools, spelled=spelled, exact=exact)
    return found


def answers_in(messages: Sequence[Row]) -> list[int]:
    """Where the assistant speaks."""
    return [place for place, message in enumerate(messages) if message["role"] == "assistant"]


def folded(messages: Sequence[Row]) -> list[Row]:
    """The conversation with its system message at the beginning of the first user message."""
    system, *rest = messages
    first = next(number for number, message in enumerate(rest) if message["role"] == "user")
    opened = {**rest[first], "content": f"{system['content']}\n\n{rest[first]['content']}"}
    return [*rest[:first], opened, *rest[first + 1 :]]


def runs(row: Encoded) -> list[tuple[int, int]]:
    """The stretches that are learnt."""
    edges = [place for place in range(len(row.ids) + 1) if _learns(row, place) != _learns(row, place - 1)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _learns(row: Encoded, place: int) -> bool:
    return 0 <= place < len(row.loss_mask) and row.loss_mask[place]


def _compare(
    found: Judgement,
    oracle: Oracle,
    rows: Sequence[Encoded],
    messages: Sequence[Row],
    tools: Sequence[Row],
    *,
    spelled: Sequence[str],
    exact: bool,
) -> None:
    places = answers_in(messages)
    stable = is_stable(oracle, messages, tools)
    ends = stable and not is_stable(oracle, messages, tools, ends=True)  # only the end tokens differ: either is right
    if len(rows) != (1 if stable else len(places)) and not (ends and len(rows) == len(places)):
        found.fault(
            "prompt",
            f"{len(rows)} rows, where the prompts of {len(places)} answers ask for {1 if stable else 'one each'}",
        )
    learnt = [(row, start, end) for row in rows for start, end in runs(row)]
    if len(learnt) != len(places):
        found.fault("loss", f"{len(learnt)} stretches are learnt, {len(places)} answers are there")
        return
    for place, (row, start, end) in zip(places, learnt, strict=True):
        last = place + 1 if len(rows) > 1 else len(messages)
        whole = oracle.text(messages[:last], tools=tools)
        answer = answer_at(oracle, messages[:last], place, whole, tools)
        _compare_answer(found, oracle, row.ids, (start, end), answer, spelled=bool(spelled), exact=exact)
    for token in spelled:
        control = oracle.hub.convert_tokens_to_ids(token)
        plain = [{**message, "content": str(message.get("content") or "").replace(token, "x")} for message in messages]
        for row, last in zip(rows, places if len(rows) > 1 else [places[-1]], strict=True):
            text = oracle.text(plain[: last + 1], tools=tools)
            answer = answer_at(oracle, plain, last, text, tools)
            closing = sum(bool(THOUGHT_END.fullmatch(token)) for _ in range(answer.closes))
            wanted = oracle.ids(answer.whole).count(control) + closing
            if row.ids.count(control) != wanted:
                found.fault("control", f"{token}: {row.ids.count(control)} times in the row, {wanted} by the template")


def _compare_answer(
    found: Judgement,
    oracle: Oracle,
    ids: list[int],
    stretch: tuple[int, int],
    answer: Answer,
    *,
    spelled: bool,
    exact: bool,
) -> None:
    start, end = stretch
    before = oracle.spelling(ids[:start])
    text = oracle.spelling(ids[start:end])
    if exact:
        if before != answer.prompt:
            found.fault("text", f"before the answer {_differ(before, answer.prompt)}")
        same = text.lstrip() == answer.learnt.lstrip() if answer.closed else text == answer.learnt
        if not (same or (answer.closes and _closed(text, answer.learnt))):
            found.fault(
                "loss" if answer.learnt in text or text in answer.learnt else "text", _differ(text, answer.learnt)
            )
    if spelled:
        return
    prompt = oracle.ids(answer.prompt)
    if ids[:start] != prompt:
        found.fault("prompt", f"{len(prompt)} ids ask for it, the row has others before its answer")
    whole = oracle.ids(answer.whole)
    if not (answer.closes or answer.closed) and whole[:start] == prompt and ids[:end] != whole:
        found.fault("prompt", f"ids {_differ(ids[start:end], whole[start:])}")


def _closed(text: str, learnt: str) -> bool:
    """Whether the row closes the thought that its prompt opened, and goes on as the finished text does."""
    closing = text.removesuffix(learnt)
    return text.endswith(learnt) and bool(re.search(rf"({THOUGHT_END.pattern})\s*$", closing))


def _differ(ours: Any, theirs: Any) -> str:
    same = len(os.path.commonprefix([ours, theirs]))  # noqa: RUF071 - letters, not folders
    return f"ours {ours[max(0, same - 8) : same + 24]!r}, theirs {theirs[max(0, same - 8) : same + 24]!r}"
