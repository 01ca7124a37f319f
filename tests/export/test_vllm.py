"""What vLLM serves: adapters of the kinds that its loader takes, everything else merged, with the reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from luthier import export
from luthier.export import vllm
from luthier.export.source import Source

PLAIN = {"peft_type": "LORA", "r": 16, "bias": "none", "use_rslora": True}


def test_an_adapter_leaves_with_its_template_and_the_line(adapter_run: Any, tiny_model: Path, tmp_path: Path) -> None:
    artefact, report = export.export(adapter_run.folder, to="vllm", out=tmp_path / "v")
    settings = json.loads((tmp_path / "v" / "adapter_config.json").read_text())
    assert artefact.serve == (
        f"vllm serve {tiny_model} --enable-lora --lora-modules {adapter_run.name}={tmp_path / 'v'} "
        f"--max-lora-rank {next(size for size in vllm.RANKS if size >= settings['r'])} "
        f"--chat-template {tmp_path / 'v' / 'chat_template.jinja'}"
    )
    assert (tmp_path / "v" / "chat_template.jinja").is_file() and (tmp_path / "v" / "README.md").is_file()
    assert report is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"use_dora": True}, "DoRA is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules that were trained whole are not supported"),
        ({"bias": "all"}, "biases are not supported"),
        ({"alpha_pattern": {"q_proj": 4}}, "ranks and alphas by pattern are not read"),
        ({"r": 1024}, "its rank is 1024, at most 512 can be served"),
        ({"peft_type": "IA3"}, "its kind is IA3, not LORA"),
        ({"trainable_token_indices": [3]}, "trained tokens are not supported"),
        ({}, None),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_the_loader_refuses_is_named(
    adapter_run: Any, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], reason: str | None
) -> None:
    source = Source.of(adapter_run)
    (source.reference.folder / "adapter_config.json").write_text(json.dumps({**PLAIN, **changed}))
    fit = vllm.Fit.of(source)
    assert fit.as_adapter == (reason is None) and fit.reasons == ((reason,) if reason else ())


def test_a_whole_model_is_served_as_it_is(make_run: Any, tmp_path: Path) -> None:
    artefact, _ = export.export(make_run().folder, to="vllm", out=tmp_path / "w")
    assert artefact.serve and artefact.serve.startswith(f"vllm serve {tmp_path / 'w'} --served-model-name ")
    assert (tmp_path / "w" / "model.safetensors").is_file()
