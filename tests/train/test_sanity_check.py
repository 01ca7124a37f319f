"""The sanity check passes where training is what the rows say, and names the row where it is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from luthier.errors import UserError
from luthier.model import attention, probes
from luthier.model.packed import Packed, pack
from luthier.train import sanity_check
from token_rows import Row, Rows

END = 2


def conversations(count: int) -> Rows:
    """A question that is not learnt, an answer and its end that are."""
    generator = np.random.default_rng(3)
    rows = Rows()
    for question in range(4, 4 + count):
        ids = np.append(generator.integers(5, 300, question + 9), END)
        rows.append(Row(ids, np.arange(len(ids)) >= question))
    return rows


@pytest.fixture
def model(tiny_model: Path) -> PreTrainedModel:
    made = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for weight in made.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(1))
    attention.install_attention(made)
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize("count", [1, 2, 12])
def test_rows_as_they_should_be_pass(model: PreTrainedModel, count: int) -> None:
    found = sanity_check.run(model, conversations(count), {END})
    assert (found.rows, found.loss_tokens) == (min(8, count), 10 * min(8, count))
    assert found.rows_end and found.rows_apart


def test_where_no_token_is_known_to_end_answers_it_is_told_and_not_refused(model: PreTrainedModel) -> None:
    texts = Rows(Row(np.arange(start, end), np.ones(end - start, dtype=bool)) for start, end in ((7, 11), (11, 14)))
    found = sanity_check.run(model, texts)
    assert not found.rows_end
    assert found.loss_tokens == 3 + 2  # a row's first token follows nothing


@pytest.mark.parametrize("learn", [[False] * 5, [True] + [False] * 4])
def test_a_row_of_which_nothing_is_learnt_is_refused_by_name(model: PreTrainedModel, learn: list[bool]) -> None:
    rows = conversations(4)
    rows[2] = Row(np.array([5, 6, 7, 8, END]), np.array(learn))
    with pytest.raises(UserError, match=r"rows\.jsonl:3: this row has no loss tokens behind its first token"):
        sanity_check.run(model, rows, {END})


def test_a_row_whose_last_learnt_token_ends_no_answer_is_refused_by_name(model: PreTrainedModel) -> None:
    rows = conversations(4)
    rows[1].loss_mask[-1] = False
    with pytest.raises(UserError, match=r"rows\.jsonl:2: the last loss token of this row does not end an answer"):
        sanity_check.run(model, rows, {END})


def test_a_count_that_is_not_that_of_the_flags_is_refused(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_of_it(rows: list[Any], device: torch.device) -> Packed:
        return pack([Row(row.ids, np.ones(len(row.ids), dtype=bool)) for row in rows], device)

    monkeypatch.setattr(sanity_check, "pack", all_of_it)
    with pytest.raises(UserError, match=r"rows\.jsonl:1: this row has 10 loss tokens, but 13 count"):
        sanity_check.run(model, conversations(2), {END})


def test_a_loss_that_is_not_the_one_of_the_model_s_own_scores_is_refused(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.config.logit_scale = 0.5  # a factor that this model does not know and our loss would believe in
    assert not sanity_check.run(model, conversations(2), {END}).plain_head
    monkeypatch.setattr(probes, "has_plain_head", lambda model: True)
    with pytest.raises(
        UserError, match=r"rows\.jsonl:1: the loss on the beginning of this row is .* by the model's own logits"
    ):
        sanity_check.run(model, conversations(2), {END})


def test_a_model_whose_layers_carry_a_state_is_found_to_mix_rows(mamba: Any) -> None:
    assert not sanity_check.run(mamba, conversations(3), {END}).rows_apart


def test_it_leaves_the_model_as_it_was(model: PreTrainedModel) -> None:
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    model.train()
    sanity_check.run(model, conversations(3), {END})
    assert model.training
    assert all(torch.equal(weight, before[name]) and weight.grad is None for name, weight in model.named_parameters())


def test_weights_that_are_no_numbers_are_named(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
        model.model.embed_tokens.weight[377, 0] = float("inf")  # of a token that no row has
    told = (
        r"hold values that are no numbers .* any training: model\.embed_tokens\.weight, model\.layers\.1\.mlp\.up_proj"
    )
    with pytest.raises(UserError, match=told):
        sanity_check.run(model, conversations(3), {END})


def test_scores_that_overflow_are_told_as_that(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight *= 1e38
    with pytest.raises(
        UserError, match=r"rows\.jsonl:1: the model's own loss on .* is nan, though its weights are finite"
    ):
        sanity_check.run(model, conversations(3), {END})


def test_a_head_of_another_kind_is_told_and_learns_the_right_loss() -> None:
    config = AutoConfig.for_model(
        "hyperclovax", vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, pad_token_id=0, eos_token_id=2, logits_scaling=0.25,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    found = sanity_check.run(made, conversations(3), {END})
    assert (found.plain_head, found.rows_apart) == (False, True)


def test_rows_beyond_which_a_model_stretches_its_positions_are_found() -> None:
    factors = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config = AutoConfig.for_model(
        "phi3", vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, max_position_embeddings=256,
        rope_parameters=factors, original_max_position_embeddings=64, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for weight in made.parameters():
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.4)
    assert [
        sanity_check.run(made, conversations(3), {END}, longest=longest).longest_packed for longest in (60, 200)
    ] == [
        60,
        64,
    ]
