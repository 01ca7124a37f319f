"""A run finds its base model again from every directory, and notices when another lies in its place."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.runs import Run

from .conftest import Command


@pytest.fixture
def run(
    luthier: Command, data: Path, quick: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An adapter whose base was named by a relative path; the directory is another by now, and the run has moved."""
    shutil.copytree(tiny_model, tmp_path / "here" / "models" / "tiny")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = ["model=models/tiny", "train.method=lora", "train.max_steps=1", "evaluate.arms=zero-shot,fine-tuned"]
    screen = luthier("run", data, *quick, *words, "--run", "r")
    assert screen.code == 0, screen.err
    assert luthier("run", data, *quick, *words, "--run", "r").code == 0
    monkeypatch.chdir(tmp_path / "there")
    (tmp_path / "here" / "r").rename("moved")
    (tmp_path / "there" / "q.jsonl").write_text('{"question": "Why?"}\n')
    return tmp_path / "there" / "moved"


def test_a_run_with_a_relative_model_answers_merges_and_goes_on_elsewhere(luthier: Command, run: Path) -> None:
    assert luthier("ask", "moved", "q.jsonl", "-o", "a.jsonl").code == 0
    assert luthier("merge", "moved", "whole").code == 0
    Run(run).update(state="interrupted")
    screen = luthier("resume", "moved")
    assert screen.code == 0, screen.err


def test_another_base_in_the_place_of_the_old_one_is_noticed(luthier: Command, run: Path) -> None:
    file = run.parent.parent / "here" / "models" / "tiny" / "model.safetensors"
    before = file.read_bytes()
    os.utime(file, ns=(1, 1))  # touched, but the same
    assert luthier("ask", "moved", "q.jsonl", "-o", "a.jsonl").code == 0
    weights = load_file(file)
    save_file({name: torch.ones_like(weight) for name, weight in weights.items()}, file, metadata={"format": "pt"})
    for words in (("ask", "moved", "q.jsonl", "-o", "b.jsonl"), ("merge", "moved", "whole"), ("chat", "moved")):
        screen = luthier(*words)
        assert screen.code == 5
        assert (
            "models/tiny is not the one that the adapter was trained beside (model.safetensors is another)"
            in screen.err
        )
    file.unlink()
    assert luthier("ask", "moved", "q.jsonl", "-o", "b.jsonl").code == 2
    file.write_bytes(before)
    assert luthier("ask", "moved", "q.jsonl", "-o", "b.jsonl").code == 0


def test_what_is_worth_telling_about_a_model_s_files_is_told(
    luthier: Command, data: Path, quick: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "wrapped"))
    weights = load_file(folder / "model.safetensors")
    wrapped = {f"_orig_mod.{name}": weight for name, weight in weights.items()}
    save_file(wrapped, folder / "model.safetensors", metadata={"format": "pt"})
    words = [*quick, f"model={folder}", "train.max_steps=1", "evaluate.arms=zero-shot,fine-tuned"]
    assert luthier("run", data, *words, "--run", tmp_path / "r").code == 0
    warnings = [event["message"] for event in Run(tmp_path / "r").events("warning")]
    assert any("_orig_mod is taken out of their names" in message for message in warnings)
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "Why?"}) + "\n")
    screen = luthier("ask", folder, tmp_path / "q.jsonl", "-o", tmp_path / "a.jsonl")
    assert "_orig_mod is taken out of their names" in screen.err


def test_a_sweep_with_a_relative_model_goes_on_elsewhere(
    luthier: Command, data: Path, quick: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_model, tmp_path / "here" / "models" / "tiny")
    monkeypatch.chdir(tmp_path / "here")
    words = [*quick, "model=models/tiny", "train.max_steps=1", "evaluate.arms=zero-shot,fine-tuned"]
    assert luthier("sweep", data, *words, "--amounts", "50,100", "--folder", tmp_path / "s").code == 0
    monkeypatch.chdir(tmp_path)
    Run(tmp_path / "s" / "points" / "50pct").update(state="interrupted")
    screen = luthier("sweep", "--folder", tmp_path / "s")
    assert screen.code == 0, screen.err
