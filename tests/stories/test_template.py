"""`luthier template`: what a model's template does, whether it is rendered as transformers does, and any row in colours."""

import json
import shutil
from pathlib import Path

import pytest

from luthier.chat import Template

from .conftest import Command


@pytest.fixture
def without_weights(tiny_model: Path, tmp_path: Path) -> Path:
    """A model's folder with its configuration and tokenizer only."""
    folder = tmp_path / "light"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def test_a_sound_template_is_told_and_checked_without_weights(luthier: Command, without_weights: Path) -> None:
    screen = luthier("template", without_weights)
    assert screen.code == 0
    assert "system message  stands first\n" in screen.out
    assert "earlier turns   are not changed by later turns: one row holds a conversation\n" in screen.out
    assert "ok    text     rows are the template's own text (7 conversations)\n" in screen.out
    assert "ends with       <|im_end|>\n" in screen.out


def test_a_question_is_shown_as_the_model_is_asked(luthier: Command, without_weights: Path) -> None:
    screen = luthier("template", without_weights, "--show", "Why?")
    assert "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n\n" in screen.out
    assert "tokens that ask for an answer" in screen.out


def test_a_line_of_a_data_file_is_shown_as_it_is_learnt(luthier: Command, without_weights: Path, data: Path) -> None:
    screen = luthier("template", without_weights, "--show", f"{data}:2")
    assert "<|im_start|>assistant\n«The door is red.<|im_end|>»" in screen.out


def test_a_row_as_json_is_shown_for_programs(luthier: Command, without_weights: Path) -> None:
    row = '{"question": "A?", "answer": "B."}'
    screen = luthier("template", without_weights, "--show", row, "--json")
    told = json.loads(screen.out)
    (shown,) = told["shown"]
    assert (told["clean"], shown["text"]) == (
        True, "<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\n«B.<|im_end|>»",
    )  # fmt: skip
    assert [token["kind"] for token in shown["tokens"]][-3:] == ["loss", "loss", "end"]
    assert [check["faults"] for check in told["checks"]] == [[], [], [], []]


def test_what_differs_is_told_with_exit_code_1(
    luthier: Command, without_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = Template.prompt
    monkeypatch.setattr(Template, "prompt", lambda self, messages, **given: asks(self, messages, **given)[1:])
    screen = luthier("template", without_weights)
    assert screen.code == 1
    assert "fault prompt   prompts are those that servers send, and their rows begin with them" in screen.out
    assert "one question: ours 'user\\nWhere" in screen.out


def test_what_a_template_refuses_is_a_note_in_its_own_words(luthier: Command, without_weights: Path) -> None:
    (without_weights / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if loop.index > 2 %}{{ raise_exception('One question only.') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    screen = luthier("template", without_weights)
    assert screen.code == 0
    assert "note  refused (two questions, blanks around contents" in screen.out and '"One question only"' in screen.out


@pytest.mark.parametrize(
    ("broken", "words"),
    [("{% for %}", "not valid Jinja"), (None, "no config.json")],
)
def test_a_folder_without_a_usable_template_is_refused(
    broken: str | None, words: str, luthier: Command, without_weights: Path
) -> None:
    if broken is None:
        (without_weights / "config.json").unlink()
    else:
        (without_weights / "chat_template.jinja").write_text(broken)
    screen = luthier("template", without_weights)
    assert (screen.code, words in screen.err) == (2, True)


def test_a_template_that_takes_no_conversation_is_refused(luthier: Command, without_weights: Path) -> None:
    (without_weights / "chat_template.jinja").write_text("{{ raise_exception('Not today') }}")
    screen = luthier("template", without_weights)
    assert screen.code == 2
    assert (
        "no training row can be made with this template: the chat template refuses" in screen.err
        and "Not today" in screen.err
    )


def test_a_line_without_a_usable_row_is_named(luthier: Command, without_weights: Path, data: Path) -> None:
    screen = luthier("template", without_weights, "--show", f"{data}:900")
    assert screen.code == 2
    assert f"{data}:900: no usable row in this line: 60 rows read, 60 kept" in screen.err
