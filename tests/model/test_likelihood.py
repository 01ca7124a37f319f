"""Likelihoods are those of the plain formula, however many texts share a row."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from luthier.model import likelihood, loading, prefix_tree
from luthier.model.likelihood import Likelihood, continuations, windows
from luthier.model.loading import LanguageModel
from luthier.model.prefix_tree import Question, TreeRow
from luthier.model.reference import ModelReference
from luthier.model.tokenizer import template_of

Pair = tuple[list[int], list[int]]

LONG = [(7 * position) % 250 + 20 for position in range(60)]
PAIRS: list[Pair] = [
    ([5, 9, 40], [17, 4, 33]),
    ([5, 9, 40], [18]),
    ([5, 9, 40], [17, 4, 99, 6]),
    ([80], [3, 3]),
    ([*LONG, 12, 13], [50, 51]),
    ([*LONG, 12, 13], [50, 52]),
    (LONG, [4, 4]),
    ([*LONG, 77], [9]),
    ([*LONG, 77, 30], [9, 10, 11]),
]


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> LanguageModel:
    """The tiny model with larger weights, so that what a token sees changes its scores."""
    loaded = loading.load(str(tiny_model))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        for weight in loaded.model.parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.3)
    return loaded


@torch.inference_mode()
def plain(lm: LanguageModel, context: list[int], continuation: list[int]) -> Likelihood:
    """One text, one forward pass, log softmax over all its scores."""
    logprobs = lm.model(input_ids=torch.tensor([context + continuation])).logits[0].log_softmax(-1)
    places = range(len(context) - 1, len(context) + len(continuation) - 1)
    total = sum(logprobs[position, token].item() for position, token in zip(places, continuation, strict=True))
    greedy = all(logprobs[position].argmax() == token for position, token in zip(places, continuation, strict=True))
    return Likelihood(total, greedy)


@pytest.mark.parametrize("tokens_per_batch", [1, 100, 5000])
def test_likelihoods_are_those_of_the_plain_formula(lm: LanguageModel, tokens_per_batch: int) -> None:
    found = continuations(lm, PAIRS, tokens_per_batch=tokens_per_batch)
    for pair, ours in zip(PAIRS, found, strict=True):
        assert ours.logprob == pytest.approx(plain(lm, *pair).logprob, abs=1e-4)
        assert ours.greedy == plain(lm, *pair).greedy


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_that_are_padded_on_either_side_are_as_likely_as_ours(lm: LanguageModel, side: str) -> None:
    """A batch of plain transformers, its shorter texts filled up before or behind them."""
    texts = [[*context, *continuation] for context, continuation in PAIRS]
    longest = max(map(len, texts))
    blanks = [[0] * (longest - len(text)) for text in texts]
    ids = torch.tensor([b + t if side == "left" else t + b for t, b in zip(texts, blanks, strict=True)])
    mask = torch.tensor([
        [0] * len(b) + [1] * len(t) if side == "left" else [1] * len(t) + [0] * len(b)
        for t, b in zip(texts, blanks, strict=True)
    ])  # fmt: skip
    with torch.inference_mode():
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logprobs = lm.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits.log_softmax(-1)
    for row, (pair, ours) in enumerate(zip(PAIRS, continuations(lm, PAIRS), strict=True)):
        start = (len(blanks[row]) if side == "left" else 0) + len(pair[0])
        wanted = sum(logprobs[row, start + position - 1, token].item() for position, token in enumerate(pair[1]))
        assert ours.logprob == pytest.approx(wanted, abs=1e-4)


def test_a_continuation_is_greedy_where_the_model_would_write_it(lm: LanguageModel) -> None:
    context = [5, 9, 40]
    written = lm.model.generate(torch.tensor([context]), max_new_tokens=3, do_sample=False)[0, 3:].tolist()
    (same, other) = continuations(lm, [(context, written), (context, [*written[:-1], written[-1] - 1])])
    assert same.greedy and not other.greedy


def test_the_tiny_model_takes_trees_and_a_row_of_choices_holds_its_context_once(lm: LanguageModel) -> None:
    assert likelihood.takes_trees(lm)
    questions = [Question([5, 9, 40], [(0, [17, 4, 33]), (1, [18]), (2, [17, 4, 99, 6])])]
    (row,) = prefix_tree.build_rows(questions, window=1000, width=32, tokens_per_batch=100)
    assert row.ids == [5, 9, 40, 17, 4, 17, 4, 99]  # nothing is predicted from a continuation's last token
    assert row.positions == [0, 1, 2, 3, 4, 3, 4, 5]
    assert row.forks


def test_contexts_that_begin_alike_share_a_row() -> None:
    questions = [Question([*LONG, number], [(number, [1, 2])]) for number in range(3)]
    (row,) = prefix_tree.build_rows(questions, window=1000, width=32, tokens_per_batch=100)
    assert row.ids == [*LONG, 0, 1, 1, 1, 2, 1]
    assert row.positions == [*range(60), 60, 61, 60, 61, 60, 61]


def test_many_choices_are_spread_over_rows_of_bounded_length() -> None:
    question = Question([5, 6], [(number, [1, 2, 3, 4, number]) for number in range(40)])
    rows = prefix_tree.build_rows([question], window=1000, width=32, tokens_per_batch=50)
    assert max(len(row.ids) for row in rows) <= 50
    assert sorted(target.number for row in rows for target in row.targets) == sorted(list(range(40)) * 5)


def test_a_token_sees_its_own_text_only() -> None:
    row = TreeRow([1], [Question([1, 2], [(0, [3, 4, 9]), (1, [5, 6])]), Question([1, 7], [(2, [8, 9])])])
    batch = prefix_tree.inputs([row, TreeRow((), [Question([1], [(3, [2])])])], torch.device("cpu"), torch.float32)
    assert row.ids == [1, 2, 3, 4, 5, 7, 8]
    assert batch.mask is not None
    seen = [[position for position in range(7) if batch.mask[0, 0, token, position] == 0] for token in range(7)]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [0, 5], [0, 5, 6]]


def test_windows_predict_every_token_once_with_all_the_context_that_fits() -> None:
    # the example in lm-eval's documentation of rolling likelihoods: ten tokens, a context of four
    assert list(windows(["bos"], list(range(10)), 4)) == [  # type: ignore[list-item]
        (["bos"], [0, 1, 2, 3]),
        ([3], [4, 5, 6, 7]),
        ([5, 6, 7], [8, 9]),
    ]
    assert list(windows([1, 2, 3, 4, 5], [6, 7], 4)) == [([3, 4, 5], [6, 7])]


def test_a_text_longer_than_the_context_is_scored_whole(lm: LanguageModel) -> None:
    text = [(13 * position) % 300 + 5 for position in range(lm.context + 90)]
    (ours,) = continuations(lm, [([1], text)])
    wanted = sum(plain(lm, list(before), list(part)).logprob for before, part in windows([1], text, lm.context))
    assert ours.logprob == pytest.approx(wanted, abs=1e-2)


def test_batches_are_told_and_add_up_to_all(lm: LanguageModel) -> None:
    told: list[dict[int, Likelihood]] = []
    found = continuations(lm, PAIRS, tokens_per_batch=1, on_batch=told.append)
    assert len(told) > 1
    assert {number: value for batch in told for number, value in batch.items()} == dict(enumerate(found))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_adapters_count_on_the_head_too(lm: LanguageModel, tiny_model: Path) -> None:
    base = loading.load(str(tiny_model))
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(base.model, LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.fill_(0.1)
    tuned = LanguageModel(ModelReference("tiny", tiny_model), adapted, base.tokenizer, base.template)  # type: ignore[arg-type]
    found = continuations(tuned, PAIRS)
    for pair, ours in zip(PAIRS, found, strict=True):
        assert ours.logprob == pytest.approx(plain(tuned, *pair).logprob, abs=1e-4)


def test_a_model_with_a_state_is_given_plain_rows(mamba: torch.nn.Module, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = LanguageModel(ModelReference("tiny", tiny_model), mamba.eval(), tokenizer, template_of(tokenizer))  # type: ignore[arg-type]
    assert not likelihood.takes_trees(model)
    for pair, ours in zip(PAIRS, continuations(model, PAIRS), strict=True):
        assert ours.logprob == pytest.approx(plain(model, *pair).logprob, rel=1e-4, abs=1e-3)
