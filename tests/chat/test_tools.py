"""Tools, calls and results pass through the template, and calls are learnt like answers."""

import json
from dataclasses import replace

import pytest
from tests.chat.conftest import Make, rows_as_text, talk

from luthier.chat import Conversation, Message, ToolCall
from luthier.errors import UserError
from luthier.model.replies import Answer

TOOL = '{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}'
CALLING = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}<tool_call>ARGUMENTS</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
AS_OBJECT = CALLING.replace("ARGUMENTS", "{{ call.function.name }}({{ call.function.arguments | tojson }})")
AS_TEXT = CALLING.replace("ARGUMENTS", "{{ call.function.name + '(' + call.function.arguments + ')' }}")
CALLED = Conversation(
    (
        Message("user", "1 + 1?"),
        Message("assistant", "", tool_calls=(ToolCall("add", '{"a": 1, "b": 1}'),)),
        Message("tool", "2", name="add"),
        Message("assistant", "Two."),
    ),
    tools=(TOOL,),
)


@pytest.mark.parametrize("source", [AS_OBJECT, AS_TEXT])
def test_calls_and_the_answer_are_learnt_and_results_are_not(make: Make, source: str) -> None:
    [(text, learnt)] = rows_as_text(make(source), CALLED)
    assert learnt == '<tool_call>add({"a": 1, "b": 1})</tool_call><|im_end|>Two.<|im_end|>'
    assert text.startswith(f"<|im_start|>system\n{TOOL}<|im_end|>\n") and "<|im_start|>tool\n2<|im_end|>\n" in text


def test_control_tokens_that_arguments_spell_stay_text(make: Make) -> None:
    messages = [CALLED.messages[0], Message("assistant", "", tool_calls=(ToolCall("add", '{"a": "<|im_end|>"}'),))]
    template = make(AS_OBJECT)
    [row] = template.rows(Conversation(tuple(messages)))
    assert row.ids.count(template.tokenizer.control["<|im_end|>"]) == 2


def test_a_template_that_knows_no_tools_refuses_them(make: Make) -> None:
    plain = make("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")
    with pytest.raises(UserError, match="does not show definitions of tools"):
        plain.rows(CALLED)
    with pytest.raises(UserError, match=r"does not show message 2 of 2 \(assistant\)"):
        plain.rows(Conversation(CALLED.messages[:2]))


def test_a_refusal_names_the_message_and_the_template_s_own_words(make: Make) -> None:
    strict = make(
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Take turns!') }}"
        "{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
    )
    with pytest.raises(
        UserError, match=r'refuses message 3 of 3 \(assistant behind user and assistant\): "Take turns!"'
    ):
        strict.rows(Conversation((*talk("q", "a").messages, Message("assistant", "b"), Message("assistant", "c"))))


def test_of_templates_by_name_the_one_for_tools_is_taken_where_tools_are(make: Make) -> None:
    plain = "  {% for m in messages %}\n{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}\n"
    template = make({"default": plain, "tool_use": AS_OBJECT})  # type: ignore[arg-type]
    hub = template.tokenizer.hub  # type: ignore[attr-defined]
    asked = [{"role": "user", "content": "1 + 1?"}]
    for tools in ([], [json.loads(TOOL)]):
        theirs = hub.apply_chat_template(asked, tools=tools or None, tokenize=False, add_generation_prompt=True)
        ours = template.render(CALLED.messages[:1], tools=[json.dumps(tool) for tool in tools])
        assert ours == theirs


def test_calls_in_replies_are_read_back_by_the_template_s_own_form(make: Make) -> None:
    template = make(AS_OBJECT)
    [row] = template.rows(Conversation(CALLED.messages[:2], tools=(TOOL,)))
    reply = template.parse_reply([token for token, learnt in zip(row.ids, row.loss_mask, strict=True) if learnt])
    assert reply.calls == (ToolCall("add", '{"a": 1, "b": 1}'),)
    assert reply.called == CALLED.messages[1].text == template.answer_text(CALLED.messages[1])
    assert template.reads_calls


def test_control_tokens_that_mark_calls_are_seen_and_are_no_part_of_the_words(make: Make) -> None:
    template = make(AS_OBJECT.replace("<tool_call>", "<|channel|>").replace("</tool_call>", "<|message|>"))
    ids = template.tokenizer.render(['Let me see. <|channel|>add({"a": 2})<|message|><|im_end|>'])[0]
    reply = template.parse_reply(ids)
    assert reply.called == 'Let me see.\n<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>'


def test_a_reply_with_half_a_call_is_the_text_that_it_is(make: Make) -> None:
    template = make(AS_OBJECT)
    reply = template.parse_reply(template.tokenizer.render(['<tool_call>add({"a": '])[0])
    assert reply.text == '<tool_call>add({"a":' and reply.called is None


def test_thoughts_before_a_call_are_no_part_of_it(make: Make) -> None:
    shows = AS_OBJECT.replace(
        "{% if m.content %}",
        "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{% if m.content %}",
    )
    called = Message("assistant", "", reasoning="Sum.", tool_calls=CALLED.messages[1].tool_calls)
    template = make(shows)
    [row] = template.rows(Conversation((CALLED.messages[0], called), tools=(TOOL,)))
    reply = template.parse_reply([token for token, learnt in zip(row.ids, row.loss_mask, strict=True) if learnt])
    assert (reply.thoughts, reply.called) == ("Sum.", called.text)


TAGS = AS_OBJECT.replace(
    "{{ call.function.name }}({{ call.function.arguments | tojson }})",
    "<function={{ call.function.name }}>{% for key, value in call.function.arguments.items() %}<p={{ key }}>{{ value }}</p>"
    "{% endfor %}</function>",
)


def test_where_types_are_not_written_a_reference_has_none_either(make: Make) -> None:
    template = make(TAGS)
    spelled = Message("assistant", "", tool_calls=(ToolCall("add", '{"a": "7", "b": "x"}'),))
    assert template.answer_text(spelled).endswith('{"name": "add", "arguments": {"a": 7, "b": "x"}}\n</tool_call>')
    assert template.answer_text(Message("assistant", "7")) == "7"


def test_a_form_that_names_no_function_cannot_be_read(make: Make) -> None:
    assert not make(AS_OBJECT.replace("{{ call.function.name }}", "it")).reads_calls


def test_thoughts_before_a_call_and_before_the_answer_are_learnt(make: Make) -> None:
    shows = AS_OBJECT.replace(
        "{% if m.content %}",
        "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{% if m.content %}",
    )
    question, call, result, answer = CALLED.messages
    thinking = (question, replace(call, reasoning="Sum."), result, replace(answer, reasoning="Got 2."))
    [(_, learnt)] = rows_as_text(make(shows), Conversation(thinking, tools=(TOOL,)))
    assert learnt.startswith("<think>Sum.</think><tool_call>") and learnt.endswith(
        "<think>Got 2.</think>Two.<|im_end|>"
    )


def test_a_question_is_what_was_asked_with_the_results_that_it_led_to() -> None:
    assert CALLED.question == f"1 + 1?\n{CALLED.messages[1].text}\n2"
    assert Conversation(CALLED.messages[:2]).question == "1 + 1?"


def test_a_reply_to_somebody_who_offered_nothing_is_the_text_that_it_is(make: Make) -> None:
    python = AS_OBJECT.replace(
        "<tool_call>{{ call.function.name }}({{ call.function.arguments | tojson }})</tool_call>",
        "{{ call.function.name }}({% for key, value in call.function.arguments.items() %}{{ key }}={{ value | tojson }}"
        "{% if not loop.last %}, {% endif %}{% endfor %}){% if not loop.last %}{{ '\\n' }}{% endif %}",
    )
    template = make(python)
    assert template.reads_calls
    reply = template.parse_reply(template.tokenizer.render(["add(a=1)"])[0])
    answer = Answer(reply.text, None, "stop", 4, 0, 0.1, reply.called)
    assert answer.said(tools=False) == "add(a=1)"
    assert answer.said(tools=True) == '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
