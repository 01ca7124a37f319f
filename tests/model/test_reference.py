"""Which models are taken, which are refused, and in which words."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from luthier.errors import EnvironmentMistake, Mistake
from luthier.model import loading
from luthier.model.reference import check, resolve


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_a_local_folder_is_itself(tiny_model: Path) -> None:
    assert resolve(str(tiny_model)) == tiny_model


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    with pytest.raises(Mistake, match=r'model: unknown model "smolm2-135m", did you mean "smollm2-135m"\? .*org/model'):
        resolve("smolm2-135m")


def test_a_hub_name_without_network_is_one_clear_message() -> None:
    with pytest.raises(EnvironmentMistake, match="nobody/nothing: cannot get the model from the hub") as caught:
        resolve("nobody/nothing")
    assert caught.value.exit_code == 4
    assert "model=smollm2-135m" in str(caught.value)


def test_pickled_weights_are_refused_with_the_reason(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        Mistake, match=r"weights are pickled \(pytorch_model.bin\), and opening a pickle can run any code"
    ):
        check(folder, "mine")


def test_a_model_with_code_of_its_own_is_refused_with_the_reason(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(Mistake, match=r"brings its own Python code .*Luthier never runs it"):
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
    with pytest.raises(Mistake, match=message):
        check(folder, "mine")


def test_truncated_weights_are_a_message(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(Mistake, match="cannot load the model"):
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
