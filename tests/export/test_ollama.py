"""For Ollama: its template renders the very prompts of training, also in Go itself; what it cannot say is refused."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from luthier import export
from luthier import recipe as recipes
from luthier.chat import Conversation, Message
from luthier.cli.export import show
from luthier.errors import UserError
from luthier.export import ollama, texts
from luthier.export.ollama import modelfile, proof
from luthier.export.ollama.deriving import Turns
from luthier.export.ollama.go_template import GoTemplate, literal
from luthier.export.ollama.modelfile import Modelfile
from luthier.export.source import Source
from luthier.model.tokenizer import template_of
from luthier.runs.durable import write_atomic

from .conftest import ROWS, MakeRun

ENDS = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "</s>", "<|endoftext|>")
TEMPLATES = {
    "ChatML with a system message of its own": (
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\n{{ '{{' }} help.<|im_end|>\n"
        "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "ChatML that closes thoughts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
    ),
    "Llama 3": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
        "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "Gemma": (
        "{{ bos_token }}{% set system = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
        "{% set told = messages[1:] if system else messages %}{% for m in told %}<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ system if loop.first else '' }}{{ m.content | trim }}"
        "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "Phi-3": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
    ),
    "Mistral, whose system message ours puts into the question": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}"
    ),
    "Mistral, whose system message stands in the last question": (
        "{{ bos_token }}{% set system = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ system if loop.last else '' }}{{ m.content }}[/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}"
    ),
    "headings with letters beyond ASCII": (
        "{% for m in messages %}«{{ m.role }}»\u00a0👩‍👩‍👧\r\n{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}«assistant»\u00a0👩‍👩‍👧\r\n{% endif %}"
    ),
}
COUNTED = (
    "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def coder(tiny_model: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    found.add_tokens([AddedToken(end, special=True, normalized=False) for end in ENDS])
    return found


def derived(coder: PreTrainedTokenizerBase, source: str) -> tuple[Any, str]:
    coder.chat_template = source
    template = template_of(coder)
    return template, Turns.of(template, bos="").to_go()


def asked(template: Any) -> Iterator[tuple[Any, str]]:
    """Conversations with their prompts as the chat template renders them."""
    for messages in texts.conversations(template).values():
        yield messages, template.render(messages)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_renders_the_prompts_of_training(coder: PreTrainedTokenizerBase, name: str) -> None:
    template, source = derived(coder, TEMPLATES[name])
    go, trims = GoTemplate(source, "x"), "trim" in TEMPLATES[name]
    found = [(ours, go.render(proof.data_of(messages)), messages) for messages, ours in asked(template)]
    assert len(found) == 20
    other = [(ours, theirs, messages) for ours, theirs, messages in found if ours != theirs]
    assert trims or other == []
    for ours, _, messages in other:  # blanks around a content, which Go's templates cannot take away
        assert ours == go.render(proof.data_of([replace(each, content=each.content.strip()) for each in messages]))
    assert len(other) <= 6


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_go_itself_renders_the_same(coder: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    work = []
    for name in TEMPLATES:
        template, source = derived(coder, TEMPLATES[name])
        assert modelfile_of(source, tmp_path) == source
        work += [{"template": source, "data": proof.data_of(messages)} for messages, _ in asked(template)]
    shutil.copy(Path(__file__).with_name("ollama.go"), tmp_path / "main.go")
    lines = "\n".join(json.dumps(each) for each in work)
    done = subprocess.run(
        ["go", "run", "main.go"], cwd=tmp_path, input=lines, capture_output=True, text=True, check=True
    )
    theirs = [json.loads(line)["text"] for line in done.stdout.splitlines()]
    assert theirs == [GoTemplate(each["template"], "x").render(each["data"]) for each in work]


def modelfile_of(template: str, folder: Path) -> str:
    """A template through a Modelfile and back."""
    write_atomic(folder / "Modelfile", Modelfile("a.gguf", template).render("a comment"))
    return modelfile.read(folder / "Modelfile").template


def test_any_text_can_stand_in_a_template_and_a_modelfile(tmp_path: Path) -> None:
    for text in (
        '{{ x }} {"a": {}}',
        '"""',
        'end"',
        "\u200b\u00a0\r\n\x00",
        "{",
        "tab\t\n\n  blanks  ",
        "é 你好 🙂",
        "\\n",
    ):
        source = literal(text) + "{{ .Prompt }}"
        assert GoTemplate(source, "x").render({"Prompt": "?"}) == text + "?"
        assert modelfile_of(source, tmp_path) == source


def test_what_is_no_template_of_ours_is_refused() -> None:
    for source, said in (
        ("{{- .Prompt }}", "- .Prompt"),
        ("{{ json .Tools }}", "json"),
        ("{{ if .System }}", "an if without its end"),
        ("{{ end }}", "without a beginning"),
        ("{{ .System", "an action that does not end"),
        ("{{ range .Messages }}{{ end }}", "range .Messages"),
        ('{{ "\\q" }}', "\\\\q"),
    ):
        with pytest.raises(UserError, match="beyond the part of Go's templates") as refusal:
            GoTemplate(source, "Modelfile")
        assert said in repr(refusal.value.message), source


def test_a_folder_for_ollama_is_proven_and_a_changed_one_is_found(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = make_run(answered=True), tmp_path / "o"
    recipe = recipes.replace(recipes.load(run.folder / "recipe.toml"), {"data.system": "Be brief."})
    write_atomic(run.folder / "recipe.toml", recipes.render(recipe))
    artefact, report = export.export(run.folder, to="ollama", type="q8_0", out=folder)
    assert (
        report and report.faults == [] and report.modelfile == {"same": 32, "of": 32, "trimmed": 0, "differences": []}
    )
    assert artefact.serve == f"ollama create run -f {folder}/Modelfile && ollama run run"
    assert {path.name for path in folder.iterdir()} == {
        "run-q8_0.gguf", "Modelfile", "README.md", "run-q8_0.gguf.parity.json",
    }  # fmt: skip
    found = modelfile.read(folder / "Modelfile")
    assert found.file == "run-q8_0.gguf" and found.system == "Be brief."
    assert dict(found.parameters) == {"temperature": "0", "repeat_penalty": "1", "num_ctx": "512", "stop": "<|im_end|>"}
    text = (folder / "Modelfile").read_text()
    for changed, other, fault in (
        ("assistant\n{{ else", "assistant{{ else", "modelfile: byte "),
        ("Be brief.", "Be long.", "modelfile: SYSTEM is 'Be long.'"),
        ('stop "<|im_end|>"', 'stop "x"', "modelfile: there is no PARAMETER stop <|im_end|>"),
    ):
        assert changed in text
        (folder / "Modelfile").write_text(text.replace(changed, other))
        assert ollama.check(Source.of(run), folder)[1][0].startswith(fault)
    with pytest.raises(SystemExit) as ended:
        show(export.verify(run.folder, folder))
    assert ended.value.code == 1 and "there is no PARAMETER stop" in capsys.readouterr().out


def test_what_ollama_cannot_say_is_refused_with_the_way_out(
    make_run: MakeRun, coder: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    coder.chat_template = COUNTED
    counted = make_run(own=coder, name="counted")
    quoted = make_run(name="quoted")
    recipe = recipes.replace(recipes.load(quoted.folder / "recipe.toml"), {"data.system": 'Say """ thrice'})
    write_atomic(quoted.folder / "recipe.toml", recipes.render(recipe))
    for run, said in (
        (counted, "the chat template cannot be expressed as one of Ollama's: byte "),
        (quoted, "a Modelfile cannot hold quotes at its ends or three in a row"),
    ):
        with pytest.raises(UserError, match=said):
            export.export(run.folder, to="ollama", out=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_rows_that_offer_functions_are_refused(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = json.dumps({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})
    offered = replace(ROWS[0], conversation=replace(ROWS[0].conversation, tools=(tool,)))
    monkeypatch.setattr(Source, "items", lambda source: iter([offered]))
    with pytest.raises(UserError, match=r"the run's rows offer functions.*Take --to gguf"):
        ollama.Plan.of(Source.of(make_run()))


def test_a_damaged_modelfile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "Modelfile"
    for text, said in (
        ("TEMPLATE x\n", "no line FROM"),
        ("FROM ./x.gguf\n", "no line TEMPLATE"),
        ('FROM ./x.gguf\nTEMPLATE """a\nb', "the quotes that line 2 opens do not end"),
        ("FROM\n", "line 1 is no instruction"),
        ("PARAMETER stop\n", "PARAMETER has no value"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            modelfile.read(path)
    with pytest.raises(UserError, match="no Modelfile in this folder"):
        modelfile.read(tmp_path / "gone")


def test_messages_of_one_role_are_one_for_ollama() -> None:
    found = proof.data_of(Conversation((Message("system", "a"), Message("user", "b"), Message("user", "c"))).messages)
    assert found["System"] == "a" and found["Messages"] == [
        {"Role": "system", "Content": "a"}, {"Role": "user", "Content": "b\n\nc"},
    ]  # fmt: skip
