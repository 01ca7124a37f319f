"""Similarity of meaning with a tiny encoder: the arithmetic is checked, what the encoder knows is not."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.errors import UserError
from luthier.evaluate import metrics


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a random BERT of two layers over letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "encoder"
    letters = {
        token: number for number, token in enumerate(["[PAD]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz "])
    }
    coder = Tokenizer(models.WordLevel(letters, unk_token="[PAD]"))
    coder.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    coder.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    config = BertConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=24,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=coder, pad_token="[PAD]", unk_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return folder


def test_similarity_is_the_cosine_of_mean_hidden_states(encoder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder)
    with torch.inference_mode():
        first, second = (
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in ("a cat", "the dog")
        )
    expected = torch.nn.functional.cosine_similarity(first, second, dim=0).item()
    found = metrics.resolve("similarity", settings=metrics.MetricSettings(embedder=encoder))
    assert found("a cat", "the dog") == pytest.approx(max(0, expected), abs=1e-5)
    assert found("a cat", "a cat") == pytest.approx(1)


def test_similarity_of_empty_and_of_long_texts(encoder: Path) -> None:
    found = metrics.resolve("similarity", settings=metrics.MetricSettings(embedder=encoder))
    assert (found("", " "), found("", "cat")) == (1, 0)
    assert 0 <= found("a" * 500, "cat") <= 1  # cut at what the encoder can see


def test_what_the_encoder_cannot_tell_apart_is_compared_as_it_is(encoder: Path) -> None:
    found = metrics.resolve("similarity", settings=metrics.MetricSettings(embedder=encoder))
    for one, other in (("\U0001f600", "\U0001f622"), ("<", ">"), ("a" * 40 + "b", "a" * 40 + "c")):
        assert found(one, other) == 0 and found(one, one) == 1


def test_a_folder_without_a_model_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^evaluate\.embedder: .*: no model in it; expected the folder"):
        metrics.resolve("similarity", settings=metrics.MetricSettings(embedder=tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"evaluate\.embedder: .*: cannot load the tokenizer"):
        metrics.resolve("similarity", settings=metrics.MetricSettings(embedder=tmp_path))


def test_an_encoder_that_lacks_weights_is_refused(encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    metrics.resolve("similarity", settings=metrics.MetricSettings(embedder=folder))  # it does not use the pooler
    other = Path(shutil.copytree(encoder, tmp_path / "other"))
    kept = {name: weight for name, weight in weights.items() if "layer.1." not in name}
    save_file(kept, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"evaluate.embedder: .*16 weights of the model are not in its files: encoder.layer.1"
    ):
        metrics.resolve("similarity", settings=metrics.MetricSettings(embedder=other))
