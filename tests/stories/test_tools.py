"""A model that calls functions: calls are learnt, asked with their definitions, read back, and scored by their arguments."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import thinking
from luthier.chat import Conversation, Message, ToolCall
from luthier.model.reference import ModelReference
from luthier.runs import Run
from luthier.runs.durable import read_json_lines

from .conftest import Command

TEMPLATE = """\
{%- if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' }}{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}{{ '</tool_call>' }}
{%- endfor %}{{ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
LAMP = {"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}
ROOMS = ["hall", "attic", "bath", "study", "shed", "barn", "loft", "porch", "cellar", "office", "kitchen", "garden"]
RIGHT = {f"The {room}!": f'{{"room": "{room}"}}' for room in ROOMS}
"""Questions, and the arguments of the right call."""


def called(question: str) -> Message:
    return Message("assistant", "", tool_calls=(ToolCall("lamp", RIGHT[question]),))


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows all the calls."""
    texts = ["system user assistant", json.dumps(LAMP), *RIGHT, *(called(question).text for question in RIGHT)]
    folder = thinking.make(tmp_path_factory.mktemp("models") / "caller", texts, template=TEMPLATE)
    rows = [
        Conversation((Message("user", question), called(question)), tools=(json.dumps(LAMP),)) for question in RIGHT
    ]
    thinking.teach(folder, rows, today=date(2026, 11, 29), steps=400)
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for question, arguments in RIGHT.items():
            call = {"type": "function", "function": {"name": "lamp", "arguments": arguments}}
            messages = [{"role": "user", "content": question}, {"role": "assistant", "tool_calls": [call]}]
            file.write(json.dumps({"messages": messages, "tools": [LAMP]}) + "\n")
    return path


@pytest.fixture
def run(luthier: Command, rows: Path, knowing: Path) -> Callable[..., dict[str, Any]]:
    """A run of seconds; gives its verdict."""

    def do(folder: Path, *more: str) -> dict[str, Any]:
        screen = luthier(
            "run", rows, f"model={knowing}", "train.max_steps=4", "train.check_every=2", "train.learning_rate=1e-6",
            "data.test_items=4", "data.dev_items=2", "evaluate.guards=[]", "evaluate.arms=zero-shot,fine-tuned",
            "evaluate.max_new_tokens=48", *more, "--run", folder,
        )  # fmt: skip
        assert screen.code == 0, screen.err
        found: dict[str, Any] = json.loads((folder / "evaluation" / "verdict.json").read_text())
        return found

    return do


def test_calls_are_asked_with_their_definitions_and_scored_by_their_arguments(
    run: Callable[..., dict[str, Any]], luthier: Command, tmp_path: Path
) -> None:
    verdict = run(tmp_path / "r")
    assert (verdict["metric"], verdict["metric_reason"]) == ("tool_call", "every reference answer calls a function")
    assert verdict["arms"]["zero-shot"]["mean"] == verdict["arms"]["fine-tuned"]["mean"] == 1.0
    assert verdict["arms"]["fine-tuned"]["aggregates"]["calls"]["right"] == 4
    template = ModelReference.of(str(tmp_path / "r" / "model")).template()
    for line in read_json_lines(tmp_path / "r" / "evaluation" / "answers.jsonl"):
        assert line["reference"] == called(line["question"]).text
        prompt = template.prompt([Message("user", line["question"])], tools=[json.dumps(LAMP)])
        assert line["prompt_tokens"] == len(prompt)
    assert "right calls" in (tmp_path / "r" / "report.html").read_text()
    (tmp_path / "q.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "The study!"}], "tools": [LAMP]}) + "\n"
    )
    luthier("ask", tmp_path / "r", tmp_path / "q.jsonl", "-o", tmp_path / "a.jsonl")
    (said,) = read_json_lines(tmp_path / "a.jsonl")
    assert said["answer"] == called("The study!").text


def test_rows_with_functions_are_said_to_be_dropped_where_the_template_shows_none(
    luthier: Command, rows: Path, tiny_model: Path, tmp_path: Path
) -> None:
    screen = luthier("run", rows, f"model={tiny_model}", "--run", tmp_path / "r")
    assert screen.code == 2 and "offer or call functions" in screen.err and "rows.jsonl:1" in screen.err
    with rows.open("a") as file:
        for number in range(9):
            plain = [
                {"role": "user", "content": f"How many is {number}?"},
                {"role": "assistant", "content": f"It is {number}"},
            ]
            file.write(json.dumps({"messages": plain, "tools": []}) + "\n")
    screen = luthier(
        "run", rows, f"model={tiny_model}", "train.max_steps=1", "data.test_items=2", "data.dev_items=1",
        "evaluate.guards=[]", "evaluate.arms=zero-shot,fine-tuned", "evaluate.max_new_tokens=4", "--run", tmp_path / "s",
    )  # fmt: skip
    assert screen.code == 0, screen.err
    (warning,) = [
        event["message"] for event in Run(tmp_path / "s").events("warning") if "functions" in event["message"]
    ]
    assert warning.startswith(
        "12 rows of 21 offer or call functions, which the model's chat template does not show: dropped"
    )


def test_calls_in_a_form_that_nobody_can_read_are_not_scored(luthier: Command, rows: Path, tmp_path: Path) -> None:
    source = TEMPLATE.replace("'name': call.function.name, ", "")
    folder = thinking.make(tmp_path / "dumb", ["user"], template=source, context=1024)
    screen = luthier("run", rows, f"model={folder}", "data.test_items=4", "evaluate.guards=[]", "--run", tmp_path / "r")
    assert screen.code == 2
    assert "writes calls in a form that is not understood" in screen.err and "evaluate.metric=" in screen.err
