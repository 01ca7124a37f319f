"""What leaves besides GGUF, and what is refused before anything is written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MambaConfig, PreTrainedTokenizerBase

from luthier import export
from luthier.errors import MachineError, UserError
from luthier.export.exporters import Artefact, Options
from luthier.export.source import Source
from luthier.model import loading

from .conftest import SIZES, MakeRun, noise


def own(source: Source, options: Options) -> Artefact:
    """A user's exporter."""
    assert options.out
    options.out.write_text(f"{source.run.name} {options.type}")
    return Artefact(options.out)


def test_an_adapter_is_merged_into_the_file(adapter_run: Any, tmp_path: Path) -> None:
    _, report = export.export(adapter_run.folder, to="gguf", type="f32", out=tmp_path / "it.gguf")
    assert report and report.faults == [] and report.top1["agreement"] == 1


def test_an_adapter_leaves_with_the_path_of_its_base(adapter_run: Any, tiny_model: Path, tmp_path: Path) -> None:
    export.export(adapter_run.folder, to="adapter", out=tmp_path / "a")
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tiny_model)
    lm, again = loading.load(str(adapter_run.folder)), loading.load(str(tmp_path / "a"))
    ids = torch.tensor([[5, 9, 30]])
    assert torch.equal(lm.model(ids).logits, again.model(ids).logits)
    assert "This folder holds the adapter alone" in (tmp_path / "a" / "README.md").read_text()


def test_a_whole_model_and_a_merged_one_are_plain_folders(make_run: MakeRun, adapter_run: Any, tmp_path: Path) -> None:
    ids = torch.tensor([[5, 9, 30]])
    for number, run in enumerate((make_run(name="whole"), adapter_run)):
        export.export(run.folder, to="merged", out=tmp_path / f"m{number}")
        wanted = loading.load(str(run.folder)).model(ids).logits
        assert torch.allclose(
            AutoModelForCausalLM.from_pretrained(tmp_path / f"m{number}")(ids).logits, wanted, atol=1e-5
        )
        assert "## Where it comes from" in (tmp_path / f"m{number}" / "README.md").read_text()


def test_a_dotted_name_reaches_an_exporter_of_the_user(make_run: MakeRun, tmp_path: Path) -> None:
    artefact, report = export.export(make_run().folder, to=f"{__name__}:own", type="any", out=tmp_path / "x")
    assert artefact.path.read_text() == "run any" and report is None


def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    make_run: MakeRun, adapter_run: Any, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    whole = make_run(name="whole")
    (tmp_path / "there.gguf").write_text("mine")
    mamba = make_run(noise(MambaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1)), name="mamba")
    for run, asked, found in (
        (whole, {"to": "gguff"}, 'unknown export "gguff", did you mean "gguf"'),
        (whole, {"to": "gguf", "type": "q4_k_n"}, 'unknown number format "q4_k_n", did you mean "q4_k_m"'),
        (whole, {"to": "merged", "type": "f16"}, "--type: has no meaning with --to merged"),
        (whole, {"to": "gguf", "out": tmp_path / "there.gguf"}, "already exists; name another file"),
        (whole, {"to": "gguf", "out": tmp_path / "no" / "x.gguf"}, "there is no such folder to write to"),
        (whole, {"to": "adapter"}, "the run's model is a whole one"),
        (mamba, {"to": "gguf"}, 'the architecture "mamba" cannot be written as GGUF and checked'),
    ):
        with pytest.raises(UserError, match=found):
            export.export(run.folder, **{"out": tmp_path / "new", **asked})
    assert (tmp_path / "there.gguf").read_text() == "mine"
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*.tmp"))


def test_a_run_without_a_model_and_an_adapter_without_its_base_are_refused(
    make_run: MakeRun, adapter_run: Any, tmp_path: Path
) -> None:
    settings = adapter_run.folder / "model" / "adapter_config.json"
    gone = json.loads(settings.read_text()) | {"base_model_name_or_path": str(tmp_path / "gone")}
    settings.write_text(json.dumps(gone))
    with pytest.raises(UserError, match="the adapter's base model cannot be used"):
        export.export(adapter_run.folder, to="gguf", out=tmp_path / "x")
    run = make_run(name="other")
    (run.folder / "model").rename(tmp_path / "away")
    with pytest.raises(UserError, match="this run has no model yet"):
        export.export(run.folder, to="gguf", out=tmp_path / "x")


def test_a_full_disk_leaves_no_file(make_run: MakeRun, tokenizer: PreTrainedTokenizerBase, small_disk: Path) -> None:
    run = make_run(LlamaConfig(**{**SIZES, "hidden_size": 256}, vocab_size=len(tokenizer)))
    with pytest.raises(MachineError, match="the disk is full: the file"):
        export.export(run.folder, to="gguf", type="f32", out=small_disk / "x.gguf")
    assert not list(small_disk.iterdir())
