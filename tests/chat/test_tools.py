"""Tools, calls and results pass through the template, and calls are learnt like answers."""

import json

import pytest
from tests.chat.conftest import Make, rows_as_text, talk

from luthier.chat import Conversation, Message, ToolCall
from luthier.errors import UserError

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
