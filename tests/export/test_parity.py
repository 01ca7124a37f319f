"""A fault in any layer of an exported file is found, and named with its layer."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

import tiny_tokenizers
from conftest import CHATML
from luthier import export
from luthier.chat import Conversation, Message
from luthier.cli.export import show
from luthier.data.dataset import Item
from luthier.engine.llama_cpp import LlamaCpp
from luthier.errors import MachineError, UserError
from luthier.export.gguf import file as files
from luthier.export.gguf.file import NewTensor
from luthier.export.parity.limits import EXACT, LIMITS, fewest_same
from luthier.export.parity.report import Report

from .conftest import MakeRun

Numbers = np.ndarray[Any, np.dtype[np.float32]]
BEGUN = "{{ bos_token }}" + CHATML


def rewritten(
    path: Path,
    *,
    settings: dict[str, Any] | None = None,
    tensors: dict[str, Callable[[Numbers], Numbers]] | None = None,
) -> None:
    """Write an f32 file anew with other settings (None takes one away) and other numbers."""
    file = files.read(path)
    changed = {key: value for key, value in {**file.metadata, **(settings or {})}.items() if value is not None}
    arch = changed.pop("general.architecture")

    def pieces(name: str) -> list[Any]:
        change = (tensors or {}).get(name, lambda numbers: numbers)
        return [np.ascontiguousarray(change(file.numbers(name))).view(np.uint8)]

    tensors_of = [NewTensor(one.name, one.shape, one.kind, partial(pieces, one.name)) for one in file.tensors.values()]
    files.write(path, arch, changed, tensors_of)


def in_halves(rows: Numbers) -> Numbers:
    """Queries in transformers' order, as a converter leaves them that forgets to reorder them."""
    return rows.reshape(4, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def beginning_with_bos() -> PreTrainedTokenizerBase:
    """A byte-level tokenizer that puts BOS before a text, as Llama 3's does, with a template that does so too."""
    coder = tiny_tokenizers.tokenizer_for(BEGUN, "gpt2", eos="<|im_end|>")
    bos = tiny_tokenizers.BOS
    coder.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, coder.convert_tokens_to_ids(bos))]
    )
    return coder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": {"tokenizer.ggml.pre": "llama-bpe"}}, ["setting tokenizer.ggml.pre", "ids: text "]),
        ({"settings": {"tokenizer.ggml.add_bos_token": None}}, ["setting tokenizer.ggml.add_bos_token", "ids: text "]),
        ({"tensors": {"blk.1.attn_q.weight": in_halves}}, ["tensor blk.1.attn_q.weight is another", "kl: "]),
        (
            {"settings": {"tokenizer.chat_template": BEGUN.partition("{% if add_generation_prompt %}")[0]}},
            ["setting tokenizer.chat_template differs at byte ", "template: byte "],
        ),
        (
            {"settings": {"llama.rope.freq_base": 5e5}},
            ["setting llama.rope.freq_base is 500000.0, expected 10000.0", "kl: "],
        ),
    ],
)
def test_a_fault_is_named_with_its_layer(change: Any, named: list[str], make_run: MakeRun, tmp_path: Path) -> None:
    run, path = make_run(own=beginning_with_bos()), tmp_path / "it.gguf"
    _, sound = export.export(run.folder, to="gguf", type="f32", out=path)
    assert sound and sound.passed
    rewritten(path, **change)
    faults = export.verify(run.folder, path).faults
    assert [word for word in named if not any(fault.startswith(word) for fault in faults)] == []


def adapted(tiny_model: Path, **more: Any) -> Any:
    """The tiny model with an adapter of peft's, whose second halves are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = LoraConfig(
            **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **more}
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), settings)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.parametrize(
    "kind",
    [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3, "down_proj": 20}, "rank_pattern": {"k_proj": 2}}],
    ids=["lora", "rslora", "patterns"],
)
def test_an_adapter_has_its_scale_in_llama_cpp(kind: Any, make_run: MakeRun, tiny_model: Path, tmp_path: Path) -> None:
    run, path = make_run(adapted(tiny_model, **kind)), tmp_path / "a.gguf"
    _, report = export.export(run.folder, to="gguf-adapter", out=path)
    assert report and report.faults == [] and report.top1["agreement"] == 1
    if kind:
        return
    rewritten(path, settings={"adapter.lora.alpha": 2 * files.read(path).metadata["adapter.lora.alpha"]})
    faults = export.verify(run.folder, path).faults
    assert "tensor blk.0.attn_k.weight gets 2 times what the run's adapter adds (adapter.lora.alpha is 16)" in faults


@pytest.mark.filterwarnings("ignore")  # peft's, about what is refused here
@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ({"use_dora": True}, r"no place for DoRA's magnitudes .*lora_magnitude_vector.* Export the merged model"),
        ({"modules_to_save": ["embed_tokens"]}, "no place for (a weight beside its pairs of matrices|a module)"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "no place for a weight beside its pairs of matrices"),
        ({"lora_bias": True}, "no place for biases of the adapter's own"),
    ],
)
def test_what_a_gguf_adapter_cannot_hold_is_refused(
    kind: Any, found: str, make_run: MakeRun, tiny_model: Path, tmp_path: Path
) -> None:
    run = make_run(adapted(tiny_model, **kind))
    with pytest.raises(UserError, match=found):
        export.export(run.folder, to="gguf-adapter", out=tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_a_tokenizer_that_gguf_cannot_express_is_refused_with_a_text(
    make_run: MakeRun, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    odd = pre_tokenizers.Split(Regex("[aeiou]"), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([odd, byte_level])
    run = make_run()
    with pytest.raises(
        UserError, match=r"GGUF cannot express the tokenizer: .* of 400 texts are cut otherwise; ids: text \d+ \("
    ):
        export.export(run.folder, to="gguf", out=tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()
    _, report = export.export(run.folder, to="gguf", type="f32", out=tmp_path / "x.gguf", unchecked=True)
    assert report and report.unchecked and not report.passed and report.ids["different"] > 0


@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
def test_tokenizers_of_other_kinds_are_expressed(kind: Any, make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(own=tiny_tokenizers.tokenizer_for(BEGUN if kind == "metaspace" else CHATML, kind, eos="<|im_end|>"))
    _, report = export.export(run.folder, to="gguf", type="f32", out=tmp_path / "x.gguf")
    assert report and report.faults == []


def test_system_messages_that_llama_cpp_merges_otherwise_are_a_fault_only_where_rows_have_them(
    make_run: MakeRun, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    )
    row = Item(
        "1",
        "d:1",
        "1",
        Conversation((Message("system", "Be brief."), Message("user", "Why?"), Message("assistant", "So."))),
    )
    for rows, passed in ((None, True), ([row], False)):
        run = make_run(name=f"run{passed}", **({"rows": rows} if rows else {}))
        _, report = export.export(run.folder, to="gguf", type="f32", out=tmp_path / f"{passed}.gguf")
        assert report and report.passed is passed, report.faults
        assert any("no place for a system message" in each for each in report.notes) is passed


def test_llama_cpp_that_ends_by_itself_is_a_message_and_takes_nobody_along(make_run: MakeRun, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    export.export(make_run().folder, to="gguf", type="f32", out=path)
    with LlamaCpp(path, context=256) as llama:
        assert len(llama.tokenize(["a b"])[0]) > 0
        with pytest.raises(UserError, match=r"llama\.cpp refuses: 300 tokens, and the context was opened with 256"):
            llama.logits([1] * 300)
        llama._process.kill()  # type: ignore[union-attr]
        with pytest.raises(MachineError, match=r"llama.cpp ended by itself \(exit code -9\)"):
            llama.tokenize(["a"])
    with LlamaCpp(path, context=256) as llama:
        process = llama._process
        assert process is None  # nothing starts before the first question


def test_a_file_of_another_model_is_named_and_not_run(make_run: MakeRun, tmp_path: Path) -> None:
    run, path = make_run(), tmp_path / "x.gguf"
    other = make_run(own=tiny_tokenizers.tokenizer_for(CHATML, "byte-level", eos="<|im_end|>"), name="other")
    export.export(other.folder, to="gguf", type="f32", out=path)
    faults = export.verify(run.folder, path).faults
    assert any(fault.startswith("setting llama.vocab_size is ") for fault in faults), faults
    assert any(fault.startswith("tensor token_embd.weight has the sizes ") for fault in faults)


def test_a_file_that_llama_cpp_does_not_load_is_named_with_its_cause(make_run: MakeRun, tmp_path: Path) -> None:
    run, path = make_run(), tmp_path / "x.gguf"
    export.export(run.folder, to="gguf", type="f32", out=path)
    rewritten(path, settings={"tokenizer.ggml.pre": "no-such-rule", "llama.attention.head_count": None})
    report = export.verify(run.folder, path)
    assert "setting tokenizer.ggml.pre " in "\n".join(report.faults)
    assert "setting llama.attention.head_count is missing, expected 4" in report.faults
    assert report.faults[-1].startswith("llama.cpp refuses: ") and report.score == {
        "skipped": "llama.cpp does not run the file"
    }
    rewritten(path, settings={"llama.context_length": "many"})
    assert "setting llama.context_length is 'many', expected 512" in export.verify(run.folder, path).faults


@pytest.mark.parametrize("odd", ["{{ 'Ab'.swapcase() }}", "{{ 'a b' | wordcount }}"])
def test_a_template_that_llama_cpp_renders_otherwise_is_named_with_the_byte(
    odd: str, make_run: MakeRun, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.chat_template = odd + CHATML
    _, report = export.export(make_run().folder, to="gguf", type="f32", out=tmp_path / "x.gguf")
    assert report and not report.passed and report.faults[0].startswith("template: byte 0 of "), report.faults


def test_the_limits_hold_for_every_measured_file_of_the_documents() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8").splitlines()
        if "20 of 20" in line
    ]
    assert {row[1] for row in rows} == set(LIMITS)
    for method, word, _, _, top1, kl, answers, *_ in rows:
        same, of = map(int, answers.split(" of "))
        limits = LIMITS[word]
        assert float(top1.rstrip("%")) / 100 >= limits.top1 and float(kl) <= limits.kl, (method, word)
        assert same >= fewest_same(limits, of, exact=word == EXACT), (method, word)


def test_a_file_that_is_not_the_run_ends_the_command_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("run", "x.gguf", "f16", "llama.cpp", LIMITS["f16"])
    report.stop("llama.cpp refuses: it")
    with pytest.raises(SystemExit) as ended:
        show(report)
    assert ended.value.code == 1
    shown = capsys.readouterr().out
    assert "NOT the same model" in shown and "llama.cpp refuses: it" in shown and "top-1 at least 98.0%" in shown
