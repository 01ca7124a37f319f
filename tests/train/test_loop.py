"""Training learns, accumulates exactly, stops in time and continues as if nothing had happened."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.errors import Interrupted, MachineError, NonFiniteLoss
from luthier.model import head, loading, probes
from luthier.model.packed import Packed
from luthier.recipe import Train
from luthier.train import checkpoint, loop, nonfinite, objectives
from token_rows import Row, Rows, counting


def settings(**changes: object) -> Train:
    values: dict[str, Any] = {
        "epochs": 1, "max_steps": 12, "learning_rate": 5e-3, "warmup_steps": 2, "tokens_per_step": 256,
        "tokens_per_batch": 128, "check_every": 4, "precision": "fp32", "patience": 9,
    }  # fmt: skip
    return Train(**(values | changes))


@pytest.fixture
def train(tiny_model: Path, tmp_path: Path) -> Iterator[Callable[..., loop.Outcome]]:
    """Trains a fresh copy of the tiny model in a folder of its own, or in the folder that is named."""
    folders = (tmp_path / f"run{number}" for number in count())

    def run(
        config: Train,
        *,
        rows: Rows | None = None,
        folder: Path | None = None,
        lora: bool = False,
        model: Any = None,
        **more: Any,
    ) -> loop.Outcome:
        folder = folder or next(folders)
        folder.mkdir(exist_ok=True)
        model = model or AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        if lora:
            model = loading.add_adapters(model, rank=4, alpha=8, seed=0)
        more.setdefault("record", lambda kind, **fields: None)
        return loop.train(model, rows or counting(60), counting(12, seed=1), config, checkpoints=folder, **more)

    yield run


def test_dev_loss_falls_on_a_rule_that_can_be_learnt(train: Callable[..., loop.Outcome]) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    train(settings(max_steps=60, check_every=20), record=lambda kind, **fields: events.append((kind, fields)))
    losses = [fields["loss"] for kind, fields in events if kind == "dev"]
    assert losses[-1] < 0.5 * losses[0]


def test_adapters_learn_and_frozen_weights_stay(train: Callable[..., loop.Outcome]) -> None:
    outcome = train(settings(max_steps=30, learning_rate=2e-2), lora=True)
    assert all("lora_" in name for name in outcome.weights)
    assert outcome.progress.best_loss < math.log(384)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("rows_at_once", [4, 1])
def test_two_batches_of_four_and_eight_of_one_give_the_steps_of_one_batch_of_eight(
    train: Callable[..., loop.Outcome], rows_at_once: int, lora: bool
) -> None:
    rows = Rows(Row((np.arange(16) * 3 + start) % 300 + 10, np.arange(16) >= 1 + start % 9) for start in range(16))

    def steps(rows_at_once: int) -> tuple[loop.Outcome, list[float]]:
        losses: list[float] = []
        config = settings(max_steps=2, check_every=2, tokens_per_step=128, tokens_per_batch=16 * rows_at_once)
        outcome = train(
            config, rows=rows, lora=lora,
            record=lambda kind, **fields: losses.append(fields["loss"]) if kind == "step" else None,
        )  # fmt: skip
        return outcome, losses

    (whole, wanted), (parts, losses) = steps(8), steps(rows_at_once)
    assert losses == pytest.approx(wanted, rel=1e-5)
    for name, weight in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], weight, rtol=1e-4, atol=2e-5)


def test_the_loop_is_a_plain_loop_of_pytorch(train: Callable[..., loop.Outcome], tiny_model: Path) -> None:
    """The same rows, one by one, through transformers' own loss and torch's AdamW."""
    rows = counting(8)
    events: list[dict[str, Any]] = []
    config = settings(
        max_steps=4, tokens_per_step=4096, tokens_per_batch=4096, schedule="constant", warmup_steps=0, check_every=4
    )
    train(config, rows=rows, record=lambda kind, **fields: events.append(fields) if kind == "step" else None)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for event in events:
        learnt = sum(int(row.loss_mask[1:].sum()) for row in rows)
        total = 0.0
        for row in rows:
            labels = torch.tensor(np.where(row.loss_mask, row.ids, -100))[None]
            mean = model(input_ids=torch.tensor(row.ids)[None], labels=labels).loss
            loss = mean * row.loss_mask[1:].sum() / learnt
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert event["loss"] == pytest.approx(total, rel=1e-4)
        assert event["gradient_norm"] == pytest.approx(norm.item(), rel=1e-3)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_run_ends_with_the_same_weights_bit_for_bit(
    train: Callable[..., loop.Outcome], tmp_path: Path, lora: bool, precision: str
) -> None:
    config = settings(precision=precision, max_steps=8, check_every=3)
    never_stopped = train(config, lora=lora)
    folder = tmp_path / "stopped"
    for stop_after in (2, 4):
        seen = count(1)
        with pytest.raises(Interrupted, match="its checkpoint is saved"):
            train(config, folder=folder, lora=lora, stop=lambda seen=seen, at=stop_after: next(seen) >= at)
    continued = train(config, folder=folder, lora=lora)
    assert continued.progress.best_step == never_stopped.progress.best_step
    for name, weight in never_stopped.weights.items():
        assert torch.equal(continued.weights[name], weight), name


def test_a_model_with_dropout_continues_bit_for_bit_too(tmp_path: Path) -> None:
    def run(folder: Path, **more: Any) -> loop.Outcome:
        torch.manual_seed(5)
        config = AutoConfig.for_model("gpt2", vocab_size=384, n_embd=32, n_head=4, n_layer=1)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        more.setdefault("record", lambda kind, **fields: None)
        return loop.train(model, counting(60), counting(12, seed=1), settings(), checkpoints=folder, **more)

    wanted = run(tmp_path / "whole").weights
    seen = count(1)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", stop=lambda: next(seen) >= 5)
    continued = run(tmp_path / "stopped").weights
    assert all(torch.equal(continued[name], weight) for name, weight in wanted.items())


def test_two_trainings_at_once_in_one_process_end_like_each_of_them_alone(
    train: Callable[..., loop.Outcome], tiny_model: Path, tmp_path: Path
) -> None:
    """They share no buffer: both compute their scores in memory that is used again for every batch."""

    def run(number: int, folder: str, model: Any = None) -> dict[str, torch.Tensor]:
        rows = counting(60, seed=number)
        config = settings(precision="bf16", max_steps=4)
        return train(config, rows=rows, folder=tmp_path / folder, model=model).weights

    alone = [run(number, f"alone{number}") for number in (5, 6)]
    # read before the threads start: while transformers reads one, weights that another thread makes have no numbers
    models = [AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, (5, 6), ("together5", "together6"), models))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(other[name], weight) for name, weight in one.items())


def test_training_stops_early_and_keeps_the_best_weights(train: Callable[..., loop.Outcome]) -> None:
    outcome = train(settings(max_steps=80, check_every=2, patience=2, learning_rate=0.5, clip_norm=1e9))
    assert outcome.reason == "no lower dev loss in 2 dev checks"
    assert outcome.progress.best_step < outcome.progress.step < 80


def test_a_loss_that_is_not_a_number_stops_before_the_update_and_names_the_rows(
    train: Callable[..., loop.Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = counting(60)
    rows[7] = Row(np.full(9, 383), np.arange(9) >= 2)
    real = head.loss_and_hits

    def bad_for_one_row(model: Any, batch: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        loss, hits = real(model, batch)
        return loss * (float("inf") if (batch.tokens == 383).any() else 1.0), hits

    monkeypatch.setattr(head, "loss_and_hits", bad_for_one_row)
    told = (
        r"the loss is inf at step \d+; stopped before the update.*rows.jsonl:8\. Resuming .*learning_rate below 0.005\."
    )
    with pytest.raises(NonFiniteLoss, match=told):
        train(settings(), rows=rows, folder=tmp_path / "poisoned")


def test_a_dev_loss_that_is_no_number_after_updates_says_so(train: Callable[..., loop.Outcome], tmp_path: Path) -> None:
    told = r"the dev loss is (nan|inf) after step 1: the updates went too far.*learning_rate below 1e\+39\."
    with pytest.raises(NonFiniteLoss, match=told):
        train(settings(learning_rate=1e39, warmup_steps=0, check_every=1, max_steps=1), folder=tmp_path / "run")


def test_rows_of_dev_without_a_finite_loss_are_named_before_the_first_step(
    train: Callable[..., loop.Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Infinite(objectives.AnswerLoss):
        def measure(self, model: Any, rows: Any, numbers: Any) -> objectives.Measured:
            found = super().measure(model, rows, numbers)
            return found if 3 not in numbers else dataclasses.replace(found, total=found.total * math.inf)

    monkeypatch.setitem(objectives.OBJECTIVES, "sft", Infinite)
    told = (
        r"the dev loss is inf before the first update, in fp32. dev rows whose own loss is not finite: rows.jsonl:4\."
    )
    with pytest.raises(NonFiniteLoss, match=told):
        train(settings())


def test_weights_of_a_model_that_are_no_numbers_are_named(tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = math.nan
    objective = objectives.AnswerLoss(model, settings(), tmp_path)
    found = nonfinite.of_dev(model, objective, counting(3), settings(), step=0, loss=math.nan)
    assert "these weights of the model hold values that are no numbers: model.layers.1.mlp.up_proj.weight. Get" in str(
        found
    )


def test_a_damaged_checkpoint_is_passed_over_aloud(train: Callable[..., loop.Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    wanted = {name: weight.clone() for name, weight in train(settings(), folder=folder).weights.items()}
    newest = max(folder.glob("step-*"))
    data = bytearray((newest / "tensors.safetensors").read_bytes())
    data[-5] ^= 1
    (newest / "tensors.safetensors").write_bytes(data)
    warnings: list[str] = []
    again = train(
        settings(),
        folder=folder,
        record=lambda kind, **fields: warnings.append(str(fields)) if kind == "warning" else None,
    )
    assert "SHA-256 is not the one" in warnings[0]
    for name, weight in wanted.items():
        assert torch.equal(again.weights[name], weight)


def test_a_checkpoint_that_was_cut_short_does_not_verify(train: Callable[..., loop.Outcome], tmp_path: Path) -> None:
    train(settings(max_steps=4), folder=tmp_path / "run")
    (folder,) = (tmp_path / "run").glob("step-*")
    (folder / "state.json").unlink()
    found, wrong = checkpoint.newest(tmp_path / "run")
    assert found is None and "not a whole checkpoint" in wrong[folder]


def test_a_full_disk_keeps_the_checkpoints_before(small_disk: Path) -> None:
    weights = {"weight/w": torch.zeros(150_000)}
    checkpoint.save(small_disk, 1, weights, {})
    with pytest.raises(MachineError, match="the disk is full: a checkpoint needs"):
        checkpoint.save(small_disk, 2, {"weight/w": torch.zeros(400_000)}, {})
    assert checkpoint.newest(small_disk)[0].step == 1  # type: ignore[union-attr]
    assert [entry.name for entry in small_disk.iterdir()] == ["step-00000001"]


def test_a_model_that_mixes_rows_trains_on_them_one_by_one(mamba: torch.nn.Module, tmp_path: Path) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    loop.train(
        mamba, counting(20), counting(4, seed=1), settings(max_steps=4), checkpoints=tmp_path,
        record=lambda kind, **fields: events.append((kind, fields)),
    )  # fmt: skip
    assert [fields["message"] for kind, fields in events if kind == "warning"] == [
        "this model mixes rows that share a batch, so each row gets a batch of its own."
    ]
    losses = [fields["loss"] for kind, fields in events if kind == "dev"]
    assert losses[-1] < losses[0]


def test_what_few_models_need_is_told_before_the_first_step(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "longest_in_batch", lambda model, longest: longest - 1)
    monkeypatch.setattr(probes, "has_plain_head", lambda model: False)
    events: list[tuple[str, dict[str, Any]]] = []
    loop.train(
        loading.load(str(tiny_model)).model, counting(20), counting(4, seed=1), settings(max_steps=1), checkpoints=tmp_path,
        record=lambda kind, **fields: events.append((kind, fields)),
    )  # fmt: skip
    longest = max(counting(20).lengths)
    assert [fields["message"] for kind, fields in events if kind == "warning"] == [
        "this model computes its logits in its own way, so the logits of all loss tokens of a batch are kept, "
        "which takes more memory.",
        f"this model gives other results for rows that share a batch with a row of more than {longest - 1} tokens, and this "
        "data has such rows, so each row gets a batch of its own.",
    ]
