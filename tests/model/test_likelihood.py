"""Likelihoods are those of plain transformers, alone and in company."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from luthier.model import likelihood, loading
from luthier.model.loading import LanguageModel

CONTEXTS = ["What is the capital of France?", "Why?", "How do I reset my password, please? And the printer?"]
ENDS = [" Paris", " The printer in the kitchen prints only blue pages.", " x", " Open the settings"]


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> LanguageModel:
    return loading.load(str(tiny_model))


@pytest.fixture(scope="module")
def pairs(lm: LanguageModel) -> list[tuple[list[int], list[int]]]:
    return [(lm.tokenizer(context).input_ids, lm.tokenizer(end).input_ids) for context in CONTEXTS for end in ENDS]


def by_hand(lm: LanguageModel, context: Sequence[int], ids: Sequence[int]) -> tuple[float, bool]:
    """Σ log p of the ids behind the context, from one plain forward pass; whether each is the likeliest."""
    scores = lm.model(input_ids=torch.tensor([[*context, *ids]])).logits[0, len(context) - 1 : -1].log_softmax(dim=-1)
    return sum(scores[at, token].item() for at, token in enumerate(ids)), scores.argmax(dim=-1).tolist() == list(ids)


@torch.inference_mode()
def test_continuations_have_the_likelihood_that_a_plain_forward_pass_gives(
    lm: LanguageModel, pairs: list[tuple[list[int], list[int]]]
) -> None:
    for pair, found in zip(pairs, likelihood.continuations(lm, pairs), strict=True):
        logprob, greedy = by_hand(lm, *pair)
        assert found.logprob == pytest.approx(logprob, rel=1e-4)
        assert found.greedy == greedy


def test_what_the_model_says_itself_is_greedy(lm: LanguageModel, pairs: list[tuple[list[int], list[int]]]) -> None:
    context = pairs[0][0]
    said = lm.model.generate(torch.tensor([context]), max_new_tokens=6, do_sample=False)[0, len(context) :].tolist()
    assert likelihood.continuations(lm, [(context, said)])[0].greedy


def test_batches_are_told_as_they_come_and_small_ones_give_the_same(
    lm: LanguageModel, pairs: list[tuple[list[int], list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [found.logprob for found in likelihood.continuations(lm, pairs)]
    monkeypatch.setattr(likelihood, "TOKENS_PER_BATCH", 1)
    told: list[int] = []
    found = likelihood.continuations(lm, pairs, on_batch=lambda batch: told.extend(batch))
    assert [one.logprob for one in found] == pytest.approx(wanted, rel=1e-4)
    assert sorted(told) == list(range(len(pairs)))
