"""Prompts that a template refuses are reported before anything is asked, with its own words, and for the right reason."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from .conftest import Command

TURNS = "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' }}{% endfor %}"
ASK = "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
ONE_QUESTION = (
    "{%- if messages | length > 2 %}{{ raise_exception('One question at a time!') }}{% endif %}" + TURNS + ASK
)
NO_SYSTEM = "{%- if messages[0].role == 'system' %}{{ raise_exception('No system, please') }}{% endif %}" + TURNS + ASK
NEMO = (
    "{%- if messages[0].role == 'system' %}{% set system, rest = messages[0].content, messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}"
    "{%- for message in rest %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{%- if message.role == 'user' %}{{ '<|im_start|>' }}"
    "{%- if loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}{{ message.content + '<|im_end|>' }}"
    "{%- else %}{{ message.content + '<|endoftext|>' }}{% endif %}{% endfor %}"
)
"""As Mistral-Nemo's: a system message stands before the last question, wherever that is."""
NOTHING = "{{ raise_exception('I am closed today') }}"
PROUD = "{%- if 'Thank you' in messages[-1].content %}{{ raise_exception('No thanks') }}{% endif %}" + TURNS + ASK


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The tiny model with another template."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).symlink_to(file)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = request.param
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    for file in (tmp_path / "tokenizer").iterdir():
        (folder / file.name).unlink(missing_ok=True)
        file.rename(folder / file.name)
    return folder


@pytest.mark.parametrize("model", [ONE_QUESTION], indirect=True)
def test_an_arm_whose_prompts_are_refused_is_named_before_anything_is_asked(
    luthier: Command, data: Path, quick: list[str], model: Path, tmp_path: Path
) -> None:
    screen = luthier("run", data, *quick, f"model={model}", "--run", tmp_path / "r")
    assert screen.code == 2 and not (tmp_path / "r").exists()
    assert "One question at a time!" in screen.err
    assert 'This is what the arm "few-shot" sends for this row' in screen.err
    assert "leave the arm out of evaluate.arms" in screen.err
    assert "colours.jsonl:" in screen.err


@pytest.mark.parametrize("model", [NO_SYSTEM, NEMO], indirect=True)
def test_a_system_message_goes_where_the_template_puts_it_or_opens_the_question_in_every_arm(
    luthier: Command, data: Path, quick: list[str], model: Path, tmp_path: Path
) -> None:
    words = [*quick, "evaluate.guards=hallucination,consistency", f"model={model}", "data.system=Be brief."]
    words += ["evaluate.instruction=Say one word."]
    screen = luthier("run", data, *words, "--run", tmp_path / "r")
    assert screen.code == 0, screen.err


@pytest.mark.parametrize("model", [PROUD], indirect=True)
def test_a_guard_whose_questions_are_refused_is_named(
    luthier: Command, data: Path, quick: list[str], model: Path, tmp_path: Path
) -> None:
    words = [word for word in quick if not word.startswith("evaluate.guards")]
    screen = luthier("run", data, *words, f"model={model}", "--run", tmp_path / "r")
    assert screen.code == 2 and not (tmp_path / "r").exists()
    assert "No thanks" in screen.err and 'This is a question of the guard "consistency"' in screen.err


@pytest.mark.parametrize("model", [NOTHING], indirect=True)
def test_a_template_that_refuses_all_rows_is_the_reason(
    luthier: Command, data: Path, quick: list[str], model: Path, tmp_path: Path
) -> None:
    screen = luthier("run", data, *quick, f"model={model}", "--run", tmp_path / "r")
    assert screen.code == 2 and "I am closed today" in screen.err
    assert "fits" not in screen.err


@pytest.mark.parametrize("model", [ONE_QUESTION], indirect=True)
def test_a_test_file_that_is_refused_as_a_whole_is_reported_as_such(
    luthier: Command, data: Path, quick: list[str], model: Path, tmp_path: Path
) -> None:
    test = tmp_path / "test.jsonl"
    with test.open("w") as file:
        for number in range(3):
            turns = [
                {"role": role, "content": f"{number} {role}"} for role in ("user", "assistant", "user", "assistant")
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    words = [word for word in quick if not word.startswith("data.test_items")]
    screen = luthier("run", data, *words, f"model={model}", f"data.test_path={test}", "--run", tmp_path / "r")
    assert screen.code == 2 and "One question at a time!" in screen.err
