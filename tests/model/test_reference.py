"""Which models are taken, which are refused, and in which words."""

import json
import shutil
from datetime import date
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LogitsProcessor

from luthier.chat import Message
from luthier.errors import MachineError, UserError
from luthier.model import loading
from luthier.model.folder import check
from luthier.model.reference import ModelReference, absolute, find_folder


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_a_local_folder_is_itself(tiny_model: Path) -> None:
    assert find_folder(str(tiny_model)) == tiny_model


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    with pytest.raises(
        UserError, match=r'model: unknown model "smolm2-135m", did you mean "smollm2-135m"\? .*org/model'
    ):
        find_folder("smolm2-135m")


def test_a_hub_name_without_network_is_one_clear_message() -> None:
    with pytest.raises(MachineError, match="nobody/nothing: cannot get the model from the hub") as caught:
        find_folder("nobody/nothing")
    assert caught.value.exit_code == 4
    assert "model=smollm2-135m" in str(caught.value)


def test_a_relative_place_is_the_same_from_everywhere(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_model.parent)
    for name in ("tiny", "./tiny", "tiny/", f"../{tiny_model.parent.name}/tiny"):
        assert find_folder(name) == tiny_model
        assert absolute(name) == str(tiny_model)
    assert absolute("smollm2-135m") == "smollm2-135m"
    assert absolute("org/model") == "org/model"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "models/tinyy",
            r'models/tinyy: \S+/models has no folder tinyy, did you mean "tiny"\? If a model on the hub is meant',
        ),
        ("./tiny", r"\./tiny: \S+ has no folder tiny"),
        ("models/", "models/: not a Hugging Face model"),
        ("models/tiny/", "weights are pickled|found no weights"),
        ("nowhere/at/all", r"nowhere/at/all: there is no such folder, nor \S+/nowhere/at"),
        ("nobody/nothing/", "nobody/nothing/: there is no such folder"),
        ("~/nobody/nothing", "there is no such folder"),
        (
            "note.txt",
            "a model is a folder with config.json and safetensors weights, or a GGUF file; this is another file",
        ),
    ],
)
def test_a_path_is_never_taken_for_a_name_on_the_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    (tmp_path / "models").mkdir()
    (folder / "model.safetensors").unlink()
    folder.rename(tmp_path / "models" / "tiny")
    (tmp_path / "note.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told):
        find_folder(name)


@pytest.mark.parametrize("home", ["/dev/null", "/proc/nobody"])
def test_a_home_that_cannot_be_written_is_told_of_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    for name in ("LUTHIER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    (tmp_path / "it.gguf").write_bytes(b"GGUF")
    with pytest.raises(MachineError, match=rf"cannot write to {home}/.cache/luthier/models, .*folder in LUTHIER_CACHE"):
        find_folder(str(tmp_path / "it.gguf"))


def test_pickled_weights_are_refused_with_the_reason(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"weights are pickled \(pytorch_model.bin\), and opening a pickle can run any code"
    ):
        check(folder, "mine")


def test_a_model_with_code_of_its_own_is_refused_with_the_reason(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(UserError, match=r"brings its own Python code .*Luthier never runs it"):
        check(folder, "mine")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "not a Hugging Face model: it has no config.json"),
        ("model.safetensors", r"found no weights: expected \*.safetensors"),
        ("tokenizer.json", "found no tokenizer: expected tokenizer.json"),
    ],
)
def test_what_is_missing_is_named(folder: Path, missing: str, message: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(UserError, match=message):
        check(folder, "mine")


def test_truncated_weights_are_a_message(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot load the model"):
        loading.load(str(folder))


def test_a_saved_model_is_the_same_and_keeps_its_template(tiny_model: Path, tmp_path: Path) -> None:
    lm = loading.load(str(tiny_model))
    weights = {name: weight.detach() + 1 for name, weight in lm.model.named_parameters()}
    loading.save(lm.model, lm.tokenizer, lm.template, tmp_path / "saved", weights)
    again = loading.load(str(tmp_path / "saved"))
    assert again.template.sha256 == lm.template.sha256
    for name, weight in again.model.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=0)
    assert not list(tmp_path.glob(".saved*"))


def test_a_base_model_keeps_our_template_when_saved(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    lm = loading.load(str(folder))
    loading.save(lm.model, lm.tokenizer, lm.template, tmp_path / "saved", {})
    assert loading.load(str(tmp_path / "saved")).template.sha256 == lm.template.sha256


QWEN = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ForcedTokens(LogitsProcessor):
    """Makes a model write these tokens, one after the other."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = iter(tokens)

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -100.0).index_fill_(1, torch.tensor([next(self.tokens)]), 0.0)


def test_a_saved_model_stops_elsewhere_where_it_stops_here(folder: Path, tmp_path: Path) -> None:
    """Its tokenizer ends with <|im_end|> (2), its template with <|endoftext|> (0); plain transformers must know both."""
    (folder / "chat_template.jinja").write_text(QWEN)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "do_sample": False, "top_p": 0.9}))
    lm = loading.load(str(folder))
    loading.save(lm.model, lm.tokenizer, lm.template, tmp_path / "saved", {})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert plain.generation_config.eos_token_id == [0, 2]
    assert plain.generation_config.top_p == 0.9
    for end in (0, 2):
        force = ForcedTokens([17, 17, end, 17, 17])
        written = plain.generate(torch.tensor([[3, 5]]), max_new_tokens=5, logits_processor=[force], do_sample=False)
        assert written[0, 2:].tolist() == [17, 17, end]


def test_the_ends_of_generation_config_end_answers(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    assert loading.load(str(folder)).template.stop_ids == {0, 2}
    assert ModelReference.of(str(folder)).template().stop_ids == {0, 2}


def test_variables_and_the_date_reach_the_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%Y') }} {{ mood }} " + QWEN)
    seen = {"variables": {"mood": "calm"}, "today": date(2031, 5, 4)}
    for template in (loading.load(str(folder), **seen).template, ModelReference.of(str(folder)).template(**seen)):
        assert template.tokenizer.decode(template.prompt((Message("user", "Why?"),))).startswith("2031 calm ")


def test_settings_to_generate_with_come_through_though_transformers_would_not_save_them(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "do_sample": False, "top_p": 0.9}))
    lm = loading.load(str(folder))
    adapted = loading.add_adapters(lm.model, rank=2, alpha=4, seed=0)
    loading.save(adapted, lm.tokenizer, lm.template, tmp_path / "saved", {})
    written = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert written["top_p"] == 0.9 and written["eos_token_id"] == [2]
    assert lm.model.generation_config.top_p == 0.9


def test_saved_adapters_answer_as_before(tiny_model: Path, tmp_path: Path) -> None:
    lm = loading.load(str(tiny_model))
    adapted = loading.add_adapters(lm.model, rank=2, alpha=4, seed=0)
    weights = {
        name: torch.full_like(weight, 0.05) for name, weight in adapted.named_parameters() if weight.requires_grad
    }
    loading.save(adapted, lm.tokenizer, lm.template, tmp_path / "saved", weights)
    tokens = torch.tensor([[3, 5, 9]])
    again = loading.load(str(tmp_path / "saved"))
    torch.testing.assert_close(again.model(input_ids=tokens).logits, adapted(input_ids=tokens).logits)


def test_an_adapter_finds_a_base_beside_itself_and_names_one_that_is_gone(folder: Path, tmp_path: Path) -> None:
    lm = loading.load(str(folder))
    adapted = loading.add_adapters(lm.model, rank=2, alpha=4, seed=0)
    loading.save(adapted, lm.tokenizer, lm.template, tmp_path / "adapter", {})
    folder.rename(tmp_path / "adapter" / "base")
    settings = tmp_path / "adapter" / "adapter_config.json"
    written = json.loads(settings.read_text())
    settings.write_text(json.dumps(written | {"base_model_name_or_path": "base"}))
    assert loading.load(str(tmp_path / "adapter")).context == 512
    settings.write_text(json.dumps(written | {"base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(
        UserError, match=r"adapter: the adapter's base model cannot be used: \S+/gone: \S+ has no folder gone"
    ):
        loading.load(str(tmp_path / "adapter"))
