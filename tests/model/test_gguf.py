"""A GGUF file is read to the last value, or refused: the model is the one that was written, and so is its tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter, TokenType, get_tensor_name_map
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from luthier.errors import UserError
from luthier.model import gguf, loading
from luthier.model.reference import find_folder

TOKENS = torch.tensor([[3, 5, 9, 17, 200, 41]])
SIZES: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "rms_norm_eps": 1e-5,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a model and the tiny model's tokenizer as a GGUF file the way llama.cpp's converter does."""

    def write(
        model: PreTrainedModel, *, pre: str = "gpt-2", change: Callable[[GGUFWriter], object] | None = None
    ) -> Path:
        config: Any = model.config
        file, kind = tmp_path / "it.gguf", config.model_type
        writer = GGUFWriter(file, kind)
        for add, value in (
            (writer.add_context_length, config.max_position_embeddings), (writer.add_block_count, config.num_hidden_layers),
            (writer.add_embedding_length, config.hidden_size), (writer.add_feed_forward_length, config.intermediate_size),
            (writer.add_head_count, config.num_attention_heads), (writer.add_head_count_kv, config.num_key_value_heads),
            (writer.add_layer_norm_rms_eps, config.rms_norm_eps),
            (writer.add_rope_freq_base, config.rope_parameters["rope_theta"]), (writer.add_file_type, 0),
        ):  # fmt: skip
            add(value)
        if kind == "qwen3":
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
        names = get_tensor_name_map(gguf.ARCHITECTURES[kind].arch, config.num_hidden_layers)
        for name, weight in model.state_dict().items():
            theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert theirs
            if kind == "llama" and (".q_proj." in name or ".k_proj." in name):
                heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
                halves = weight.reshape(heads, 2, -1, *weight.shape[1:])  # head, half, pair, …
                weight = halves.transpose(1, 2).reshape(weight.shape)
            if not (name == "lm_head.weight" and config.tie_word_embeddings):
                writer.add_tensor(theirs, weight.contiguous().numpy())
        if config.rope_parameters["rope_type"] == "llama3":
            plain = 1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, 8, 2).float() / 8)
            writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).numpy())  # type: ignore[operator]
        add_tokenizer(writer, tiny_model, pre)
        if change:
            change(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file

    return write


def add_tokenizer(writer: GGUFWriter, folder: Path, pre: str) -> None:
    coder = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(coder["vocab"], key=coder["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if number < 3 else TokenType.NORMAL for number in range(len(tokens))])
    writer.add_token_merges([" ".join(merge) for merge in coder["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def model_of(config: Any) -> PreTrainedModel:
    """A model whose every weight is drawn: biases and norms too, that begin at 0 and 1."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return model.eval()


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES, tie_word_embeddings=True),
        LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
        LlamaConfig(**SIZES, rope_parameters=LLAMA3),
        Qwen2Config(**SIZES),
        Qwen3Config(**SIZES, head_dim=16),
    ],
    ids=["tied", "biases", "llama3 positions", "qwen2", "qwen3 with wide heads"],
)
def test_a_model_comes_out_of_a_file_as_it_went_in(write: Callable[..., Path], config: Any) -> None:
    model = model_of(config)
    lm = loading.load(str(write(model)))
    torch.testing.assert_close(lm.model(TOKENS).logits, model(TOKENS).logits, rtol=1e-4, atol=1e-5)
    assert lm.context == 512 and lm.template.stop_ids == {2}


def test_the_tokenizer_and_the_template_are_the_file_s(write: Callable[..., Path], tiny_model: Path) -> None:
    read = loading.load(str(write(model_of(LlamaConfig(**SIZES))))).tokenizer
    plain = AutoTokenizer.from_pretrained(tiny_model)
    for text in ("How do I reset my password? ÄÖ 12.50", "<|im_start|>user\nWhy?<|im_end|>\n", ""):
        assert read(text).input_ids == plain(text).input_ids
    assert read.chat_template == plain.chat_template
    assert (read.bos_token_id, read.eos_token_id, read.pad_token_id) == (1, 2, 0)


def pieces(pre: str, text: str) -> list[str]:
    """How a text is cut before anything is merged; Ġ is a space, Ċ a line break."""
    return [piece for piece, _ in gguf.PRE_TOKENIZERS[pre]().pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("pre", "text", "wanted"),
    [
        ("gpt-2", "in 2026\n\n1", ["in", "Ġ2026", "Ċ", "Ċ", "1"]),
        ("smollm", "in 2026\n\n1", ["in", "Ġ", "2", "0", "2", "6", "ĊĊ", "1"]),
        ("llama-bpe", "in 2026\n\n1", ["in", "Ġ", "202", "6", "ĊĊ", "1"]),
        ("qwen2", "in 2026\n\n1", ["in", "Ġ", "2", "0", "2", "6", "ĊĊ", "1"]),
        ("gpt-2", "I'LL say:\n(x)", ["I", "'", "LL", "Ġsay", ":", "Ċ", "(", "x", ")"]),
        ("llama-bpe", "I'LL say:\n(x)", ["I", "'LL", "Ġsay", ":Ċ", "(x", ")"]),
    ],
)
def test_text_is_cut_as_the_file_says(pre: str, text: str, wanted: list[str]) -> None:
    assert pieces(pre, text) == wanted


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda writer: writer.add_float32("llama.logit_scale", 0.5),
            r"settings that Luthier does not support: llama.logit_scale = 0.5\.",
        ),
        (lambda writer: writer.add_rope_dimension_count(4), r"llama.rope.dimension_count = 4"),
        (lambda writer: writer.add_string("llama.rope.scaling.type", "yarn"), r"llama.rope.scaling.type = yarn"),
        (lambda writer: writer.add_uint16("split.count", 2), r"one of 2 parts of a split GGUF file"),
        (lambda writer: writer.add_tensor("rope_freqs.weight", torch.ones(4).numpy() * 3), r"scaled by rope_freqs.weight in"),
        (
            lambda writer: writer.add_tensor("blk.0.attn_q.scale", torch.ones(1).numpy()),
            r"holds blk.0.attn_q.scale, which has no place. Take the model's folder with safetensors instead",
        ),
        (lambda writer: writer.add_tensor("blk.0.attn_q.bias", torch.ones(32).numpy()), r"lacks model.layers.0.self_attn.k"),
        (lambda writer: writer.tensors[0].pop("output_norm.weight"), r"lacks model.norm.weight"),
    ],
)  # fmt: skip
def test_a_file_with_more_or_less_than_is_read_is_refused(write: Callable[..., Path], change: Any, told: str) -> None:
    file = write(model_of(LlamaConfig(**SIZES)), change=change)
    with pytest.raises(UserError, match=told) as caught:
        find_folder(str(file))
    assert str(file) in str(caught.value)


def test_a_tokenizer_that_cuts_in_an_unknown_way_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(
        UserError, match=r'cuts text as "jais" \(tokenizer.ggml.pre\); Luthier knows gpt2 with gpt-2, smollm, llama'
    ):
        find_folder(str(write(model_of(LlamaConfig(**SIZES)), pre="jais")))


def test_other_files_and_other_architectures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"version https://git-lfs")
    with pytest.raises(UserError, match=r"no.gguf: not a whole GGUF file: it does not begin with GGUF"):
        find_folder(str(tmp_path / "no.gguf"))
    writer = GGUFWriter(tmp_path / "it.gguf", "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(
        UserError, match="a GGUF file of the architecture gemma3; those of llama, qwen2, qwen3 are read"
    ):
        find_folder(str(tmp_path / "it.gguf"))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-40], "not a whole GGUF file: the tensor .* behind the file's end"),
        (lambda data: data[:200], "not a whole GGUF file: .*(cut off or damaged|cannot hold)"),
        (lambda data: data[:8] + (1 << 60).to_bytes(8, "little") + data[16:], "it counts [0-9,]+ tensors, which its"),
    ],
)
def test_a_file_that_is_cut_off_or_counts_wrong_is_one_message(
    write: Callable[..., Path], damage: Callable[[bytes], bytes], told: str
) -> None:
    file = write(model_of(LlamaConfig(**SIZES)))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=told):
        find_folder(str(file))


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("llama.block_count", 1_000_000, r"states llama.block_count = 1,000,000, and has 2 blocks"),
        ("llama.feed_forward_length", 1 << 31, r"do not fit its metadata: model.layers.0.mlp.gate_proj.weight has the"),
        ("llama.attention.head_count", 0, "cannot load the GGUF file"),
        ("tokenizer.ggml.eos_token_id", 1 << 31, "cannot load the GGUF file"),
    ],
)
def test_settings_that_the_weights_contradict_are_refused_before_they_take_memory(
    write: Callable[..., Path], setting: str, value: int, told: str
) -> None:
    def change(writer: GGUFWriter) -> None:
        writer.kv_data[0][setting].value = value

    with pytest.raises(UserError, match=told):
        find_folder(str(write(model_of(LlamaConfig(**SIZES)), change=change)))


def test_a_file_is_unpacked_once_for_each_state_of_it(write: Callable[..., Path]) -> None:
    first = find_folder(str(write(model_of(LlamaConfig(**SIZES)))))
    assert find_folder(str(first.parent.parent.parent / "it.gguf")) == first
    assert find_folder(str(write(model_of(LlamaConfig(**SIZES)), pre="smollm"))) != first


@pytest.mark.slow
def test_the_model_that_comes_in_a_package_has_smollm2_s_tokenizer() -> None:
    """Ids by llama.cpp b11549, which agrees with SmolLM2's own tokenizer: digits one by one, then byte level."""
    held = {
        "In 2026, 3.14 and 1,000.": [
            788, 216, 34, 32, 34, 38, 28, 216, 35, 30, 33, 36, 284, 216, 33, 28, 32, 32, 32, 30,
        ],
        "\n\n1. First\n\n2. Second": [1116, 33, 30, 3508, 1116, 34, 30, 5665],
        "x = 42;\n\n\n\ty = 007": [104, 446, 216, 36, 34, 43, 16506, 197, 105, 446, 216, 32, 32, 39],
        " 12:30\r\n": [216, 33, 34, 42, 35, 32, 2738],
        "a  b   c1d2": [81, 216, 278, 256, 265, 33, 84, 34],
    }  # fmt: skip
    coder = Tokenizer.from_file(str(find_folder("smollm2-135m") / "tokenizer.json"))
    for text, ids in held.items():
        assert coder.encode(text, add_special_tokens=False).ids == ids, text
