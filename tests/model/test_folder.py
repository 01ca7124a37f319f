"""What a folder that cannot be used gets: one message each, which says what is the matter and what would do."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from luthier.errors import UserError
from luthier.model import folder as folders
from luthier.model import loading
from luthier.model.reference import ModelReference

Change = Callable[[Path], object]
SUPPORTED = "Luthier works with language models that write from left to right"


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def config(**changes: object) -> Change:
    """config.json with these fields; None takes one away."""

    def change(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text()) | changes
        kept = {key: value for key, value in settings.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def write(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def only(name: str, text: str) -> Change:
    """A folder with nothing in it but this file."""

    def change(folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()
        (folder / name).write_text(text)

    return change


def one_token_more(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["unheard"] = 384
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def in_parts(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
UNUSABLE: dict[str, tuple[Change, str]] = {
    "git lfs weights": (write("model.safetensors", POINTER), "model.safetensors is a Git LFS pointer.*`git lfs pull`"),
    "git lfs tokenizer": (write("tokenizer.json", POINTER), "tokenizer.json is a Git LFS pointer.*`git lfs pull`"),
    "unknown architecture": (
        config(model_type="lama"),
        r'transformers [\d.]+ does not know the architecture "lama" \(model_type in config.json\), did you mean "llama"\?',
    ),
    "no architecture": (config(model_type=None), f"config.json names no architecture .*{SUPPORTED}"),
    "bert": (config(model_type="bert"), rf"an encoder \(bert\), which reads text and writes none. {SUPPORTED}"),
    "t5": (config(model_type="t5", is_encoder_decoder=True), rf"an encoder with a decoder \(t5\). {SUPPORTED}"),
    "bart": (config(model_type="bart"), rf"an encoder with a decoder \(bart\). {SUPPORTED}"),
    "images": (config(model_type="vit"), f"transformers has no causal language model of the kind vit. {SUPPORTED}"),
    "gptq": (config(quantization_config={"quant_method": "gptq", "bits": 4}), r"weights are quantised \(gptq\).*qlora reads"),
    "awq": (config(quantization_config={"quant_method": "awq"}), r"weights are quantised \(awq\).*original weights"),
    "fp8": (config(text_config={"quantization_config": {"quant_method": "fp8"}}), r"weights are quantised \(fp8\)"),
    "other sizes": (config(intermediate_size=48), r"do not fit config.json: \S+ is 32 × 64 in the file, 32 × 48 by"),
    "impossible sizes": (config(hidden_size=33), "cannot load the model: .*hidden.size"),
    "words for numbers": (config(hidden_size="many"), "cannot load the (model|configuration): .*hidden_size"),
    "not an object": (write("config.json", "[]"), "config.json: expected a JSON object"),
    "broken configuration": (write("config.json", "{"), "config.json: not valid JSON"),
    "broken tokenizer": (write("tokenizer.json", '{"model": {}}'), "cannot load the tokenizer"),
    "a token too many": (one_token_more, 'has 384 embeddings, and the tokenizer\'s token "unheard" is number 384: they do not'),
    "a part is missing": (in_parts, "1 of 2 files of weights are not there: model-00002-of-00002.safetensors"),
    "diffusers": (only("model_index.json", "{}"), f"a pipeline of the library diffusers, which makes images. {SUPPORTED}"),
    "gguf in a folder": (only("tiny.gguf", ""), r"it has no config.json. To use its GGUF file, name that: model=.*tiny.gguf"),
    "nameless adapter": (only("adapter_config.json", "{}"), r"does not name the adapter's base model"),
    "soft prompt": (
        only("adapter_config.json", '{"base_model_name_or_path": "x", "peft_type": "PROMPT_TUNING"}'),
        "an adapter of the kind PROMPT_TUNING; Luthier uses those that change weights, such as LORA",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_folder_that_cannot_be_used_gets_one_message(copy: Path, kind: str) -> None:
    change, told = UNUSABLE[kind]
    change(copy)
    with pytest.raises(UserError, match=told) as caught:
        loading.load(str(copy))
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("kind", ["words for numbers", "broken tokenizer", "a token too many"])
def test_the_same_is_said_before_anything_is_trained(copy: Path, kind: str) -> None:
    change, told = UNUSABLE[kind]
    change(copy)
    with pytest.raises(UserError, match=told):
        ModelReference.of(str(copy)).template()


def test_weights_in_4_bits_need_their_package(copy: Path) -> None:
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("it is there")
    config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})(copy)
    with pytest.raises(
        UserError, match=r"needs the package bitsandbytes, which is not installed: pip install 'luthier\[quan"
    ):
        loading.load(str(copy))


def test_a_tokenizer_of_sentencepiece_alone_needs_two_packages(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_is_installed", lambda module: False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    (copy / "tokenizer.model").write_bytes(b"\n\x0c\n\x05<unk>")
    with pytest.raises(UserError, match=r"SentencePiece's file only .*: pip install sentencepiece protobuf"):
        loading.load(str(copy))


def test_an_added_token_that_nothing_can_write_does_no_harm(copy: Path) -> None:
    tokenizer = loading.load(str(copy)).tokenizer
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(copy)
    assert len(loading.load(str(copy)).tokenizer) == 385


def test_an_added_token_of_the_template_needs_an_embedding(copy: Path) -> None:
    tokenizer = loading.load(str(copy)).tokenizer
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.chat_template = "<image>" + str(tokenizer.chat_template)
    tokenizer.save_pretrained(copy)
    with pytest.raises(UserError, match='token "<image>" is number 384'):
        loading.load(str(copy))


SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("kind", "text"),
    [("gemma3", "text_config"), ("llama4", "text_config"), ("qwen3_5", "text_config"), ("mistral3", "text_config"),
     ("gemma3n", "text_config"), ("llama", None), ("gpt2", None)],
)  # fmt: skip
def test_the_context_is_the_text_model_s(kind: str, text: str | None) -> None:
    limit = {"max_position_embeddings": 12_345}
    assert folders.context_of(AutoConfig.for_model(kind, **({text: SIZES | limit} if text else limit))) == 12_345


def test_a_model_without_a_limit_is_given_one() -> None:
    assert folders.context_of(AutoConfig.for_model("mamba")) == 2048
    assert folders.context_of(AutoConfig.for_model("mpt", max_seq_len=777)) == 777


def test_a_loaded_model_knows_the_context_of_its_text_model(mamba: Any, tiny_model: Path) -> None:
    assert loading.load(str(tiny_model)).context == 512
    assert ModelReference.of(str(tiny_model)).context == 512


@pytest.mark.parametrize(("written", "ends"), [(5, {5}), ([5, 2], {2, 5}), (None, set()), ("x", set())])
def test_the_ends_of_generation_config_are_read(tmp_path: Path, written: object, ends: set[int]) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": written}))
    assert folders.end_ids(tmp_path) == ends
    assert folders.end_ids(tmp_path / "none") == set()
