"""An exported folder is held against its run too: weights, settings, ids, template and answers; a fault in any is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from luthier import export
from luthier.cli.export import show
from luthier.errors import UserError

from .conftest import MakeRun


def changed_tensor(name: str, times: float) -> Callable[[Path], object]:
    """Multiplies a weight of the folder."""

    def change(folder: Path) -> None:
        path = next(folder.glob("*.safetensors"))
        tensors = load_file(path)
        key = next(key for key in tensors if name in key)
        tensors[key] = tensors[key] * times
        save_file(tensors, path, {"format": "pt"})

    return change


def changed_text(file: str, old: str, new: str) -> Callable[[Path], object]:
    """Replaces text in a file of the folder."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


def test_each_kind_of_folder_is_the_run_s_model(make_run: MakeRun, adapter_run: Any, tmp_path: Path) -> None:
    whole = make_run(name="whole", answered=True)
    for number, (run, kind) in enumerate(((whole, "merged"), (adapter_run, "merged"), (adapter_run, "adapter"))):
        folder = tmp_path / f"f{number}"
        export.export(run.folder, to=kind, out=folder)
        report = export.verify(run.folder, folder)
        assert report.faults == [] and report.template["same"] == 20 and report.ids["different"] == 0
        assert report.top1["agreement"] == 1 and report.kl["mean"] < 1e-9
        assert json.loads((tmp_path / f"f{number}.parity.json").read_text())["passed"] is True
    first = json.loads((tmp_path / "f0.parity.json").read_text())
    assert first["answers"]["same"] == first["answers"]["of"] == 12 and first["score"]["difference"] == 0


@pytest.mark.parametrize(
    ("kind", "change", "fault"),
    [
        ("merged", changed_tensor("q_proj", 1.5), "tensor model.layers.0.self_attn.q_proj.weight is another"),
        ("adapter", changed_tensor("lora_B", 1.01), "tensor base_model.model.model.layers.0."),
        ("adapter", changed_text("adapter_config.json", '"lora_alpha": 8', '"lora_alpha": 16'), "setting lora_alpha is 16,"),
        ("vllm", changed_text("chat_template.jinja", "assistant\n", "assistant"), "template: byte "),
        ("merged", changed_text("tokenizer.json", '"add_prefix_space": false', '"add_prefix_space": true'), "ids: text "),
    ],
)  # fmt: skip
def test_a_fault_in_a_folder_is_named(
    kind: str, change: Callable[[Path], object], fault: str, adapter_run: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    export.export(adapter_run.folder, to=kind, out=tmp_path / "f")
    change(tmp_path / "f")
    with pytest.raises(SystemExit) as ended:
        show(export.verify(adapter_run.folder, tmp_path / "f"))
    assert ended.value.code == 1
    report = json.loads((tmp_path / "f.parity.json").read_text())
    assert report["faults"][0].startswith(fault), report["faults"]
    assert "NOT the same model" in " ".join(capsys.readouterr().out.split())


def test_an_adapter_beside_another_base_is_named(adapter_run: Any, make_run: MakeRun, tmp_path: Path) -> None:
    export.export(adapter_run.folder, to="adapter", out=tmp_path / "a")
    other = tmp_path / "other"
    export.export(make_run(name="other run").folder, to="merged", out=other)
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(other)}))
    faults = export.verify(adapter_run.folder, tmp_path / "a").faults
    assert faults[0].startswith("setting base_model_name_or_path leads to another base model"), faults


def test_a_folder_that_is_no_export_of_the_run_is_refused(make_run: MakeRun, adapter_run: Any, tmp_path: Path) -> None:
    export.export(adapter_run.folder, to="adapter", out=tmp_path / "a")
    with pytest.raises(UserError, match="this folder is an adapter, and the run's model is a whole one"):
        export.verify(make_run(name="whole").folder, tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"not a Hugging Face model: it has no config.json"):
        export.verify(adapter_run.folder, tmp_path / "empty")
