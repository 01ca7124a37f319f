"""Weights are those of the files or the model is refused: none is made up in silence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.errors import UserError
from luthier.model import loading

Weights = dict[str, torch.Tensor]
Rewrite = Callable[[Callable[[Weights], Weights]], Path]
TOKENS = torch.tensor([[3, 5, 9, 17]])


@pytest.fixture
def rewritten(tiny_model: Path, tmp_path: Path) -> Rewrite:
    """A copy of the tiny model with a head of its own, after its weights went through a function."""

    def rewrite(change: Callable[[Weights], Weights]) -> Path:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return rewrite


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    """A saved adapter of the tiny model that is not fresh."""
    lm = loading.load(str(tiny_model))
    adapted = loading.add_adapters(lm.model, rank=2, alpha=4, seed=0)
    weights = {
        name: torch.full_like(weight, 0.05) for name, weight in adapted.named_parameters() if weight.requires_grad
    }
    (tmp_path / "adapters").mkdir()
    loading.save(adapted, lm.tokenizer, lm.template, tmp_path / "adapters" / "one", weights)
    return tmp_path / "adapters" / "one"


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


def renamed(change: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda weights: {change(name): weight for name, weight in weights.items()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("lm_head"), r"1 weight of the model is not in its files: lm_head.weight\. Take whole files"),
        (without("layers.1."), r"9 weights of the model are not in its files: model.layers.1.input_layernorm.weight, "),
        (
            renamed(lambda name: name.replace("q_proj", "query")),
            r"2 weights of the model are not .*self_attn.q_proj.weight; 2 weights in the files have no place in the model: "
            r"model.layers.0.self_attn.query.weight",
        ),
        (renamed(lambda name: f"other.{name}"), r"21 weights .*; 21 weights in the files have no place in the model: other"),
        (
            lambda weights: weights | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)},
            r"copy: 1 weight in the files has no place in the model: model.layers.0.self_attn.q_proj.bias\.",
        ),
        (
            lambda weights: weights | {"model.layers.2.mlp.up_proj.weight": torch.zeros(64, 32)},
            r"1 weight in the files has no place in the model: model.layers.2.mlp.up_proj.weight",
        ),
        (
            lambda weights: weights | {"lm_head.weight": torch.zeros(384, 16)},
            r"do not fit config.json: lm_head.weight is 384 × 16 in the file, 384 × 32 by the configuration\.",
        ),
    ],
)  # fmt: skip
def test_weights_that_are_not_the_configuration_s_are_named(
    rewritten: Rewrite, change: Callable[[Weights], Weights], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        loading.load(str(rewritten(change)))


@pytest.mark.parametrize(
    "change",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("model.layers.0.", "model.layers.0._checkpoint_wrapped_module."),
    ],
)
def test_names_from_inside_a_wrapper_are_mended_and_told(
    rewritten: Rewrite, tiny_model: Path, tmp_path: Path, change: Callable[[str], str]
) -> None:
    mended, plain = loading.load(str(rewritten(renamed(change)))), loading.load(str(tiny_model))
    torch.testing.assert_close(mended.model(TOKENS).logits, plain.model(TOKENS).logits, rtol=0, atol=0)
    assert "the weights were saved inside a wrapper" in mended.notes[0]
    assert not plain.notes
    loading.save(mended.model, mended.tokenizer, mended.template, tmp_path / "saved", {})
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved.keys() - {"lm_head.weight"} == load_file(tiny_model / "model.safetensors").keys()


def test_what_stands_beside_the_model_is_told_and_left_out(rewritten: Rewrite) -> None:
    lm = loading.load(str(rewritten(lambda weights: weights | {"v_head.summary.weight": torch.zeros(1, 32)})))
    assert "1 weight that this kind of model does not use: v_head.summary.weight" in lm.notes[0]


def test_tied_weights_and_buffers_are_no_lack(rewritten: Rewrite, tiny_model: Path) -> None:
    assert not loading.load(str(tiny_model)).notes
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert not loading.load(str(rewritten(lambda weights: weights | old))).notes


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_told_as_such(rewritten: Rewrite, number: float) -> None:
    def spoil(weights: Weights) -> Weights:
        weights["model.layers.1.mlp.up_proj.weight"][3, 5] = number
        return weights

    with pytest.raises(
        UserError, match=r"NaN or infinity in model.layers.1.mlp.up_proj.weight: the file is damaged, or"
    ):
        loading.load(str(rewritten(spoil)))


def test_adapter_names_that_do_not_match_are_named(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    save_file(renamed(lambda name: name.replace("q_proj", "query"))(weights), file)
    with pytest.raises(
        UserError, match=r"4 weights of the adapter are not in its files: \S+q_proj.lora_A.weight.*; 4 weights in "
    ):
        loading.load(str(adapter))
    save_file(without("layers.1.mlp.up_proj")(weights), file)
    with pytest.raises(UserError, match=r"one: 2 weights of the adapter are not in its files"):
        loading.load(str(adapter))


@pytest.mark.parametrize(
    "change",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda name: f"module.{name}",
    ],
)
def test_adapter_names_from_inside_a_wrapper_are_mended_and_told(adapter: Path, change: Callable[[str], str]) -> None:
    wanted = loading.load(str(adapter)).model(input_ids=TOKENS).logits
    file = adapter / "adapter_model.safetensors"
    save_file(renamed(change)(load_file(file)), file)
    lm = loading.load(str(adapter))
    torch.testing.assert_close(lm.model(input_ids=TOKENS).logits, wanted, rtol=0, atol=0)
    assert "the weights were saved inside a wrapper" in lm.notes[0]


def test_an_adapter_may_bring_embeddings_and_old_names(adapter: Path, tmp_path: Path) -> None:
    """peft saves embeddings that were resized, tied heads too; before 0.11 DoRA's lengths had a shorter name."""
    lm = loading.load(str(adapter))
    dora = loading.add_adapters(loading.load(str(lm.model.peft_config["default"].base_model_name_or_path)).model,
                                rank=2, alpha=4, seed=0, dora=True)  # fmt: skip
    dora.save_pretrained(str(tmp_path / "dora"), save_embedding_layers=True)
    lm.tokenizer.save_pretrained(tmp_path / "dora")
    file = tmp_path / "dora" / "adapter_model.safetensors"
    assert any("embed_tokens" in name for name in load_file(file))
    assert not loading.load(str(tmp_path / "dora")).notes
    save_file(renamed(lambda name: name.replace("magnitude_vector.weight", "magnitude_vector"))(load_file(file)), file)
    assert not loading.load(str(tmp_path / "dora")).notes


def test_an_adapter_for_another_base_is_refused(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file(
        {name: torch.zeros(*weight.shape[:-1], weight.shape[-1] + 1) for name, weight in load_file(file).items()}, file
    )
    with pytest.raises(
        UserError, match=r"cannot load the adapter: size mismatch .*Is this the base that the adapter was"
    ):
        loading.load(str(adapter))
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": ["query_key_value"]}))
    with pytest.raises(
        UserError, match=r"cannot load the adapter: Target modules .*Is this the base that the adapter was"
    ):
        loading.load(str(adapter))


def test_an_adapter_with_no_number_is_told_as_such(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, file)
    with pytest.raises(UserError, match=r"one: the weights hold NaN or infinity in base_model\.\S+lora_A"):
        loading.load(str(adapter))
