"""A reply in parts is the reply: what is shown piece by piece is together what `luthier ask` shows at its end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from luthier.chat import Template
from luthier.engine.requests import Finished, Piece
from luthier.engine.text import TextStream
from luthier.model.tokenizer import HubTokenizer, template_of
from luthier.serve.openai.replies import Reply, Said

Make = Callable[[str], Template]
TURN = "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = f"{{% for message in messages %}}{TURN}{{% endfor %}}{ASK}"
CALLING = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content or '' }}{% for call in message.tool_calls or [] %}<tool_call>\n"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}" + ASK
)
THINKING = PLAIN.replace("assistant\n{%", "assistant\n<think>\n{%")


@pytest.fixture(scope="module")
def make(tiny_model: Path) -> Make:
    def made(source: str) -> Template:
        hub = AutoTokenizer.from_pretrained(tiny_model)
        hub.add_tokens(["<think>", "</think>"])
        hub.chat_template = source
        return template_of(hub)

    return made


def in_parts(
    template: Template, text: str, *, tools: bool = False, stop: tuple[str, ...] = ()
) -> tuple[list[Said], Said, list[int]]:
    """What is shown of a text while its tokens come, all of it, and the tokens."""
    assert isinstance(template.tokenizer, HubTokenizer)
    reply, shown = Reply(template, tools=tools, stop_strings=stop), TextStream(template.tokenizer, stop)
    ids: list[int] = []
    parts: list[Said] = []
    for token in [*template.tokenizer.render([text])[0], template.tokenizer.control["<|im_end|>"]]:
        more = shown.add(token)
        ids.append(token)
        last = token == template.tokenizer.control["<|im_end|>"] or shown.stop_string is not None
        parts.append(reply.add(Piece((token,), more + (shown.end() if last else ""))))
        if last:
            break
    parts.append(reply.end(Finished("stop", 1, len(ids), stop_string=shown.stop_string)))
    whole = Said("".join(part.text for part in parts), "".join(part.thoughts for part in parts), parts[-1].calls)
    return parts, whole, ids


@pytest.mark.parametrize("text", ["Paris.", "  Paris \n\n is  big. \n", "", " ", "<th", "< 5", "ü – ☃ 🎻", "a\n<b>\n"])
def test_the_parts_of_an_answer_are_the_answer(make: Make, text: str) -> None:
    template = make(PLAIN)
    parts, whole, ids = in_parts(template, text)
    assert whole == Said(template.parse_reply(ids).text) == Said(text.strip())
    assert all("\ufffd" not in part.text for part in parts)


def test_an_answer_is_shown_while_it_comes(make: Make) -> None:
    parts, whole, _ = in_parts(make(PLAIN), "The capital of France is Paris.")
    assert len([part for part in parts if part.text]) > 5 and whole.text.startswith(parts[0].text)


@pytest.mark.parametrize("source", [PLAIN, THINKING])
def test_thoughts_stand_apart_from_the_answer(make: Make, source: str) -> None:
    opening = "<think>" if source == PLAIN else ""
    _, whole, ids = in_parts(make(source), f"{opening}France has one.</think>\n\nParis.")
    found = make(source).parse_reply(ids)
    assert whole == Said("Paris.", "France has one.") == Said(found.text, found.thoughts or "")


def test_calls_are_read_and_are_no_text(make: Make) -> None:
    template = make(CALLING)
    text = 'I look it up.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    _, whole, _ = in_parts(template, text, tools=True)
    assert [(call.name, call.arguments) for call in whole.calls] == [("weather", '{"city": "Köln"}')]
    assert whole.text == "I look it up."
    assert in_parts(template, "It rains.", tools=True)[1] == Said("It rains.")
    assert in_parts(template, text)[1].calls == ()  # to somebody who offered no functions it is text


@pytest.mark.parametrize("source", [PLAIN, THINKING])
def test_an_answer_ends_before_its_stop_string(make: Make, source: str) -> None:
    text = "One, two, three." if source == PLAIN else "so</think>One, two, three."
    assert in_parts(make(source), text, stop=(", three",))[1].text == "One, two"
