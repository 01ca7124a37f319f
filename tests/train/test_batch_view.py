"""What is drawn of a row is what a training step gets of it: the loop's own order, packing and loss decide."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.model import attention, prefix_sharing
from luthier.model.spec import ModelSpec
from luthier.recipe import Train
from luthier.train import batch_view, objectives, order
from luthier.train.objectives import Pairs
from luthier.train.rows import TokenRows, shared_prefixes
from token_rows import Row, Rows, counting


class Conversations(Rows):
    """Rows of which each two are answers of one conversation, and share their first 20 tokens and more."""

    @property
    def shared_prefixes(self) -> list[int]:
        return [20 if number % 2 else 0 for number in range(len(self))]

    def location(self, number: int) -> str:
        return f"rows.jsonl:{number // 2 + 1}"


def conversations(number: int) -> Conversations:
    rows = Conversations()
    for at in range(number):
        first = 10 + (7 * at + np.arange(20)) % 300
        for length in (24, 31):
            ids = np.concatenate([first, 10 + (at + 5 * length + np.arange(length - 20)) % 300])
            rows.append(Row(ids, np.arange(length) >= length - 3))
    return rows


class PairsOfRows(Rows):
    """Each row with a rejected twin, the same but for its end."""

    def rejected(self, number: int) -> Row:
        row = self[number]
        return Row(np.append(row.ids[:-1], [5, 6]), np.append(row.loss_mask, True))


class Labelled(Rows):
    """Rows of which people liked every other one."""

    def label(self, number: int) -> bool:
        return number % 2 == 0


def settings(**changes: Any) -> Train:
    return Train(**{"epochs": 2, "tokens_per_step": 200, "tokens_per_batch": 90, "seed": 3} | changes)


@pytest.fixture
def model(tiny_model: Path) -> Any:
    found = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    attention.install_attention(found)
    return found


@pytest.mark.parametrize(
    ("word", "rows"),
    [
        ("sft", counting(30)),
        ("text", counting(30)),
        ("sft", conversations(12)),
        ("dpo", PairsOfRows(counting(12))),
        ("kto", Labelled(counting(12))),
    ],
    ids=["rows", "texts", "conversations", "pairs", "labelled"],
)
def test_what_is_drawn_is_what_a_step_gets(model: Any, tmp_path: Path, word: str, rows: Any) -> None:
    wanted = settings(objective=word)
    objective = objectives.resolve(word)(model, wanted, tmp_path)
    trained = objective.prepare_rows(rows, "train")
    steps = order.Steps.of(trained.lengths, wanted, shared=shared_prefixes(trained), computed_once=True)
    seen = {one.number: one for one in batch_view.find(batch_view.as_trained(word, rows), range(len(rows)), wanted)}
    assert sorted(seen) == list(range(len(rows)))
    for at, step in enumerate(steps[: len(steps) // 2]):  # the first epoch
        for numbers in step.batches:
            measured = objective.measure(model, trained, numbers)
            inside = [
                row
                for number in numbers
                for row in (trained.pair(number) if isinstance(trained, Pairs) else (trained[number],))
            ]
            packed = prefix_sharing.pack_batch(model, inside)
            drawn = [row for number in numbers for row in seen[number].rows]
            assert [row.ids.tolist() for row in drawn] == [row.ids.tolist() for row in inside]
            paths = packed.segments.paths
            assert [row.ids.tolist() for row in drawn] == [packed.tokens[path].tolist() for path in paths]
            assert [row.shared for row in drawn] == list(packed.segments.starts)
            targets = [token for row in drawn for token in row.ids[row.loss_mask].tolist()]
            assert targets == packed.targets.tolist() and measured.loss_tokens == len(targets)
            for number in numbers:
                position = seen[number].position
                assert (position.step, position.steps, position.rows) == (at + 1, len(steps), len(inside))
                assert (position.tokens, position.computed) == (sum(len(row.ids) for row in inside), measured.computed)


def test_a_conversations_second_row_shares_what_the_first_one_has() -> None:
    rows: TokenRows = conversations(3)
    first, second = sorted(batch_view.find(rows, [2, 3], settings()), key=lambda one: one.number)
    shares, owner = (second, first) if second.rows[0].shared else (first, second)
    assert shares.rows[0].shared == 20 and owner.rows[0].shared == 0
    assert shares.names[shares.rows[0].shared_with] == "rows.jsonl:2"


def test_without_sharing_all_tokens_are_computed_and_alone_a_row_has_its_own_batch() -> None:
    rows: TokenRows = conversations(3)
    [one] = batch_view.find(rows, [3], settings(), prefixes_shared=False)
    assert one.rows[0].shared == 0 and one.position.computed == one.position.tokens
    [one] = batch_view.find(rows, [3], settings(tokens_per_batch=1), prefixes_shared=False)
    assert (one.position.rows, one.position.tokens) == (1, 31)


def test_a_row_that_no_step_reaches_is_not_found() -> None:
    rows = counting(40)
    found = [one.number for one in batch_view.find(rows, range(40), settings(max_steps=1))]
    assert 0 < len(found) < 40


def test_a_first_token_is_never_predicted() -> None:
    [row] = batch_view.unpack(
        batch_view.pack_rows([Row(np.array([7, 8, 9]), np.array([True, False, True]))], share=False)
    )
    assert (row.ids.tolist(), row.loss_mask.tolist()) == ([7, 8, 9], [False, False, True])


# What a model does with rows that share a batch, before it is loaded


def test_a_model_is_tried_on_two_layers_of_its_kind(tiny_model: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_model)
    found = batch_view.try_rows(ModelSpec.of(config), 300)
    assert (found.rows_apart, found.prefixes_shared, found.longest_packed) == (True, True, 300)
    wanted = settings()
    assert batch_view.as_checked(wanted, apart=True, shared=True, together=300, longest=300) == (wanted, True)


def test_a_model_that_carries_a_state_gets_one_row_a_batch(mamba: torch.nn.Module) -> None:
    found = batch_view.try_rows(ModelSpec.of(mamba.config), 300)  # type: ignore[arg-type]
    assert not found.rows_apart
    alone, shared = batch_view.as_checked(settings(), apart=False, shared=False, together=300, longest=300)
    assert (alone.tokens_per_batch, shared) == (1, False)


def test_a_model_with_a_short_window_shares_no_prefixes(tiny_model: Path) -> None:
    sizes = {
        "vocab_size": 384,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    config = AutoConfig.for_model("mistral", **sizes, num_key_value_heads=2, sliding_window=16)
    assert not batch_view.try_rows(ModelSpec.of(config), 300).prefixes_shared
    assert batch_view.try_rows(ModelSpec.of(config), 12).prefixes_shared
