"""Every number of a step is that of a plain loop: what is summed, divided, clipped, decayed, warmed up, looked at and kept."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.errors import Interrupted
from luthier.evaluate import statistics
from luthier.model import generate, loading, methods
from luthier.model.packed import pack
from luthier.recipe import Train
from luthier.train import loop
from luthier.train.objectives import AnswerLoss, Measured
from luthier.train.optimizer import MasterOptimizer
from token_rows import Row, Rows

OWN = """
import torch

def sgd(weights, settings):
    return [torch.optim.SGD(weights.groups(settings.weight_decay), lr=0.0)]
"""
LENGTHS = (3, 4, 6, 7, 9, 12, 15, 22)  # with 36 tokens a batch: 5 rows, 2 rows, 1 row
ROWS = Rows(
    Row((11 + 7 * number + 3 * np.arange(length)) % 300 + 10, np.arange(length) >= 1 + number % 3)
    for number, length in enumerate(LENGTHS)
)
DEV = ROWS[:3]


def settings(**changes: object) -> Train:
    values: dict[str, Any] = {
        "epochs": 1, "max_steps": 6, "learning_rate": 0.5, "warmup_steps": 2, "tokens_per_step": 4096, "patience": 9,
        "tokens_per_batch": 36, "check_every": 6, "precision": "fp32", "optimizer": "own_sgd_of_a_test:sgd",
    }  # fmt: skip
    return Train(**(values | changes))


@pytest.fixture(autouse=True)
def own_sgd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer to which, unlike Adam, the size of a gradient matters."""
    (tmp_path / "own_sgd_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def trained(model: Any, config: Train, folder: Path, *, rows: Rows = ROWS) -> tuple[loop.Outcome, dict[str, list[Any]]]:
    """Our loop; its outcome, and its events by kind."""
    events: dict[str, list[Any]] = {}
    outcome = loop.train(
        model, rows, Rows(DEV), config, checkpoints=folder / "checkpoints",
        record=lambda kind, **fields: events.setdefault(kind, []).append(fields),
    )  # fmt: skip
    return outcome, events


def tiny(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def with_dropout() -> Any:
    """A small GPT-2: a tenth of its states is dropped while it learns."""
    torch.manual_seed(5)
    config = AutoConfig.for_model("gpt2", vocab_size=384, n_embd=32, n_head=4, n_layer=1)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def plain_loss(model: Any, row: Row) -> torch.Tensor:
    """Its learnt tokens' −log p, summed, from transformers' own scores."""
    scores = torch.log_softmax(model(input_ids=torch.tensor(row.ids)[None]).logits[0], dim=-1)
    return -sum((scores[at - 1, row.ids[at]] for at in range(1, len(row.ids)) if row.loss_mask[at]), torch.zeros(()))


@pytest.mark.parametrize("clip_norm", [0.1, 100.0])
def test_a_training_is_a_plain_loop_of_gradient_descent(tiny_model: Path, tmp_path: Path, clip_norm: float) -> None:
    """Three unequal batches a step; warm-up, cosine, decay of matrices, and a norm that is clipped at every step or at none."""
    outcome, events = trained(tiny(tiny_model), settings(weight_decay=0.1, clip_norm=clip_norm), tmp_path)
    model = tiny(tiny_model)
    learnt = sum(int(row.loss_mask[1:].sum()) for row in ROWS)
    rates = [0.25, 0.5, 0.5, 0.25 * (1 + math.sqrt(0.5)), 0.25, 0.25 * (1 - math.sqrt(0.5))]
    for rate, event in zip(rates, events["step"], strict=True):
        loss = sum((plain_loss(model, row) for row in ROWS), torch.zeros(())) / learnt
        model.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(weight.grad.double().square().sum()) for weight in model.parameters()))
        with torch.no_grad():
            for weight in model.parameters():
                decay = 0.1 * weight if weight.ndim == 2 else 0.0
                weight -= rate * (weight.grad * min(1.0, clip_norm / norm) + decay)
        told = (event["loss"], event["gradient_norm"], event["learning_rate"])
        assert told == pytest.approx((loss.item(), norm, rate), rel=1e-4)
        assert (event["tokens"], event["learnt"]) == (sum(LENGTHS), learnt)
        assert norm > 0.1
    assert outcome.progress.best_step == 6
    for name, weight in model.named_parameters():
        torch.testing.assert_close(outcome.weights[name], weight.detach(), rtol=1e-4, atol=2e-6, msg=name)


def test_each_step_learns_its_own_rows_only(tiny_model: Path, tmp_path: Path) -> None:
    """No gradient is left over: with a rate of next to nothing, a row that comes again has the gradient that it had."""
    config = settings(learning_rate=1e-12, tokens_per_step=1, max_steps=16, check_every=16)
    _, events = trained(tiny(tiny_model), config, tmp_path)
    first, second = (
        sorted((event["tokens"], event["gradient_norm"]) for event in events["step"][start : start + 8])
        for start in (0, 8)
    )
    assert [tokens for tokens, _ in first] == list(LENGTHS)
    assert [norm for _, norm in second] == pytest.approx([norm for _, norm in first], rel=1e-4)


def test_gradients_of_many_batches_in_bf16_are_added_up_in_fp32() -> None:
    """2⁻⁹ is lost beside 1 in bf16, whose next number is 1 + 2⁻⁷."""
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = MasterOptimizer(model, settings(precision="bf16"))
    before = optimizer.masters["weight"].tensor().clone()
    for gradient in (1.0, 2**-9, 2**-9):
        model.weight.grad = torch.full_like(model.weight, gradient)
        optimizer.accumulate()
    clip = optimizer.clip(1, 1e9)
    assert clip.norm == 1 + 2**-8
    optimizer.step(1.0, clip.scale)
    assert optimizer.masters["weight"].tensor().item() == pytest.approx(before.item() - 1 - 2**-8, abs=1e-6)


def test_dev_is_looked_at_without_dropout_and_by_its_learnt_tokens(tmp_path: Path) -> None:
    model = with_dropout().eval()
    with torch.no_grad():
        total = sum(plain_loss(model, row).item() for row in DEV)
    _, events = trained(with_dropout(), settings(max_steps=1, check_every=1), tmp_path)
    wanted = total / sum(int(row.loss_mask[1:].sum()) for row in DEV)
    assert events["dev"][0]["loss"] == pytest.approx(wanted, rel=1e-5)
    assert [event["step"] for event in events["dev"]] == [0, 1]


def test_dropout_is_another_at_every_step_and_with_every_seed(tmp_path: Path) -> None:
    def losses(name: str, seed: int) -> list[float]:
        config = settings(learning_rate=1e-12, max_steps=4, check_every=4, seed=seed)
        return [event["loss"] for event in trained(with_dropout(), config, tmp_path / name)[1]["step"]]

    one = losses("one", 1)
    assert len(set(one)) == 4
    assert losses("again", 1) == one
    assert not {*one} & {*losses("two", 2)}


LARGEST = 2**63 - 1


def test_the_largest_seed_trains_and_is_another_than_its_neighbours(tiny_model: Path, tmp_path: Path) -> None:
    def found(seed: int) -> tuple[list[int], float, float]:
        config = settings(seed=seed, method="lora", tokens_per_step=30, max_steps=8, check_every=8)
        adapted = methods.resolve("lora").prepare(tiny(tiny_model), config)
        layer = adapted.get_base_model().model.layers[0].self_attn.q_proj.lora_A["default"].weight[0, 0].item()
        _, events = trained(adapted, config, tmp_path / str(seed))
        _, dropped = trained(with_dropout(), settings(seed=seed, max_steps=1), tmp_path / f"dropout-{seed}")
        return [event["tokens"] for event in events["step"]], layer, dropped["step"][0]["loss"]

    seeds = (LARGEST, LARGEST - 1, LARGEST - 2**32, LARGEST >> 32)
    orders, adapters, losses = zip(*map(found, seeds), strict=True)
    assert len({tuple(order) for order in orders}) == len(set(adapters)) == len(set(losses)) == len(seeds)


def test_statistics_and_sampling_take_the_largest_seed_too(tiny_model: Path) -> None:
    scores, groups = [0.0, 1.0, 0.4, 0.7, 0.2], list("abcde")
    for seed in (0, LARGEST):
        assert 0 < statistics.paired_test(scores, scores[::-1], groups, seed=seed).p_value <= 1
        low, high = statistics.mean_interval(scores, groups, confidence=0.9, seed=seed)
        assert 0 <= low < high <= 1
    lm = loading.load(str(tiny_model))
    draws = [
        generate.answer(lm, [[5, 6, 7]], max_new_tokens=8, sampling=generate.Sampling(1.0, [(seed, 1)]))[0].ids
        for seed in (LARGEST, LARGEST - 1)
    ]
    assert draws[0] != draws[1]


class Scripted(AnswerLoss):
    """Learns as ever, and finds on dev what the script says."""

    script: ClassVar[list[float]] = []

    def measure(self, model: Any, rows: Any, numbers: Any) -> Measured:
        if model.training:
            return super().measure(model, rows, numbers)
        return Measured(torch.tensor(self.script.pop(0)), 1, 1)


def scripted(
    script: list[float], tiny_model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> tuple[loop.Outcome, dict[str, list[Any]]]:
    monkeypatch.setitem(loop.objectives.OBJECTIVES, "sft", Scripted)
    monkeypatch.setattr(Scripted, "script", script)
    return trained(tiny(tiny_model), settings(tokens_per_batch=4096, **changes), folder)


def test_patience_counts_checks_in_a_row_and_the_best_weights_are_kept(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worse, better, worse, worse: two in a row are enough, and one before the best does not count."""
    outcome, events = scripted(
        [9.0, 4.0, 5.0, 3.0, 4.0, 3.0, 2.0, 1.0], tiny_model, tmp_path, monkeypatch, max_steps=7, check_every=1, patience=2
    )  # fmt: skip
    assert [(event["step"], event["best"]) for event in events["dev"]] == [
        (0, False), (1, True), (2, False), (3, True), (4, False), (5, False),
    ]  # fmt: skip
    assert {event["first_loss"] for event in events["dev"][1:]} == {9.0}
    progress = outcome.progress
    assert (progress.step, progress.best_step, progress.best_loss, progress.first_loss) == (5, 3, 3.0, 9.0)
    assert outcome.reason == "no lower dev loss in 2 dev checks"
    three, _ = scripted(
        [9.0, 1.0, 2.0], tiny_model, tmp_path / "three", monkeypatch, max_steps=7, check_every=3, patience=1
    )
    assert three.progress.best_step == 3
    assert all(torch.equal(outcome.weights[name], weight) for name, weight in three.weights.items())


def test_dev_is_looked_at_every_so_many_steps_and_after_the_last(tiny_model: Path, tmp_path: Path) -> None:
    _, events = trained(tiny(tiny_model), settings(max_steps=5, check_every=2), tmp_path)
    assert [event["step"] for event in events["dev"]] == [0, 2, 4, 5]
    assert [event["step"] for event in events["checkpoint"]] == [2, 4, 5]


SCHEDULE_FREE = """
import torch

class ScheduleFree(torch.optim.Optimizer):
    '''Defazio et al. 2024, algorithm of SGD: learns at y between z, which moves, and x, the mean of all z, which is judged.'''

    def __init__(self, groups):
        super().__init__(groups, dict(lr=0.0, k=0, learns=False))

    def step(self, closure=None):
        for group in self.param_groups:
            assert group["learns"]
            group["k"] += 1
            for y in group["params"]:
                z = self.state[y].setdefault("z", y.clone())
                x = 10 * y - 9 * z  # y = 0.9 z + 0.1 x
                z.sub_(group["lr"] * y.grad)
                x.lerp_(z, 1 / group["k"])
                y.copy_(0.9 * z + 0.1 * x)

    def _move(self, learns):
        for group in self.param_groups:
            if group["learns"] != learns:
                for weight in group["params"]:
                    if (z := self.state[weight].get("z")) is not None:
                        weight.copy_(0.9 * z + 0.1 * weight if learns else 10 * weight - 9 * z)
            group["learns"] = learns

    def train(self):
        self._move(True)

    def eval(self):
        self._move(False)

def schedule_free(weights, settings):
    return [ScheduleFree(weights.groups(0.0))]
"""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_schedule_free_optimizer_is_judged_and_saved_by_its_mean(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    (tmp_path / "schedule_free_of_a_test.py").write_text(SCHEDULE_FREE)
    config = settings(
        optimizer="schedule_free_of_a_test:schedule_free", schedule="constant", warmup_steps=0, max_steps=4, check_every=2,
        clip_norm=100.0, precision=precision,
    )  # fmt: skip
    outcome, events = trained(tiny(tiny_model), config, tmp_path)
    if precision == "fp32":
        model = tiny(tiny_model)
        learnt = sum(int(row.loss_mask[1:].sum()) for row in ROWS)
        z = [weight.detach().clone() for weight in model.parameters()]
        x = [weight.clone() for weight in z]
        for step in range(1, 5):
            model.zero_grad()
            (sum((plain_loss(model, row) for row in ROWS), torch.zeros(())) / learnt).backward()
            with torch.no_grad():
                for weight, mean, moved in zip(model.parameters(), x, z, strict=True):
                    moved -= 0.5 * weight.grad
                    mean += (moved - mean) / step
                    weight.copy_(0.9 * moved + 0.1 * mean)
        for (name, _), mean in zip(model.named_parameters(), x, strict=True):
            torch.testing.assert_close(outcome.weights[name], mean, rtol=1e-3, atol=2e-5, msg=name)
    judged = tiny(tiny_model)
    judged.load_state_dict(outcome.weights, strict=False)
    with torch.no_grad():
        total = sum(plain_loss(judged, row).item() for row in DEV)
    wanted = total / sum(int(row.loss_mask[1:].sum()) for row in DEV)
    assert events["dev"][-1]["loss"] == pytest.approx(wanted, rel=1e-4 if precision == "fp32" else 1e-2)
    asked = iter((False, False, True))
    with pytest.raises(Interrupted):
        loop.train(
            tiny(tiny_model), ROWS, Rows(DEV), config, checkpoints=tmp_path / "stopped",
            record=lambda kind, **fields: None, stop=lambda: next(asked),
        )  # fmt: skip
    again = loop.train(
        tiny(tiny_model), ROWS, Rows(DEV), config, checkpoints=tmp_path / "stopped", record=lambda kind, **fields: None
    )
    assert all(torch.equal(again.weights[name], weight) for name, weight in outcome.weights.items())


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_adapters_add_alpha_by_rank_of_their_product(tiny_model: Path, method: str) -> None:
    model = methods.resolve(method).prepare(tiny(tiny_model), Train(method=method, lora_rank=3, lora_alpha=12))
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        up.copy_(torch.sin(torch.arange(float(up.numel()))).view_as(up))
        inputs = torch.cos(torch.arange(64.0)).view(2, 32)
        changed = layer.base_layer.weight + 12 / 3 * up @ down
        if method == "dora":  # each row keeps the length that the base's had
            changed *= (layer.base_layer.weight.norm(dim=1) / changed.norm(dim=1))[:, None]
        torch.testing.assert_close(layer(inputs), inputs @ changed.T, rtol=1e-4, atol=1e-5)


def test_the_loss_of_a_packed_batch_is_the_sum_over_its_learnt_tokens(tiny_model: Path) -> None:
    model = tiny(tiny_model)
    batch = pack(ROWS, model.device)
    with torch.no_grad():
        wanted = sum((plain_loss(model, row) for row in ROWS), torch.zeros(()))
    measured = AnswerLoss(model, settings(), tiny_model).measure(model, ROWS, range(len(ROWS)))
    torch.testing.assert_close(measured.total.detach(), wanted, rtol=1e-5, atol=1e-5)
    assert measured.count == batch.loss_tokens == sum(int(row.loss_mask[1:].sum()) for row in ROWS)
