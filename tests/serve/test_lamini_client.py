"""Lamini's own clients, which live in environments of their own: `scripts/test-slow` makes that of 2.0.6."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import serving

PYTHON = "LUTHIER_LAMINI"
"""Environment variable with the Python that has the package `lamini`: 2.0.2 to 2.0.16, or 3.4.6."""
NAMES = ("EleutherAI/pythia-410m", "meta-llama/Llama-2-7b-hf")
EXAMPLES = Path(__file__).parents[2] / "examples" / "lamini"


def version() -> str:
    if PYTHON not in os.environ:
        return ""
    words = "import importlib.metadata; print(importlib.metadata.version('lamini'))"
    return subprocess.run([os.environ[PYTHON], "-c", words], capture_output=True, text=True, check=True).stdout.strip()


def run(script: str, tmp_path: Path, tiny_model: Path) -> tuple[list[str], dict[str, Any]]:
    """What a program with the client prints, and the object at its end."""
    rows = tmp_path / "rows.jsonl"
    lines = [{"question": f"What is lute {n}?", "answer": f"A lute with {n} strings."} for n in range(40)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    server = serving.start(tmp_path / "home", tmp_path, tiny_model, names=NAMES)
    try:
        done = subprocess.run(
            [os.environ[PYTHON], Path(__file__).with_name(script), server.url, serving.KEY, rows, EXAMPLES],
            capture_output=True, text=True, timeout=280, cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )  # fmt: skip
    finally:
        assert serving.stop(server) == 0
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[:-1], json.loads(done.stdout.splitlines()[-1])


def expect_results(found: dict[str, Any], tuned: str) -> None:
    """Answers to held-out questions: the tuned model's first, its base's second."""
    assert tuned.startswith("ft:EleutherAI/pythia-410m:") and isinstance(found["tuned"], str)
    for result in found["eval"]["eval_results"]:
        assert [each["model_name"] for each in result["outputs"]] == [tuned, "EleutherAI/pythia-410m"]
    assert len(found["eval"]["eval_results"]) >= 4 and found["typed"]["wood"] in (True, False)
    assert "no/such-model" in found["unknown"] and "AuthenticationError" in found["wrong_key"]
    assert "expected 10 at least" in found["two_rows"] and found["jobs"][0]["status"] == "COMPLETED"


@pytest.mark.slow
@pytest.mark.skipif(not version().startswith("2.0"), reason=f"no {PYTHON} with lamini 2.0: scripts/test-slow makes it")
def test_the_course_s_cells_run_unchanged(tmp_path: Path, tiny_model: Path) -> None:
    said, found = run("lamini_cells.py", tmp_path, tiny_model)
    assert isinstance(found["said"], str) and len(found["many"]) == 23
    assert any(
        line.startswith("Finetuning process completed, model name is: ft:EleutherAI/pythia-410m:") for line in said
    )
    expect_results(found, found["tuned_name"])
    assert isinstance(found["old"], str) and "make no embeddings" in found["embedding"]


@pytest.mark.slow
@pytest.mark.skipif(not version().startswith("3.4"), reason=f"no {PYTHON} with lamini 3.4")
def test_the_last_client_tunes_streams_and_evaluates(tmp_path: Path, tiny_model: Path) -> None:
    _, found = run("lamini_3_cells.py", tmp_path, tiny_model)
    expect_results(found, found["job"]["model_name"])
    assert found["parts"][-1]["finish_reason"] == ["length"] and len(found["parts"][-1]["outputs"]) == 1
    assert found["dataset"].startswith("file-")
