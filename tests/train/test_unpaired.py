"""KTO is its paper's formula, whatever the micro-batches, and what it learns shows on answers that it did not see."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from luthier.errors import Interrupted, UserError
from luthier.model import methods
from luthier.recipe import Train
from luthier.train import loop, objectives
from luthier.train.objectives import LabelledAnswers, UnpairedPreferences
from luthier.train.rows import following_other
from token_rows import Row, Rows


class Labelled(Rows):
    """Rows whose answers count up where people liked them, and down where they did not."""

    labels: list[bool | None]

    def label(self, number: int) -> bool | None:
        return self.labels[number]


def answers(labels: str, *, seed: int = 0) -> Labelled:
    """A row for each letter: liked (+) or disliked (-). A prompt has two tokens, and no other row has it."""
    generator = np.random.default_rng(seed)
    found = Labelled()
    found.labels = [letter == "+" for letter in labels]
    for number, liked in enumerate(found.labels):
        length, first = int(generator.integers(5, 12)), 60 + int(generator.integers(0, 60))
        ids = np.append([10 + number % 40], first + (3 if liked else -3) * np.arange(length - 1))
        found.append(Row(ids, np.arange(length) >= 2))
    return found


def settings(**changes: object) -> Train:
    values: dict[str, Any] = {
        "objective": "kto", "epochs": 1, "max_steps": 12, "learning_rate": 3e-3, "warmup_steps": 2, "patience": 9,
        "tokens_per_step": 128, "tokens_per_batch": 64, "check_every": 4, "precision": "fp32", "dpo_beta": 0.3,
    }  # fmt: skip
    return Train(**(values | changes))


@pytest.fixture
def model(tiny_model: Path) -> Iterator[Any]:
    yield AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


def moved(model: Any) -> None:
    """Other weights than those that the reference was computed with."""
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.sin(torch.arange(weight.numel())).view_as(weight)


def log_likelihood(model: Any, prompt: Any, answer: Any) -> torch.Tensor:
    """Token by token, from transformers' own scores."""
    ids = [*prompt, *answer]
    scores = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=-1)
    return sum((scores[at - 1, ids[at]] for at in range(len(prompt), len(ids))), torch.zeros(()))


def plain_kto(
    model: Any, rows: Labelled, before: list[tuple[float, float]], *, beta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed loss and the KL estimate by the formula, row after row."""
    pairs = [
        (rows[at].ids[:2], rows[at].ids[2:], rows[(at + 1) % len(rows)].ids[2:][: max(rows.lengths) - 2])
        for at in range(len(rows))
    ]
    with torch.no_grad():
        gains = [log_likelihood(model, prompt, other) for prompt, _, other in pairs]
    kl = (sum(gains, torch.zeros(())) - sum(other for _, other in before)).div(len(rows)).clamp(min=0)
    sizes = {side: rows.labels.count(side) for side in (True, False)}
    total = torch.zeros(())
    for (prompt, answer, _), (reference, _), liked in zip(pairs, before, rows.labels, strict=True):
        gain = log_likelihood(model, prompt, answer) - reference
        value = torch.sigmoid(beta * (gain - kl)) if liked else torch.sigmoid(beta * (kl - gain))
        assert liked is not None
        total = total + len(rows) / (2 * sizes[liked]) * (1 - value)
    return total, kl


def reference(model: Any, rows: Labelled) -> list[tuple[float, float]]:
    with torch.no_grad():
        return [
            (
                float(log_likelihood(model, row.ids[:2], row.ids[2:])),
                float(log_likelihood(model, row.ids[:2], rows[(at + 1) % len(rows)].ids[2:][: max(rows.lengths) - 2])),
            )
            for at, row in enumerate(rows)
        ]


def test_a_fresh_model_has_half_of_the_loss_and_no_divergence(model: Any, tmp_path: Path) -> None:
    objective = UnpairedPreferences(model, settings(), tmp_path)
    seen = objective.prepare_rows(answers("++-+-"), "train")
    measured = objective.of_step(model, seen, range(5)).measure(model, seen, range(5))
    assert (measured.count, measured.total.item()) == (5, pytest.approx(2.5, rel=1e-4))
    assert measured.figures["margin"].item() == pytest.approx(0, abs=1e-3)
    assert measured.figures["kl"].item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("batches", [[[0, 1, 2, 3, 4]], [[4, 0], [2], [1, 3]]])
def test_loss_and_gradients_are_those_of_the_formula(model: Any, tmp_path: Path, batches: list[list[int]]) -> None:
    rows = answers("++-+-", seed=3)
    objective = UnpairedPreferences(model, settings(tokens_per_batch=20), tmp_path)  # KL takes several batches
    seen, before = objective.prepare_rows(rows, "train"), reference(model, rows)
    moved(model)
    step = objective.of_step(model, seen, [number for batch in batches for number in batch])
    found = [step.measure(model, seen, batch) for batch in batches]
    torch.stack([one.total for one in found]).sum().backward()
    ours = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    wanted, kl = plain_kto(model, rows, before, beta=0.3)
    wanted.backward()
    assert kl > 0.01, "a case in which the clamp does nothing"
    assert sum(one.total.item() for one in found) == pytest.approx(wanted.item(), rel=1e-4)
    assert sum(one.figures["kl"].item() for one in found) == pytest.approx(5 * kl.item(), rel=1e-3)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(ours[name], weight.grad, rtol=1e-3, atol=1e-5)


def test_a_divergence_below_nothing_counts_as_nothing(model: Any, tmp_path: Path) -> None:
    rows = answers("+-+-", seed=3)
    objective = UnpairedPreferences(model, settings(), tmp_path)
    seen = objective.prepare_rows(rows, "train")
    seen.reference[:, 1] += 5  # as if the model had lost 5 nats on each mismatched answer
    step = objective.of_step(model, seen, range(4))
    assert step.divergence == 0.0
    assert step.measure(model, seen, range(4)).total.item() == pytest.approx(2, rel=1e-4)


def test_margin_is_the_mean_reward_of_liked_answers_above_that_of_disliked_ones(model: Any, tmp_path: Path) -> None:
    rows = answers("+++-")
    objective = UnpairedPreferences(model, settings(), tmp_path)
    seen = objective.prepare_rows(rows, "dev")
    seen.reference[:, 0] -= torch.tensor([1.0, 2.0, 6.0, -4.0])  # gains of 1, 2, 6 and −4 nats
    figures = objective.measure(model, seen, range(4)).figures
    means = {name: figure.item() / 4 for name, figure in figures.items()}
    assert means["margin"] == pytest.approx(0.3 * (3 - -4), rel=1e-3)
    assert means["chosen_reward"] == pytest.approx(0.3 * 3, rel=1e-3)
    assert means["accuracy"] == 1


def test_the_sides_weigh_the_same_however_many_answers_they_have() -> None:
    seen = LabelledAnswers(answers("+++-"), range(4), torch.zeros(4, 2))
    assert seen.weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])


def test_the_mismatched_answer_is_that_of_the_next_row_with_another_prompt() -> None:
    assert following_other("aabbca") == [2, 2, 4, 4, 5, 2]
    assert following_other("aaa") == [1, 2, 0] and following_other("a") == [0]
    rows = Labelled([Row(np.array(ids), np.arange(len(ids)) >= 2) for ids in ([1, 2, 3], [1, 2, 4], [5, 6, 7, 8, 9])])
    rows.labels = [True, False, True]
    seen = LabelledAnswers(rows, range(3), torch.zeros(3, 2))
    assert [seen.mismatched(number).ids.tolist() for number in range(3)] == [
        [1, 2, 7, 8, 9],
        [1, 2, 7, 8, 9],
        [5, 6, 3],
    ]
    assert seen.mismatched(0).loss_mask.tolist() == [False, False, True, True, True]
    assert seen.pair_lengths == [8, 8, 8]


def test_a_mismatched_row_is_no_longer_than_the_longest_one() -> None:
    rows = Labelled(
        [Row(np.arange(9), np.arange(9) >= 7), Row(np.arange(9) + 20, np.arange(9) >= 2)],
    )
    rows.labels = [True, False]
    seen = LabelledAnswers(rows, range(2), torch.zeros(2, 2))
    assert seen.mismatched(0).ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 22, 23] and seen.mismatched_lengths == [9, 4]


@pytest.mark.parametrize(("method", "precision"), [("full", "fp32"), ("lora", "bf16")])
def test_liked_answers_gain_on_disliked_ones_that_were_not_learnt(
    model: Any, tmp_path: Path, method: str, precision: str
) -> None:
    config = settings(max_steps=40, check_every=20, method=method, precision=precision)
    checks: list[dict[str, Any]] = []
    loop.train(
        methods.resolve(method).prepare(model, config), answers("+--+-" * 12), answers("+-" * 8, seed=1), config,
        checkpoints=tmp_path, record=lambda kind, **fields: checks.append(fields) if kind == "dev" else None,
    )  # fmt: skip
    assert checks[0]["loss"] == pytest.approx(0.5, abs=0.01) and abs(checks[0]["margin"]) < 0.05
    assert checks[-1]["margin"] > 0.3 and checks[-1]["loss"] < checks[0]["loss"]
    assert math.isfinite(checks[-1]["kl"]) and checks[-1]["kl"] >= 0


def test_every_step_and_every_dev_check_has_the_divergence_of_all_its_rows(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def of_step(self: UnpairedPreferences, model: Any, rows: Any, numbers: Any) -> UnpairedPreferences:
        asked.append(sorted(numbers))
        found = copy.copy(self)
        found.divergence = float(len(numbers))
        return found

    monkeypatch.setattr(UnpairedPreferences, "of_step", of_step)
    told: list[float] = []
    loop.train(
        model, answers("+--+-" * 12), answers("+-" * 8, seed=1), settings(max_steps=3, check_every=3),
        checkpoints=tmp_path,
        record=lambda kind, **fields: told.append(fields["kl"]) if kind in ("dev", "step") else None,
    )  # fmt: skip
    assert asked[0] == asked[4] == list(range(16)) and len(asked) == 5
    assert told == [len(members) for members in asked] and all(len(members) > 8 for members in asked)


def test_a_stopped_run_ends_with_the_same_weights(tiny_model: Path, tmp_path: Path) -> None:
    def run(folder: Path, **more: Any) -> loop.Outcome:
        folder.mkdir(exist_ok=True)
        fresh = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        more.setdefault("record", lambda kind, **fields: None)
        return loop.train(fresh, answers("+-+" * 16), answers("+-" * 4, seed=1), settings(), checkpoints=folder, **more)

    wanted = run(tmp_path / "whole").weights
    steps: list[object] = []
    with pytest.raises(Interrupted, match="stopped after step 5"):
        run(
            tmp_path / "stopped", stop=lambda: len(steps) == 5,
            record=lambda kind, **fields: steps.append(fields) if kind == "step" else None,
        )  # fmt: skip
    continued = run(tmp_path / "stopped").weights
    assert all(torch.equal(continued[name], weight) for name, weight in wanted.items())


def test_answers_without_labels_are_refused(model: Any, tmp_path: Path) -> None:
    rows = answers("+-+")
    rows.labels[1] = None
    with pytest.raises(UserError, match='"kto" learns from answers that people liked or did not like'):
        objectives.resolve("kto")(model, settings(), tmp_path).prepare_rows(rows, "train")
