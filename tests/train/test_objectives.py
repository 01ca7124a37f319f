"""Objectives are their papers' formulas, and preferences that are learnt show on pairs that were not."""

import math
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.errors import Interrupted, UserError
from luthier.model import methods
from luthier.recipe import Train
from luthier.train import loop, objectives
from luthier.train.objectives import Preferences
from token_rows import Row


class Answered(list[tuple[Row, Row]]):
    """Pairs: after a question, the chosen answer counts up and the rejected one counts down."""

    @property
    def lengths(self) -> list[int]:
        return [len(chosen.ids) for chosen, _ in self]

    def __getitem__(self, number: int) -> Row:  # type: ignore[override]
        return super().__getitem__(number)[0]

    def rejected(self, number: int) -> Row:
        return super().__getitem__(number)[1]

    def location(self, number: int) -> str:
        return f"pairs.jsonl:{number + 1}"


def pairs(number: int, *, seed: int = 0) -> Answered:
    generator = np.random.default_rng(seed)
    found = Answered()
    for length, other, start in zip(*(generator.integers(low, 12, number) for low in (5, 5, 0)), strict=True):
        first = 100 + 7 * start
        up, down = first + 3 * np.arange(length), first - 3 * np.arange(other)
        found.append((Row(up, np.arange(length) >= 2), Row(down, np.arange(other) >= 2)))
    return found


def settings(**changes: object) -> Train:
    values: dict[str, Any] = {
        "objective": "dpo", "epochs": 1, "max_steps": 12, "learning_rate": 3e-3, "warmup_steps": 2, "patience": 9,
        "tokens_per_step": 256, "tokens_per_batch": 128, "check_every": 4, "precision": "fp32", "dpo_beta": 0.3,
    }  # fmt: skip
    return Train(**(values | changes))


@pytest.fixture
def model(tiny_model: Path) -> Iterator[Any]:
    yield AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


def log_likelihood(model: Any, row: Row) -> torch.Tensor:
    """Token by token, from transformers' own scores."""
    scores = torch.log_softmax(model(input_ids=torch.tensor(row.ids)[None]).logits[0], dim=-1)
    return sum((scores[at - 1, row.ids[at]] for at in range(1, len(row.ids)) if row.loss_mask[at]), torch.zeros(()))


def test_a_fresh_model_prefers_nothing(model: Any, tmp_path: Path) -> None:
    objective = Preferences(model, settings(), tmp_path)
    measured = objective.measure(model, objective.prepare_rows(pairs(5), "train"), range(5))
    assert measured.count == 5
    assert measured.total.item() == pytest.approx(5 * math.log(2), rel=1e-5)
    assert measured.figures["margin"].item() == pytest.approx(0.0, abs=1e-4)


def test_loss_gradients_and_margin_are_those_of_the_formula(model: Any, tmp_path: Path) -> None:
    objective = Preferences(model, settings(), tmp_path)
    rows = pairs(4)
    seen = objective.prepare_rows(rows, "train")
    with torch.no_grad():
        reference = [(log_likelihood(model, rows[at]), log_likelihood(model, rows.rejected(at))) for at in range(4)]
        for weight in model.parameters():
            weight += 0.02 * torch.sin(torch.arange(weight.numel())).view_as(weight)
    measured = objective.measure(model, seen, range(4))
    measured.total.backward()
    ours = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    margins = [
        0.3 * (log_likelihood(model, rows[at]) - chosen - log_likelihood(model, rows.rejected(at)) + rejected)
        for at, (chosen, rejected) in enumerate(reference)
    ]
    wanted = sum((torch.log1p(torch.exp(-margin)) for margin in margins), torch.zeros(()))
    wanted.backward()
    torch.testing.assert_close(measured.total, wanted, rtol=1e-4, atol=1e-5)
    assert measured.figures["margin"].item() == pytest.approx(sum(margins).item(), rel=1e-3)
    assert measured.figures["accuracy"].item() == sum(margin.item() > 0 for margin in margins)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(ours[name], weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("method", "precision"), [("full", "fp32"), ("lora", "bf16")])
def test_the_margin_rises_on_pairs_that_were_not_learnt(
    model: Any, tmp_path: Path, method: str, precision: str
) -> None:
    config = settings(max_steps=40, check_every=20, method=method, precision=precision)
    tuned = methods.resolve(method).prepare(model, config)
    checks: list[dict[str, Any]] = []
    loop.train(
        tuned, pairs(60), pairs(20, seed=1), config, checkpoints=tmp_path,
        record=lambda kind, **fields: checks.append(fields) if kind == "dev" else None,
    )  # fmt: skip
    assert abs(checks[0]["margin"]) < 0.05 < 0.3 < checks[-1]["margin"]
    assert checks[-1]["accuracy"] > 0.9
    assert checks[-1]["loss"] < checks[0]["loss"]


def test_a_stopped_run_of_preferences_ends_with_the_same_weights(tiny_model: Path, tmp_path: Path) -> None:
    def run(folder: Path, **more: Any) -> loop.Outcome:
        folder.mkdir(exist_ok=True)
        fresh = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        more.setdefault("record", lambda kind, **fields: None)
        return loop.train(fresh, pairs(60), pairs(12, seed=1), settings(), checkpoints=folder, **more)

    wanted = run(tmp_path / "whole").weights
    steps: list[object] = []
    with pytest.raises(Interrupted, match="stopped after step 5"):
        run(
            tmp_path / "stopped", stop=lambda: len(steps) == 5,
            record=lambda kind, **fields: steps.append(fields) if kind == "step" else None,
        )  # fmt: skip
    kept = (tmp_path / "stopped" / "reference-train.safetensors").read_bytes()
    continued = run(tmp_path / "stopped").weights
    assert (tmp_path / "stopped" / "reference-train.safetensors").read_bytes() == kept
    assert all(torch.equal(continued[name], weight) for name, weight in wanted.items())


def test_a_stop_while_the_reference_is_computed_is_heard_and_nothing_is_computed_twice(
    model: Any, tmp_path: Path
) -> None:
    def run(folder: Path, stop: Any = lambda: False) -> tuple[torch.Tensor, list[tuple[str, int, int]]]:
        folder.mkdir(exist_ok=True)
        told: list[tuple[str, int, int]] = []

        def record(kind: str, **fields: Any) -> None:
            if kind == "reference":
                told.append((fields["split"], fields["done"], fields["of"]))

        objective = Preferences(model, settings(tokens_per_batch=40), folder)
        try:
            seen = loop._prepare_rows(objective, pairs(12), "train", record, stop)  # type: ignore[arg-type]
        except Interrupted as stopped:
            assert re.search(r"stopped before the first step, with \d+ of 12 train rows computed", str(stopped))
            return torch.empty(0), told
        assert isinstance(seen, objectives.Pairs)
        return seen.reference, told

    wanted, calm = run(tmp_path / "calm")
    asked = count()
    _, first = run(tmp_path / "stopped", lambda: next(asked) == 1)
    again, second = run(tmp_path / "stopped")
    assert len(first) == 2 and first + second == calm
    assert torch.equal(again, wanted)
    assert run(tmp_path / "stopped")[1] == []


def test_likelihoods_that_were_damaged_on_the_disk_are_computed_again(model: Any, tmp_path: Path) -> None:
    objective = Preferences(model, settings(), tmp_path)
    wanted = objective.prepare_rows(pairs(5), "train").reference
    (tmp_path / "reference-train.safetensors").write_bytes(b"\0" * 40)
    assert torch.equal(objective.prepare_rows(pairs(5), "train").reference, wanted)


def test_a_pair_is_not_packed_where_the_model_would_mix_its_rows(mamba: torch.nn.Module, tmp_path: Path) -> None:
    rows = pairs(6)
    one_by_one = Preferences(mamba, settings(tokens_per_batch=1), tmp_path).prepare_rows(rows, "train").reference  # type: ignore[arg-type]
    with torch.no_grad():
        wanted = [[log_likelihood(mamba, row).item() for row in (rows[at], rows.rejected(at))] for at in range(6)]
    torch.testing.assert_close(one_by_one, torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_rows_without_pairs_are_refused(model: Any, tmp_path: Path) -> None:
    rows = pairs(3)
    rows.rejected = lambda number: None  # type: ignore[assignment,method-assign]
    with pytest.raises(UserError, match='"dpo" trains on pairs of answers, and this data has none'):
        Preferences(model, settings(), tmp_path).prepare_rows(rows, "train")


def test_texts_are_learnt_from_their_second_token_on(model: Any, tmp_path: Path) -> None:
    objective = objectives.Texts(model, settings(objective="text"), tmp_path)
    rows = pairs(3)
    measured = objective.measure(model, objective.prepare_rows(rows, "train"), range(3))
    assert measured.count == sum(length - 1 for length in rows.lengths)
    with torch.no_grad():
        wanted = sum(-log_likelihood(model, Row(rows[at].ids, np.ones(99, dtype=bool))) for at in range(3))
    torch.testing.assert_close(measured.total, wanted)


def test_an_objective_of_ones_own_is_found_by_its_dotted_name() -> None:
    assert objectives.resolve("luthier.train.objectives:Texts") is objectives.Texts
    with pytest.raises(UserError, match=r'train.objective: "nowhere.at_all:Loss" cannot be imported'):
        objectives.resolve("nowhere.at_all:Loss")


def test_what_training_is_compared_with_is_computed_without_dropout(tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = AutoConfig.for_model("gpt2", vocab_size=384, n_embd=32, n_head=4, n_layer=1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    found = Preferences(model, settings(), tmp_path).prepare_rows(pairs(3), "train").reference
    assert model.training
    with torch.no_grad():
        wanted = [[log_likelihood(model.eval(), row).item() for row in pair] for pair in list.__iter__(pairs(3))]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-4, atol=1e-4)
