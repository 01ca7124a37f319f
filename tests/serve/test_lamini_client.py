"""The course's cells with Lamini's own client, which lives in an environment of its own: `scripts/test-slow` makes it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import serving

PYTHON = "LUTHIER_LAMINI"
"""Environment variable with the Python that has the package `lamini`, 2.0.6."""
NAMES = ("EleutherAI/pythia-410m", "meta-llama/Llama-2-7b-hf")


@pytest.mark.slow
@pytest.mark.skipif(PYTHON not in os.environ, reason=f"no {PYTHON}: scripts/test-slow makes it")
def test_the_course_s_cells_run_unchanged(tmp_path: Path, tiny_model: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [{"question": f"What is lute {n}?", "answer": f"A lute with {n} strings."} for n in range(40)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    server = serving.start(tmp_path / "home", tmp_path, tiny_model, names=NAMES)
    try:
        done = subprocess.run(
            [os.environ[PYTHON], Path(__file__).with_name("lamini_cells.py"), server.url, serving.KEY, rows],
            capture_output=True, text=True, timeout=280, cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )  # fmt: skip
    finally:
        assert serving.stop(server) == 0
    assert done.returncode == 0, done.stderr
    said, found = done.stdout.splitlines()[:-1], json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found["said"], str) and len(found["many"]) == 23
    assert any(
        line.startswith("Finetuning process completed, model name is: ft:EleutherAI/pythia-410m:") for line in said
    )
    assert found["tuned_name"].startswith("ft:EleutherAI/pythia-410m:") and isinstance(found["tuned"], str)
    for result in found["eval"]["eval_results"]:
        assert [each["model_name"] for each in result["outputs"]] == [found["tuned_name"], "EleutherAI/pythia-410m"]
    assert len(found["eval"]["eval_results"]) >= 4 and found["typed"]["wood"] in (True, False)
    assert "no/such-model" in found["unknown"] and "AuthenticationError" in found["wrong_key"]
