"""A run leaves as a GGUF file that llama.cpp computes the same with, in every family and number format."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerBase

from luthier import export
from luthier.errors import UserError
from luthier.export.gguf import file as files
from luthier.export.gguf import types
from luthier.export.gguf.file import NewTensor
from luthier.export.gguf.types import TYPES
from luthier.export.parity.limits import LIMITS
from luthier.model import gguf as reader

from .conftest import FAMILIES, SIZES, MakeRun, noise


def exported(run: Any, out: Path, **more: Any) -> export.Report:
    _, report = export.export(run.folder, to="gguf", out=out, **{"type": "f32", **more})
    assert report is not None
    return report


SELDOM = ("mistral with wide heads", "qwen2", "phi3 with long positions")
"""Families that differ from another one in a setting or two."""


@pytest.mark.parametrize(
    "family", [pytest.param(each, marks=pytest.mark.slow) if each in SELDOM else each for each in FAMILIES]
)
def test_llama_cpp_computes_what_transformers_does(family: str, make_run: MakeRun, tmp_path: Path) -> None:
    report = exported(make_run(family), tmp_path / "it.gguf")
    assert report.faults == []
    assert report.top1["agreement"] == 1 and report.kl["mean"] < 1e-6
    assert report.template["same"] == 20 and (report.ids["texts"], report.ids["different"]) == (2000, 0)


@pytest.mark.parametrize(
    "word", ["f32", "q4_k_m", *(pytest.param(each, marks=pytest.mark.slow) for each in ("f16", "bf16", "q8_0"))]
)
def test_each_number_format_is_as_near_as_it_is_said_to_be(word: str, make_run: MakeRun, tmp_path: Path) -> None:
    report = exported(make_run(answered=True), tmp_path / "it.gguf", type=word)
    assert report.faults == [] and report.kl["mean"] <= LIMITS[word].kl
    assert report.answers["of"] == 12 and report.score["n"] == 12
    if word == "f32":
        assert report.answers["same"] == 12 and report.score["difference"] == 0
    found = json.loads((tmp_path / "it.gguf.parity.json").read_text())
    assert {"template", "ids", "top1", "kl", "answers", "score"} <= found.keys() and found["passed"]


@pytest.mark.slow
@pytest.mark.parametrize("word", [each for each in TYPES if each != "f32"])
@pytest.mark.parametrize("family", [each for each in FAMILIES if each != "llama"])
def test_each_family_is_as_near_in_each_number_format(
    family: str, word: str, make_run: MakeRun, tmp_path: Path
) -> None:
    report = exported(make_run(family, answered=True), tmp_path / "it.gguf", type=word)
    assert report.faults == []
    assert report.template["same"] == 20 and (report.ids["texts"], report.ids["different"]) == (2000, 0)
    assert report.kl["mean"] <= LIMITS[word].kl and report.answers["of"] == 12


def test_a_file_of_ours_is_read_back_as_the_same_weights(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    export.export(run.folder, to="gguf", type="f32", out=tmp_path / "it.gguf")
    model, tokenizer = reader.read(tmp_path / "it.gguf")
    original = AutoModelForCausalLM.from_pretrained(run.folder / "model")
    for name, weight in original.state_dict().items():
        assert np.array_equal(weight.numpy(), model.state_dict()[name].numpy()), name
    assert tokenizer("a 12\n\n3 b").input_ids


def test_k_quants_give_more_bits_to_what_llama_cpp_gives_more_bits_to() -> None:
    def kind(name: str, row: int) -> str:
        return types.type_of("q4_k_m", name, (8, row), blocks=30, tied=True).name

    assert [kind(f"blk.{block}.ffn_down.weight", 1536) for block in (0, 2, 3, 4, 5, 25, 26, 29)] == [
        "Q6_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q6_K", "Q6_K"
    ]  # fmt: skip
    assert [kind(f"blk.{block}.attn_v.weight", 576) for block in (0, 4)] == ["Q8_0", "Q5_0"]
    assert kind("token_embd.weight", 512) == "Q6_K" and kind("token_embd.weight", 576) == "Q8_0"
    assert kind("blk.0.attn_qkv.weight", 512) == "Q5_K" and kind("blk.0.attn_output.weight", 40) == "F16"
    assert kind("blk.0.attn_q.bias", 512) == "F32"


def test_numbers_that_f16_cannot_hold_are_refused_with_their_tensor(
    make_run: MakeRun, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = noise(LlamaConfig(**SIZES, vocab_size=len(tokenizer)))
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = 1e6
    with pytest.raises(
        UserError, match=r"blk.1.ffn_up.weight holds numbers up to 1e\+06, and f16 ends at 65,504; choose"
    ):
        export.export(make_run(model).folder, to="gguf", type="f16", out=tmp_path / "it.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"hidden_act": "gelu"}, "no place for hidden_act = gelu"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "no place for the scaling of positions",
        ),
    ],
)
def test_a_setting_without_a_place_in_the_file_is_refused(
    config: dict[str, Any], found: str, make_run: MakeRun, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    run = make_run(LlamaConfig(**SIZES, vocab_size=len(tokenizer), **config))
    with pytest.raises(UserError, match=found):
        export.export(run.folder, to="gguf", out=tmp_path / "it.gguf")


def test_a_window_shortens_the_context_to_where_it_does_not_matter(
    make_run: MakeRun, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    run = make_run(MistralConfig(**SIZES, vocab_size=len(tokenizer), sliding_window=64))
    exported(run, tmp_path / "it.gguf")
    assert files.read(tmp_path / "it.gguf").metadata["llama.context_length"] == 64


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: data[:-40], "ends [0-9,]+ bytes behind the file's end"),
        (lambda data: data[:100], "cut off or damaged|cannot hold"),
        (lambda data: b"", "does not begin with GGUF"),
        (lambda data: b"PK" + data[2:], "does not begin with GGUF"),
        (lambda data: data[:8] + (1 << 60).to_bytes(8, "little") + data[16:], "it counts [0-9,]+ tensors, which its"),
        (lambda data: data[:24] + (1 << 62).to_bytes(8, "little") + data[32:], "bytes of a setting's name, which its"),
    ],
)
def test_a_damaged_file_is_one_message(damage: Any, found: str, make_run: MakeRun, tmp_path: Path) -> None:
    run, path = make_run(), tmp_path / "it.gguf"
    files.write(path, "llama", {"a.b": [1.0, 2.0], "c": "text", "general.file_type": 0})
    exported(run, tmp_path / "whole.gguf", unchecked=True)
    path.write_bytes(damage((tmp_path / "whole.gguf").read_bytes()))
    with pytest.raises(UserError, match=f"not a whole GGUF file: .*({found})"):
        export.verify(run.folder, path)


@pytest.mark.parametrize("sizes", [(0, 4), (8, 0), (1 << 40, 4), (4096, 4096, 4096, 1 << 28)])
def test_a_tensor_whose_sizes_cannot_be_is_refused(sizes: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "it.gguf"
    files.write(path, "llama", {}, [NewTensor("x", (4, 8), types.Type.F32, lambda: [np.zeros(128, np.uint8)])])
    told, lying = (struct.pack(f"<I{len(each)}Q", len(each), *each) for each in ((8, 4), sizes))
    assert path.read_bytes().count(told) == 1
    path.write_bytes(path.read_bytes().replace(told, lying))
    with pytest.raises(
        UserError, match=r"not a whole GGUF file: the tensor x (of F32 has the sizes|ends [0-9,]+ bytes)"
    ):
        files.read(path)
