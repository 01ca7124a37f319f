"""Prefixes that rows of a batch share are computed once, and all else is as if each row stood alone."""

from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import thinking
from luthier.chat import Conversation, Message
from luthier.data import prepared
from luthier.data.dataset import Item
from luthier.data.encoding import pieces
from luthier.errors import Interrupted
from luthier.model import attention, layers, loading, methods, packed, prefix_sharing, recomputation
from luthier.model.head import row_likelihoods, summed_loss
from luthier.model.packed import SharedPrefix, pack
from luthier.recipe import Train
from luthier.train import loop, order
from luthier.train.rows import shared_prefixes
from token_rows import Row, Rows, counting

CPU = torch.device("cpu")


def row(*parts: int, learn: int = 1) -> Row:
    """A row made of runs: `n` stands for the tokens 10·n, 10·n + 1, … of one run of nine; learnt from `learn` on."""
    ids = np.concatenate([10 * part + np.arange(9) for part in parts])
    return Row(ids, np.arange(len(ids)) >= learn)


FORESTS = {
    "two levels": [row(1, 2, learn=9), row(1, 3, 4, learn=12), row(1, 5)],
    "three levels": [
        row(1, 2, 3, 4),
        row(9, 2),
        row(1, 2, 5, learn=20),
        row(1, 6, learn=14),
        row(1, 2, 3, 7, 8, learn=27),
    ],
    "twice the same": [row(1, 2, learn=4), row(3), row(1, 2, learn=9), row(1, 2, learn=9)],
    "a row that begins another": [row(1, 2, 3, learn=20), row(1, 2, learn=9), row(1)],
    "nothing shared": [row(1, 2), row(3, 2), row(4)],
}
COMPUTED = {  # tokens, counted by hand: a run of nine once for each prefix that it stands behind
    "two levels": 9 * 5,
    "three levels": 9 * (2 + 4 + 1 + 1 + 2),
    "twice the same": 9 * 3,
    "a row that begins another": 9 * 3,
    "nothing shared": 9 * 5,
}


def model_of(folder: Path, method: str, *, again: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(1))
    attention.install_attention(model)
    recomputation.replace_norms_and_mlps(model, dtype)
    model = methods.resolve(method).prepare(model, Train(method=method, lora_rank=4))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(2))
    if again:
        layers.enable_checkpointing(model)
    return model.train()


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("name", FORESTS)
def test_each_token_stands_in_a_batch_once_at_its_own_position(name: str) -> None:
    rows = FORESTS[name]
    batch = pack(rows, CPU, share_at_least=1)
    assert len(batch.tokens) == batch.segments.tokens == COMPUTED[name]
    for one, path in zip(rows, batch.segments.paths, strict=True):
        assert batch.tokens[path].tolist() == one.ids.tolist()
        assert batch.segments.positions[0][path].tolist() == list(range(len(one.ids)))


def test_a_token_is_predicted_from_the_one_before_it_in_each_row_that_learns_it() -> None:
    first, second = Row(np.array([5, 6, 7, 8]), np.arange(4) >= 3), Row(np.array([5, 6, 7, 9]), np.arange(4) >= 2)
    batch = pack([first, second], CPU, share_at_least=3)
    assert batch.tokens.tolist() == [5, 6, 7, 8, 9]
    assert (batch.predicted_from.tolist(), batch.targets.tolist()) == (
        [2, 1, 2],
        [8, 7, 9],
    )  # 7 is a question in the first row
    assert (batch.loss_tokens, batch.loss_tokens_by_row) == (3, (1, 2))
    twice = pack([second, second], CPU, share_at_least=3)
    assert twice.tokens.tolist() == [5, 6, 7, 9]
    assert (twice.predicted_from.tolist(), twice.targets.tolist()) == ([1, 2, 1, 2], [7, 9, 7, 9])


def test_too_short_a_prefix_is_computed_with_each_row() -> None:
    rows = [row(1, 2), row(1, 3), row(1, 3, 4)]
    assert packed.find_shared_prefixes(rows, 10) == (None, None, SharedPrefix(1, 18))
    assert packed.find_shared_prefixes(rows, 19) == ()
    assert packed.find_shared_prefixes(rows, 1) == (None, SharedPrefix(0, 9), SharedPrefix(1, 18))


@pytest.mark.parametrize("name", FORESTS)
@pytest.mark.parametrize(("method", "again"), [("full", False), ("full", True), ("lora", False), ("dora", True)])
def test_gradients_are_those_of_the_rows_alone(tiny_model: Path, method: str, again: bool, name: str) -> None:
    model = model_of(tiny_model, method, again=again)
    batch = pack(FORESTS[name], CPU, share_at_least=1)
    loss = summed_loss(model, batch)
    ours = gradients(model, loss)
    alone = sum((summed_loss(model, pack([one], CPU)) for one in FORESTS[name]), torch.zeros(()))
    torch.testing.assert_close(loss, alone, rtol=1e-5, atol=1e-4)
    assert batch.loss_tokens == sum(int(one.loss_mask[1:].sum()) for one in FORESTS[name])
    for weight, wanted in gradients(model, alone).items():
        torch.testing.assert_close(ours[weight], wanted, rtol=1e-3, atol=2e-5 * max(1, float(wanted.abs().max())))


@pytest.mark.parametrize("name", FORESTS)
@pytest.mark.parametrize("padding", [0, 1 << 20])
def test_sums_of_each_row_and_their_gradients_are_those_of_the_rows_alone(
    tiny_model: Path, name: str, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(packed.PADDED, "cpu", padding)  # each row by itself, or all of them padded to one shape
    model = model_of(tiny_model, "full")
    weights = torch.arange(1.0, 1 + len(FORESTS[name]))  # each row counts otherwise, as in DPO
    together = row_likelihoods(model, pack(FORESTS[name], CPU, share_at_least=1))
    ours = gradients(model, together @ weights)
    alone = torch.cat([row_likelihoods(model, pack([one], CPU)) for one in FORESTS[name]])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)
    for weight, wanted in gradients(model, alone @ weights).items():
        torch.testing.assert_close(ours[weight], wanted, rtol=1e-3, atol=2e-5 * max(1, float(wanted.abs().max())))


@pytest.mark.parametrize("name", FORESTS)
def test_in_bf16_gradients_are_as_near_to_fp32_as_those_of_whole_rows(tiny_model: Path, name: str) -> None:
    def of(dtype: torch.dtype, share: int | None) -> torch.Tensor:
        model = model_of(tiny_model, "full", dtype=dtype)
        found = gradients(model, summed_loss(model, pack(FORESTS[name], CPU, share_at_least=share)))
        return torch.cat([gradient.float().flatten() for gradient in found.values()])

    exact = of(torch.float32, None)
    whole, shared = of(torch.bfloat16, None), of(torch.bfloat16, 1)
    assert (shared - exact).norm() < 1.5 * (whole - exact).norm()


def test_a_head_that_makes_its_own_scores_gives_the_same(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luthier.model.probes.has_plain_head", lambda model: False)
    model = model_of(tiny_model, "full")
    rows = FORESTS["twice the same"]
    together = row_likelihoods(model, pack(rows, CPU, share_at_least=1))
    torch.testing.assert_close(together, torch.cat([row_likelihoods(model, pack([one], CPU)) for one in rows]))


def test_a_model_of_plain_attention_takes_shared_prefixs(tiny_model: Path) -> None:
    model = model_of(tiny_model, "lora")
    assert prefix_sharing.supported(model, 100) and model.training
    rows = [row(1, 2, 3), row(1, 2, 4), row(1, 5)]
    assert len(prefix_sharing.pack_batch(model, rows).tokens) == 9 * (3 + 1 + 2)  # a prefix of nine is not worth it


def mistral(window: int | None) -> PreTrainedModel:
    config = AutoConfig.for_model(
        "mistral", vocab_size=384, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=window, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    attention.install_attention(model)
    return model  # type: ignore[no-any-return]


def test_a_window_shorter_than_the_longest_row_to_come_keeps_rows_whole() -> None:
    assert prefix_sharing.supported(mistral(None), 1000) and prefix_sharing.supported(mistral(64), 64)
    windowed = mistral(64)
    assert not prefix_sharing.supported(windowed, 65)
    assert not prefix_sharing.supported(windowed, 30)  # once for a model: it does not change its mind
    rows = [row(1, 2, 3), row(1, 2, 4)]
    assert len(prefix_sharing.pack_batch(windowed, rows).tokens) == 9 * 6
    with pytest.raises(attention.PrefixSharingUnsupported):
        summed_loss(mistral(4), pack(rows, CPU, share_at_least=1))


def test_attention_that_is_not_ours_keeps_rows_whole(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation="eager")
    attention.install_attention(model)
    assert not prefix_sharing.supported(model, 10)


def test_a_model_that_takes_no_notice_of_paths_is_found_out(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tiny_model, "full")

    def of_all_rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any) -> torch.Tensor:
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2).cumsum(1)

    monkeypatch.setattr(attention, "_attend_in_buckets", of_all_rows)
    assert not prefix_sharing.supported(model, 10)


def settings(**changes: object) -> Train:
    values: dict[str, Any] = {
        "epochs": 1, "max_steps": 6, "learning_rate": 5e-3, "warmup_steps": 2, "tokens_per_step": 600,
        "tokens_per_batch": 400, "check_every": 3, "precision": "fp32", "patience": 9,
    }  # fmt: skip
    return Train(**(values | changes))


def talk(number: int) -> Conversation:
    """Two questions with thoughts about both, of which the template shows those behind the last question only."""
    said = [Message("system", "You count for people, one step at a time, and you never guess.")]
    for turn in range(2):
        said.append(Message("user", f"What is {number} and {turn} and seven?"))
        thoughts = f"First {number}, then {turn}, then seven."
        said.append(Message("assistant", f"It is {number + turn + 7}.", reasoning=thoughts))
    return Conversation(tuple(said))


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [message.content for number in range(20) for message in talk(number).messages]
    return thinking.make(tmp_path_factory.mktemp("thinker"), texts)


@pytest.fixture(scope="module")
def talks(thinker: Path, tmp_path_factory: pytest.TempPathFactory) -> prepared.Prepared:
    """Prepared rows of twelve conversations, one row for each of their answers."""
    template = loading.load(str(thinker), today=date(2026, 1, 1)).template
    items = [Item(str(number), f"talks.jsonl:{number + 1}", str(number), talk(number)) for number in range(12)]
    path = tmp_path_factory.mktemp("talks") / "train.arrow"
    prepared.write(path, [row for item in items for row in pieces(item, template.rows(item.conversation))])
    return prepared.Prepared(path)


def test_a_conversation_of_one_row_per_answer_trains_in_one_batch_with_its_prefix_computed_once(
    thinker: Path, talks: prepared.Prepared
) -> None:
    assert len(talks) == 24  # the first answer's thoughts are not in the second answer's row
    steps = order.Steps.of(talks.lengths, settings(max_steps=None), shared=shared_prefixes(talks))
    batches = [batch for step in steps for batch in step.batches]
    assert all(
        batch[at] + 1 == batch[at + 1] for batch in batches for at in range(0, len(batch), 2) if batch[at] % 2 == 0
    )
    assert all(len(batch) % 2 == 0 and batch[0] % 2 == 0 for batch in batches)
    model = loading.load(str(thinker)).model
    attention.install_attention(model)
    both = [talks[0], talks[1]]
    batch = prefix_sharing.pack_batch(model, both)
    assert len(batch.tokens) == len({tuple(one.ids[:end]) for one in both for end in range(1, len(one.ids) + 1)})
    assert batch.loss_tokens == sum(int(one.loss_mask[1:].sum()) for one in both)
    alone = sum((summed_loss(model, pack([one], CPU)) for one in both), torch.zeros(()))
    torch.testing.assert_close(summed_loss(model, batch), alone, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("method", "objective"), [("full", "sft"), ("lora", "text")])
def test_a_stopped_run_of_conversations_ends_with_the_same_weights_and_tells_what_it_computed(
    thinker: Path, talks: prepared.Prepared, tmp_path: Path, method: str, objective: str
) -> None:
    config = settings(method=method, objective=objective)

    def run(name: str, **more: Any) -> loop.Outcome:
        (tmp_path / name).mkdir(exist_ok=True)
        model = methods.resolve(method).prepare(loading.load(str(thinker)).model, config)
        more.setdefault("record", lambda kind, **fields: None)
        return loop.train(model, talks, counting(4), config, checkpoints=tmp_path / name, **more)

    events: list[tuple[str, dict[str, Any]]] = []
    wanted = run("whole", record=lambda kind, **fields: events.append((kind, fields))).weights
    told = [fields for kind, fields in events if kind == "step"]
    assert all(fields["computed"] < 0.8 * fields["tokens"] for fields in told)
    assert dict(events)["selftest"]["shared"]
    for stop_after in (2, 3):
        seen = count(1)
        with pytest.raises(Interrupted):
            run("stopped", stop=lambda seen=seen, at=stop_after: next(seen) >= at)
    continued = run("stopped").weights
    assert all(torch.equal(continued[name], weight) for name, weight in wanted.items())


def test_steps_are_those_of_rows_that_are_computed_whole(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Rows(row(1, 2, 3 + number % 5, 4 + number % 3, learn=14 + number % 7) for number in range(30))

    def run(name: str) -> list[dict[str, Any]]:
        (tmp_path / name).mkdir()
        told: list[dict[str, Any]] = []
        loop.train(
            AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), rows, counting(4),
            settings(max_steps=3), checkpoints=tmp_path / name,
            record=lambda kind, **fields: told.append(fields) if kind == "step" else None,
        )  # fmt: skip
        return told

    ours = run("shared")
    monkeypatch.setattr(prefix_sharing, "supported", lambda model, longest: False)
    for mine, whole in zip(ours, run("whole"), strict=True):
        assert mine["computed"] < whole["computed"] == whole["tokens"] == mine["tokens"]
        assert mine["learnt"] == whole["learnt"]
        assert mine["loss"] == pytest.approx(whole["loss"], rel=1e-4)
        assert mine["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=1e-3)


def test_a_model_that_takes_no_shared_prefixs_says_so_and_trains(tmp_path: Path) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    model = mistral(window=8)
    loop.train(
        model, counting(20), counting(4, seed=1), settings(max_steps=1), checkpoints=tmp_path,
        record=lambda kind, **fields: events.append((kind, fields)),
    )  # fmt: skip
    assert [fields["message"] for kind, fields in events if kind == "warning"] == [
        "this model has its own attention, so a prefix shared by several rows is computed once per row."
    ]
    (step,) = [fields for kind, fields in events if kind == "step"]
    assert step["computed"] == step["tokens"]
