"""What a plan tries before it tells the time: little, whatever the training will do."""

import json
from pathlib import Path
from typing import Any

import pytest

from luthier import recipe as recipes
from luthier.model import loading, reference
from luthier.pipeline import estimate
from luthier.recipe import Recipe
from luthier.train import loop


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_a_plan_tries_steps_of_two_batches_and_no_more_rows_than_these_take(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    rows = [{"prompt": f"{n}?", "chosen": f"{n}.", "rejected": "No."} for n in range(400)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tried: dict[str, Any] = {}
    train = loop.train

    def watched(model: Any, learnt: Any, looked_at: Any, settings: Any, **rest: Any) -> loop.Outcome:
        tried.update(tokens=sum(learnt.lengths), looked_at=sum(looked_at.lengths), step=settings.tokens_per_step)
        return train(model, learnt, looked_at, settings, **rest)

    monkeypatch.setattr(loop, "train", watched)
    monkeypatch.chdir(tmp_path)
    values = {
        "model": str(tiny_model), "data.path": tmp_path / "d.jsonl", "train.precision": "fp32", "evaluate.guards": [],
        "train.tokens_per_step": 4096, "train.tokens_per_batch": 128, "train.objective": objective,
    }  # fmt: skip
    found = estimate.training(recipes.replace(Recipe(), values))
    assert tried["step"] == 256 and tried["tokens"] < 3 * 256 + 32 and tried["looked_at"] < 2 * 128 + 32
    assert found.trial and found.trial.forecast.steps > 0 and found.trial.forecast.validation > 0


@pytest.mark.parametrize("adapter", [False, True])
def test_planning_and_trying_steps_look_a_model_up_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: bool
) -> None:
    (tmp_path / "d.jsonl").write_text("".join(f'{{"question": "{n}?", "answer": "{n}."}}\n' for n in range(60)))
    if adapter:
        base = loading.load(str(tiny_model))
        adapted = loading.add_adapters(base.model, rank=2, alpha=4, seed=0)
        loading.save(adapted, base.tokenizer, base.template, tmp_path / "adapter", {})
    name = str(tmp_path / "adapter" if adapter else tiny_model)
    looked_up: list[str] = []
    find_folder = reference.find_folder

    def counted(name: str, **how: bool) -> Path:
        looked_up.append(name)
        return find_folder(name, **how)

    monkeypatch.setattr(reference, "find_folder", counted)
    monkeypatch.chdir(tmp_path)
    values = {"model": name, "data.path": tmp_path / "d.jsonl", "train.precision": "fp32", "evaluate.guards": []}
    assert estimate.training(recipes.replace(Recipe(), values)).trial
    assert looked_up == ([name, str(tiny_model)] if adapter else [name])
