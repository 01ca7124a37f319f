"""Functions in data: their definitions, the assistant's calls and what came back, in the shapes that tools write.

What cannot be understood raises ValueError with the reason that the ledger shows: a row without its definitions, or with half
a call, would teach something else than its author meant.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from luthier.chat import Conversation, Message, ToolCall
from luthier.data.readers.values import JSONFault, Value, as_json, as_text, decode, decode_only

RESULT_ROLES = {"tool", "function", "ipython", "observation", "tool_response", "tool_result", "function_response"}
"""Roles of what a function gave back."""
CALL_ROLES = {"function_call", "tool_call"}
"""Roles of turns that are a call and nothing else."""
ACCESS = " with access to the following functions"
"""How the system messages of glaive's transcripts begin their list of definitions."""


def definitions(value: Value) -> tuple[str, ...]:
    """The functions that the assistant is offered, each as JSON of the form {"type": "function", "function": {…}}.

    They come as a list or as its JSON text, in that form or as the bare function. Keys that are null are left out: tables
    give every row the keys of all rows.
    """
    if isinstance(value, str):
        value = _decoded(value, "tools that are no JSON") if value.strip() else None
    if value is None:
        return ()
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise ValueError("tools that are no list of functions")
    return tuple(_definition(each) for each in value)


def are_definitions(value: Value) -> bool:
    """Whether the value defines a function; a list of names does not."""
    try:
        return bool(definitions(value))
    except ValueError:
        return False


def without_repeated_definitions(conversation: Conversation) -> Conversation:
    """The conversation without definitions that its system message already has, where its calls are texts too."""
    if not conversation.tools:
        return conversation
    called = any(message.tool_calls for message in conversation.messages)
    system = "\n".join(message.content for message in conversation.messages if message.role == "system")
    if called or not system:
        return conversation
    names = [json.dumps(json.loads(tool)["function"]["name"]) for tool in conversation.tools]
    return replace(conversation, tools=()) if all(name in system for name in names) else conversation


def _definition(value: Value) -> str:
    if isinstance(value, str):
        value = _decoded(value, "tools that are no JSON")
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not as_text(function.get("name")):
        raise ValueError("the definition of a function without a name")
    plain = {name: inner for name, inner in function.items() if name != "type"}
    if "input_schema" in plain:
        plain = {"parameters" if name == "input_schema" else name: inner for name, inner in plain.items()}
    return as_json({"type": "function", "function": _without_nulls(plain)})


def _without_nulls(value: Value) -> Value:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return value


def as_openai(message: Value) -> list[Value]:
    """A message whose content has parts that are calls (`tool_use`) or results, as Anthropic writes them, as OpenAI does."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, list):
        return [message]
    parts = [part for part in content if isinstance(part, dict)]
    made: list[Value] = [
        {"id": part.get("id"), "function": {"name": part.get("name"), "arguments": part.get("input")}}
        for part in parts
        if part.get("type") == "tool_use"
    ]
    results: list[Value] = [
        {"role": "tool", "content": part.get("content"), "tool_call_id": part.get("tool_use_id")}
        for part in parts
        if part.get("type") == "tool_result"
    ]
    if not made and not results:
        return [message]
    rest = [
        part for part in content if not isinstance(part, dict) or part.get("type") not in ("tool_use", "tool_result")
    ]
    own: Value = {**message, "content": rest} | ({"tool_calls": made} if made else {})
    return [*results, *([own] if made or rest else [])]


def calls(message: Mapping[str, Value]) -> tuple[ToolCall, ...]:
    """The calls of an assistant's message: OpenAI's `tool_calls`, or the single `function_call` of before."""
    listed = message.get("tool_calls")
    if isinstance(listed, str):
        listed = _decoded(listed, "calls that are no JSON") if listed.strip() else None
    if listed:
        if not isinstance(listed, list):
            raise ValueError("calls that are no list")
        return tuple(map(_call, listed))
    single = message.get("function_call")
    return (_call(single),) if single else ()


def calls_in(text: Value) -> tuple[ToolCall, ...]:
    """The calls of a turn that is nothing else: an object with name and arguments, or a list of such, also as JSON text."""
    value = _decoded(text, "a call that is no JSON") if isinstance(text, str) else text
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise ValueError("a call without a name")
    return tuple(map(_call, listed))


def _call(value: Value) -> ToolCall:
    if isinstance(value, str):
        value = _decoded(value, "a call that is no JSON")
    function = value.get("function", value) if isinstance(value, dict) else None
    if isinstance(function, str) and isinstance(value, dict):
        function = {**value, "name": function}
    if not isinstance(function, dict) or not as_text(function.get("name")):
        raise ValueError("a call without a name")
    assert isinstance(value, dict)
    found = next((function[name] for name in ("arguments", "parameters", "input") if name in function), None)
    return ToolCall(as_text(function["name"]), _arguments(found), as_text(value.get("id")) or None)


def _arguments(value: Value) -> str:
    """A call's arguments as the JSON object that they are."""
    if value is None or value == "":
        return "{}"
    text = value if isinstance(value, str) else as_json(value)
    if not isinstance(_decoded(text, "a call whose arguments are no JSON object"), dict):
        raise ValueError("a call whose arguments are no JSON object")
    return text


def _decoded(text: str, fault: str) -> Value:
    try:
        return decode_only(text)
    except JSONFault:
        raise ValueError(fault) from None


# Transcripts: glaive's function-calling data, where a conversation is one text.

_TURN = re.compile(r"(?:^|\n\s*)(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):[ \t]*")
_ENDINGS = re.compile(r"\s*<\|endoftext\|>\s*$")
_CALL = re.compile(r"<functioncall>\s*")


def transcript(system: str, chat: str) -> Conversation:
    """A conversation from text of the form `USER: … ASSISTANT: <functioncall> {…} FUNCTION RESPONSE: …`.

    The definitions stand in the system message, as JSON behind its words.
    """
    turns = _turns(f"SYSTEM: {system.removeprefix('SYSTEM:').strip()}\n{chat}" if system.strip() else chat)
    messages: list[Message] = []
    tools: tuple[str, ...] = ()
    for speaker, text in turns:
        if speaker == "SYSTEM":
            words, tools = _offered(text)
            messages += [Message("system", words)] if words else []
        elif speaker == "ASSISTANT":
            messages.append(_answer(_ENDINGS.sub("", text)))
        else:
            messages.append(Message("user" if speaker == "USER" else "tool", text))
    return Conversation(tuple(messages), tools=tools)


def _turns(text: str) -> list[tuple[str, str]]:
    """Who speaks and what."""
    parts = _TURN.split(text)
    if parts[0].strip() or len(parts) < 3:
        raise ValueError("a transcript that does not begin with SYSTEM: or USER:")
    return [(speaker, words.strip()) for speaker, words in zip(parts[1::2], parts[2::2], strict=True)]


def _offered(system: str) -> tuple[str, tuple[str, ...]]:
    """The words of a system message, and the definitions behind them."""
    start = system.find("{")
    if ACCESS not in system or start < 0:
        return system, ()
    found: list[Value] = []
    while start < len(system):
        try:
            value, start = decode(system, start)
        except JSONFault:
            raise ValueError("tools that are no JSON") from None
        found.append(value)
    return f"{system.partition(ACCESS)[0]}.", definitions(found)


def _answer(text: str) -> Message:
    """An answer, or a call: JSON whose arguments stand in single quotes, as JSON again."""
    mark = _CALL.search(text)
    if mark is None:
        return Message("assistant", text)
    quoted = re.fullmatch(r"(\{.*?\"arguments\":\s*)'(.*)'(\s*\})", text[mark.end() :], re.DOTALL)
    called = text[mark.end() :]
    if quoted:
        inner = _decoded(quoted[2].replace("\\'", "'"), "a call whose arguments are no JSON object")
        called = f"{quoted[1]}{as_json(inner)}{quoted[3]}"
    return Message("assistant", text[: mark.start()].strip(), tool_calls=calls_in(called))
