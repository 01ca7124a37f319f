"""Functions in data: what the shapes of OpenAI, ShareGPT and glaive become, and what is not learnt."""

import json
from pathlib import Path

import pytest

from luthier.chat import Conversation, Encoded, Message, Template, ToolCall
from luthier.data import Record, Value
from luthier.data.encoding import NO_TOOLS, encode_all, pieces, why_none
from luthier.data.formats import Table, reader, recognise
from luthier.data.ledger import Ledger
from luthier.data.readers.values import decode_only
from luthier.data.reading import load
from luthier.data.tool_messages import definitions
from luthier.recipe import Data

from .conftest import Write
from .test_encoding import Letters, item

LAMP: dict[str, Value] = {"name": "lamp", "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}}}
OFFERED = '{"type": "function", "function": ' + json.dumps(LAMP) + "}"
ASKED = Message("user", "Light, please")
CALLED = Message("assistant", "", tool_calls=(ToolCall("lamp", '{"on": true}'),))
DONE = (Message("tool", "ok", name="lamp"), Message("assistant", "It is on."))
PLAIN = "{% for m in messages %}{{ m.content }};{% endfor %}"
SHOWS = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{% for m in messages %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %};"
    "{% endfor %}"
)


def build(values: object) -> Conversation:
    """A row of JSON, by the format that its columns make."""
    row = decode_only(json.dumps(values))
    assert isinstance(row, dict)
    record = Record("x.jsonl:1", row)
    return reader(recognise(Table.of([record]), Data(path=Path("x.jsonl"))))(record)


def openai(role: str, content: str | None, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


def test_openai_s_calls_and_results_become_messages() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "lamp", "arguments": '{"on": true}'}}
    rows = [openai("user", "Light, please"), openai("assistant", None, tool_calls=[call])]
    rows += [openai("tool", "ok", tool_call_id="c1"), openai("assistant", "It is on.")]
    conversation = build({"messages": rows, "tools": [{"type": "function", "function": LAMP}]})
    assert conversation.messages == (
        ASKED,
        Message("assistant", "", tool_calls=(ToolCall("lamp", '{"on": true}', "c1"),)),
        Message("tool", "ok", tool_call_id="c1"),
        DONE[1],
    )
    assert conversation.tools == (OFFERED,)


def test_thoughts_beside_a_call_are_kept() -> None:
    called = openai("assistant", None, reasoning_content="Hm.", tool_calls=[{"function": {"name": "lamp"}}])
    (_, message) = build({"messages": [openai("user", "q"), called]}).messages
    assert message == Message("assistant", "", reasoning="Hm.", tool_calls=(ToolCall("lamp", "{}"),))


def test_anthropic_s_parts_are_calls_and_results() -> None:
    words = {"type": "text", "text": "At once."}
    use = {"type": "tool_use", "id": "c1", "name": "lamp", "input": {"on": True}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "ok"}]}
    thanks = {"type": "text", "text": "Thanks."}
    rows = [openai("user", "Light, please"), {"role": "assistant", "content": [words, use]}]
    rows += [{"role": "user", "content": [result, thanks]}, openai("assistant", "It is on.")]
    assert build({"messages": rows}).messages == (
        ASKED,
        Message("assistant", "At once.", tool_calls=(ToolCall("lamp", '{"on": true}', "c1"),)),
        Message("tool", "ok", tool_call_id="c1"),
        Message("user", "Thanks."),
        DONE[1],
    )


def test_definitions_and_calls_in_texts_stay_texts_and_are_not_given_twice(write: Write) -> None:
    call = '<tool_call>{"name": "lamp", "arguments": {"on": true}}</tool_call>'
    turns = [openai("user", "Light"), openai("assistant", call), openai("tool", "ok"), openai("assistant", "Done")]
    rows = [[openai("system", f"<tools>{OFFERED}</tools>"), *turns], [openai("system", "Be kind."), *turns]]
    write("x.jsonl", "".join(json.dumps({"messages": each, "tools": [LAMP]}) + "\n" for each in rows))
    first, second = load(Data(path=Path("x.jsonl"))).items
    assert first.conversation.tools == () and second.conversation.tools == (OFFERED,)
    assert first.conversation.messages[2].content == call
    roles = Template("{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}", Letters(), "letters")
    assert roles.takes_tools_of(first.conversation) and not roles.takes_tools_of(second.conversation)


def test_openai_s_older_functions_are_the_same() -> None:
    call = {"name": "lamp", "arguments": '{"on": true}'}
    rows = [openai("user", "Light, please"), openai("assistant", None, function_call=call)]
    rows += [openai("function", "ok", name="lamp"), openai("assistant", "It is on.")]
    assert build({"messages": rows, "functions": [LAMP]}) == Conversation((ASKED, CALLED, *DONE), tools=(OFFERED,))


def test_sharegpt_s_call_turns_join_the_words_before_them_and_each_other() -> None:
    turns = [
        ("human", "Light, please"),
        ("gpt", "At once."),
        ("function_call", '{"name": "lamp", "arguments": {"on": true}}'),
    ]
    turns += [
        ("function_call", '{"name": "lamp", "arguments": {"on": 1.50}}'),
        ("observation", "ok"),
        ("gpt", "It is on."),
    ]
    conversation = build(
        {"conversations": [{"from": who, "value": said} for who, said in turns], "tools": json.dumps([LAMP])}
    )
    both = (ToolCall("lamp", '{"on": true}'), ToolCall("lamp", '{"on": 1.50}'))
    assert conversation.messages == (
        ASKED,
        Message("assistant", "At once.", tool_calls=both),
        Message("tool", "ok"),
        DONE[1],
    )
    assert conversation.tools == (OFFERED,)


def test_transcripts_give_definitions_calls_and_results() -> None:
    system = (
        f"SYSTEM: You are a house with access to the following functions. Use them if required -\n{json.dumps(LAMP)}"
    )
    chat = (
        'USER: Light, please\n\n\nASSISTANT: <functioncall> {"name": "lamp", "arguments": \'{"on": true}\'} '
        "<|endoftext|>\n\n\nFUNCTION RESPONSE: ok\n\n\nASSISTANT: It is on. <|endoftext|>\n\n\n"
    )
    conversation = build({"system": system, "chat": chat})
    result = Message("tool", "ok")
    assert conversation.messages == (Message("system", "You are a house."), ASKED, CALLED, result, DONE[1])
    assert conversation.tools == (OFFERED,)
    assert build(
        {"system": "SYSTEM: Be kind.", "chat": "USER: a\n\n\nASSISTANT: b <|endoftext|>"}
    ) == Conversation.pair("a", "b", system="Be kind.")


@pytest.mark.parametrize(
    "given",
    [
        [LAMP],
        json.dumps([LAMP]),
        [{"type": "function", "function": LAMP}],
        [{"type": "function", **LAMP}],
        [{"name": "lamp", "input_schema": LAMP["parameters"]}],
        [{**LAMP, "description": None}],
        LAMP,
    ],
)
def test_definitions_have_one_form_whatever_theirs_was(given: Value) -> None:
    assert definitions(given) == (OFFERED,)
    assert definitions(None) == definitions(" ") == ()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"tool_calls": "x"}, "calls that are no JSON"),
        ({"tool_calls": {"a": 1}}, "calls that are no list"),
        ({"function_call": {"arguments": "{}"}}, "a call without a name"),
        ({"function_call": {"name": "lamp", "arguments": "on"}}, "a call whose arguments are no JSON object"),
        ({"function_call": {"name": "lamp", "arguments": "[1]"}}, "a call whose arguments are no JSON object"),
        ({"role": "function_call", "content": "lamp(on)"}, "a call that is no JSON"),
        ({"role": "function_call", "content": "[]"}, "a call without a name"),
        (
            {"content": "x", "train": "perhaps"},
            "an answer with train perhaps, where true (learnt) and false (not learnt)",
        ),
    ],
)
def test_calls_that_cannot_be_understood_say_why(write: Write, message: dict[str, object], reason: str) -> None:
    good = [openai("user", "q"), openai("assistant", "a")]
    bad = [openai("user", "q"), {"role": "assistant", **message}]
    write("x.jsonl", "".join(json.dumps({"messages": rows}) + "\n" for rows in (good, bad)))
    (found,) = load(Data(path=Path("x.jsonl"))).ledger.dropped
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("tools", "reason"),
    [("lamp", "tools that are no JSON"), ("7", "tools that are no list of functions"), ([{}], "without a name")],
)
def test_definitions_that_cannot_be_understood_say_why(tools: Value, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        definitions(tools)


def test_a_call_is_an_answer_and_an_empty_result_no_empty_message(write: Write) -> None:
    call = {"function": {"name": "lamp", "arguments": {"on": True}}}
    called = openai("assistant", None, tool_calls=[call])
    rows = [[openai("user", "q"), called], [openai("user", "p"), called, openai("tool", ""), openai("assistant", "a")]]
    write("x.jsonl", "".join(json.dumps({"messages": each}) + "\n" for each in rows))
    first, second = load(Data(path=Path("x.jsonl"))).items
    assert first.conversation.answer == '<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call>'
    assert second.conversation.uses_tools and second.conversation.answer == "a"


def test_rows_that_differ_in_a_result_ask_different_things(write: Write) -> None:
    rows = [[openai("user", "q"), openai("tool", result), openai("assistant", "a")] for result in ("on", "off")]
    write("x.jsonl", "".join(json.dumps({"messages": each}) + "\n" for each in rows))
    data = load(Data(path=Path("x.jsonl")))
    assert len({one.group for one in data.items}) == 2 and not data.ledger.notes


def test_rows_with_functions_are_dropped_and_said_where_the_template_shows_none() -> None:
    offered, called = Conversation.pair("q", "a"), Conversation((ASKED, CALLED))
    rows = [item(1, Conversation(offered.messages, tools=(OFFERED,))), item(2, called), item(3, offered)]
    ledger = Ledger()
    encoded = encode_all(rows, Template(PLAIN, Letters(), "letters"), 999, ledger, pairs=frozenset())
    assert ledger.dropped == {NO_TOOLS: ["rows.jsonl:1", "rows.jsonl:2"]} and encoded["rows.jsonl:3"]
    assert "no row can be trained on: they offer or call functions" in why_none(ledger, 999)
    shown = Ledger()
    assert all(encode_all(rows, Template(SHOWS, Letters(), "letters"), 999, shown, pairs=frozenset()).values())
    assert not shown.dropped


# Answers that are not learnt


def weighted(*weights: object, key: str = "weight") -> list[dict[str, object]]:
    turns = []
    for number, weight in enumerate(weights):
        turns += [openai("user", f"q{number}"), openai("assistant", f"a{number}", **{key: weight})]
    return turns


@pytest.mark.parametrize(("key", "no", "yes"), [("weight", 0, 1), ("weight", 0.0, 1.0), ("train", False, True)])
def test_an_answer_of_weight_0_is_kept_and_not_learnt(key: str, no: object, yes: object) -> None:
    said = build({"messages": weighted(no, yes, key=key)})
    assert [message.in_loss for message in said.messages] == [True, False, True, True]


def test_rows_of_single_answers_belong_to_those_that_are_learnt() -> None:
    whole = item(1, build({"messages": weighted(1, 0, 1)}))
    rows = [Encoded([1, 2], [False, True]), Encoded([1, 3], [False, True])]
    assert [(one.conversation.answer, row) for one, row in pieces(whole, rows)] == [("a0", rows[0]), ("a2", rows[1])]


def test_what_stands_behind_the_last_learnt_answer_is_cut_and_noted(write: Write) -> None:
    rows = [weighted(1, 0), weighted(0, 0), weighted(0)]
    write("x.jsonl", "".join(json.dumps({"messages": each}) + "\n" for each in rows))
    data = load(Data(path=Path("x.jsonl")))
    assert [one.conversation.answer for one in data.items] == ["a0"]
    assert data.ledger.notes == {"cut behind its last answer that is learnt": ["x.jsonl:1"]}
    assert data.ledger.dropped == {"no answer that is learnt (all have weight 0)": ["x.jsonl:2", "x.jsonl:3"]}


def test_one_row_with_definitions_makes_the_column_count(write: Write) -> None:
    rows = [[openai("user", f"q{number}"), openai("assistant", f"a{number}")] for number in range(3)]
    tools = ["lamp", [LAMP], None]
    write(
        "x.jsonl",
        "".join(json.dumps({"messages": row, "tools": each}) + "\n" for row, each in zip(rows, tools, strict=True)),
    )
    data = load(Data(path=Path("x.jsonl")))
    assert [one.conversation.tools for one in data.items] == [(OFFERED,), ()]
    assert data.ledger.dropped == {"tools that are no JSON": ["x.jsonl:1"]}


def test_a_list_of_names_defines_nothing_and_is_not_used(write: Write) -> None:
    row = {"messages": [openai("user", "q"), openai("assistant", "a")], "tools": ["hammer", "saw"]}
    write("x.jsonl", json.dumps(row) + "\n")
    data = load(Data(path=Path("x.jsonl")))
    assert len(data.items) == 1 and "not used: tools" in data.choice.sentence()
