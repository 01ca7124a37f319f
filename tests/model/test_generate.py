"""A question gets the same answer alone, in any company, token by token, and in plain transformers; drawn ones too."""

from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.chat import Message
from luthier.model import decoding, generate, loading
from luthier.model.loading import LanguageModel

QUESTIONS = [
    "Hi",
    "What is the capital of France?",
    "Reset my password, please. " * 6,
    "Why?",
    "The printer prints blue pages.",
]


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> LanguageModel:
    return loading.load(str(tiny_model))


@pytest.fixture(scope="module")
def prompts(lm: LanguageModel) -> list[list[int]]:
    return [lm.template.prompt([Message("user", question)]) for question in QUESTIONS]


def test_answers_are_those_of_plain_transformers(lm: LanguageModel, prompts: list[list[int]]) -> None:
    for prompt, reply in zip(prompts, generate.answer(lm, prompts, max_new_tokens=20), strict=True):
        plain = lm.model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)[0, len(prompt) :].tolist()
        assert reply.ids == plain


def test_an_answer_is_the_same_alone_and_in_a_batch(lm: LanguageModel, prompts: list[list[int]]) -> None:
    together = generate.answer(lm, prompts, max_new_tokens=20)
    assert [reply.ids for reply in together] == [
        generate.answer(lm, [prompt], max_new_tokens=20)[0].ids for prompt in prompts
    ]


def test_batches_of_any_size_answer_alike_and_in_order(lm: LanguageModel, prompts: list[list[int]]) -> None:
    wanted = [reply.ids for reply in generate.answer(lm, prompts, max_new_tokens=8)]
    for budget in (1, 60, 300):
        assert [
            reply.ids for reply in generate.answer(lm, prompts, max_new_tokens=8, tokens_per_batch=budget)
        ] == wanted


def test_streamed_tokens_are_the_answer(lm: LanguageModel, prompts: list[list[int]]) -> None:
    assert (
        list(generate.stream(lm, prompts[1], max_new_tokens=12))
        == generate.answer(lm, prompts, max_new_tokens=12)[1].ids
    )


def test_a_shared_beginning_is_computed_once_and_changes_nothing(lm: LanguageModel) -> None:
    head = Message("system", "You answer briefly and to the point, and never about anything else than printers.")
    prompts = [lm.template.prompt([head, Message("user", question)]) for question in QUESTIONS]
    assert decoding.shared_beginning(prompts) > 40
    assert [reply.ids for reply in generate.answer(lm, prompts, max_new_tokens=12)] == [
        generate.answer(lm, [prompt], max_new_tokens=12)[0].ids for prompt in prompts
    ]


def test_a_shared_beginning_leaves_each_prompt_a_token() -> None:
    same = list(range(40))
    assert decoding.shared_beginning([same, same]) == 39
    assert decoding.shared_beginning([same, same[:20]]) == 19
    assert decoding.shared_beginning([same]) == 0
    assert decoding.shared_beginning([[1, 2, 3], [1, 2, 4]]) == 0


def test_answers_end_at_the_limit_or_at_the_end_token(lm: LanguageModel, prompts: list[list[int]]) -> None:
    for reply in generate.answer(lm, prompts, max_new_tokens=5):
        assert len(reply.ids) <= 5
        assert (reply.finish == "stop") == (reply.ids[-1] in lm.template.stop_ids)


def test_generation_stops_where_the_context_ends(lm: LanguageModel) -> None:
    prompt = lm.template.prompt([Message("user", "x" * 600)])[: lm.context - 4]
    assert len(generate.answer(lm, [prompt], max_new_tokens=50)[0].ids) <= 4


def test_each_batch_is_told_as_soon_as_it_is_done(lm: LanguageModel, prompts: list[list[int]]) -> None:
    told: list[set[int]] = []
    generate.answer(lm, prompts, max_new_tokens=4, tokens_per_batch=1, on_batch=lambda done: told.append(set(done)))
    assert sorted(number for batch in told for number in batch) == [0, 1, 2, 3, 4]
    assert len(told) == 5


def test_drawn_answers_depend_on_their_seed_and_not_on_their_company(
    lm: LanguageModel, prompts: list[list[int]]
) -> None:
    seeds = [(7, number) for number in range(len(prompts))]
    drawn = generate.answer(lm, prompts, max_new_tokens=12, sampling=generate.Sampling(1.0, seeds))
    for prompt, seed, reply in zip(prompts, seeds, drawn, strict=True):
        (alone,) = generate.answer(lm, [prompt], max_new_tokens=12, sampling=generate.Sampling(1.0, [seed]))
        assert alone.ids == reply.ids
    again, other = (
        generate.answer(lm, prompts, max_new_tokens=12, sampling=generate.Sampling(1.0, [(seed, 1)] * len(prompts)))
        for seed in (7, 8)
    )
    assert [reply.ids for reply in again] != [reply.ids for reply in other]


def test_draws_come_as_often_as_the_model_says(lm: LanguageModel, prompts: list[list[int]]) -> None:
    with torch.inference_mode():
        expected = lm.model(input_ids=torch.tensor([prompts[0]])).logits[0, -1].double().div(0.05).softmax(dim=-1)
    draws = 4_000
    sampling = generate.Sampling(0.05, [(0, number) for number in range(draws)])
    replies = generate.answer(lm, [prompts[0]] * draws, max_new_tokens=1, sampling=sampling, tokens_per_batch=10**6)
    counts = torch.bincount(torch.tensor([reply.ids[0] for reply in replies]), minlength=len(expected))
    spread = (expected * (1 - expected) / draws).sqrt()
    assert ((counts / draws - expected).abs() <= 5 * spread + 1e-3).all()
    assert expected.max() < 0.9


def test_a_temperature_near_zero_draws_the_likeliest(lm: LanguageModel, prompts: list[list[int]]) -> None:
    cold = generate.Sampling(1e-6, [(1, number) for number in range(len(prompts))])
    greedy = generate.answer(lm, prompts, max_new_tokens=8)
    assert [reply.ids for reply in generate.answer(lm, prompts, max_new_tokens=8, sampling=cold)] == [
        reply.ids for reply in greedy
    ]


def test_prompts_that_are_read_in_portions_are_answered_as_if_alone(lm: LanguageModel) -> None:
    mixed = [[(11 * place + number) % 300 + 5 for place in range(3 + 17 * number % 90)] for number in range(24)]
    shared = [[*range(5, 45), *prompt] for prompt in mixed]
    for prompts in (mixed, shared):
        assert sum(map(len, prompts)) > decoding.CPU_READS
        assert [reply.ids for reply in generate.answer(lm, prompts, max_new_tokens=9)] == [
            generate.answer(lm, [prompt], max_new_tokens=9)[0].ids for prompt in prompts
        ]


def test_an_answer_ends_with_the_token_that_completes_a_stop_text(lm: LanguageModel, prompts: list[list[int]]) -> None:
    whole = [lm.template.tokenizer.decode(reply.ids) for reply in generate.answer(lm, prompts, max_new_tokens=24)]
    end = whole[0][3:5]
    for text, reply in zip(whole, generate.answer(lm, prompts, max_new_tokens=24, stop_strings=[end]), strict=True):
        cut = lm.template.tokenizer.decode(reply.ids)
        assert text.startswith(cut)
        assert end not in cut[:-9]
        assert (end in cut) == (end in text)
        assert reply.finish == ("stop" if end in text or reply.ids[-1] in lm.template.stop_ids else "length")


def near_the_end(lm: LanguageModel) -> list[int]:
    """A prompt that leaves room for seven tokens."""
    return [(11 * place) % 300 + 5 for place in range(lm.context - 7)]


@pytest.mark.parametrize("company", ["near the end", "beyond"])
def test_a_long_neighbour_takes_no_token_from_an_answer(
    lm: LanguageModel, prompts: list[list[int]], company: str
) -> None:
    long = near_the_end(lm) + ([9] * 30 if company == "beyond" else [])
    seeds = [(3, number) for number in range(len(prompts) + 1)]
    for named in ({}, {"sampling": generate.Sampling(1.0, seeds)}, {"stop_strings": ["zz"]}):
        *beside, last = generate.answer(lm, [*prompts, long], max_new_tokens=24, **named)  # type: ignore[arg-type]
        alone = generate.answer(lm, prompts, max_new_tokens=24, **named)  # type: ignore[arg-type]
        assert [(reply.ids, reply.finish) for reply in beside] == [(reply.ids, reply.finish) for reply in alone]
        assert max(len(reply.ids) for reply in beside) == 24
        assert (len(last.ids), last.finish) == ((7, "length") if company == "near the end" else (0, generate.NO_ROOM))


def test_prompts_near_the_end_of_the_context_are_answered_up_to_it_and_as_if_alone(lm: LanguageModel) -> None:
    crowd = [[*near_the_end(lm), *range(20, 27)][: lm.context - room] for room in (1, 2, 7, 8, 9, 30, 200)]
    replies = generate.answer(lm, crowd, max_new_tokens=20)
    assert [len(reply.ids) for reply in replies] == [1, 2, 7, 8, 9, 20, 20]
    assert [reply.ids for reply in replies] == [
        list(generate.stream(lm, prompt, max_new_tokens=20)) for prompt in crowd
    ]


def test_each_prompt_may_have_a_limit_of_its_own(lm: LanguageModel, prompts: list[list[int]]) -> None:
    whole = generate.answer(lm, prompts, max_new_tokens=20)
    limits = [3, 20, 0, 7, 1]
    cut = generate.answer(lm, prompts, max_new_tokens=limits)
    assert [reply.ids for reply in cut] == [reply.ids[:most] for reply, most in zip(whole, limits, strict=True)]


def test_a_prompt_that_fills_the_context_streams_nothing(lm: LanguageModel) -> None:
    assert list(generate.stream(lm, [*near_the_end(lm), *[9] * 7], max_new_tokens=5)) == []


def test_a_row_that_is_over_is_computed_no_more(
    lm: LanguageModel, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were over went on until a quarter of a batch was; now each token of an answer costs one."""
    computed: list[int] = []
    forward = decoding.forward

    def counted(lm: LanguageModel, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        computed.append(len(tokens) if tokens.shape[1] == 1 else 0)
        return forward(lm, tokens, *rest)

    alone = [generate.answer(lm, [prompt], max_new_tokens=20)[0].ids for prompt in prompts]
    monkeypatch.setattr(decoding, "forward", counted)
    limits = [7, 2, 20, 1, 12]
    replies = generate.answer(lm, prompts, max_new_tokens=limits)
    assert [reply.ids for reply in replies] == [ids[:most] for ids, most in zip(alone, limits, strict=True)]
    assert sum(computed) == sum(len(reply.ids) - 1 for reply in replies)  # the first one comes from the prompt


def test_rows_in_gaps_leave_the_others_where_they_are() -> None:
    assert decoding.compact([0, 2, 5, 6]) == [0, 6, 2, 5]
    assert decoding.compact([3]) == [3] and decoding.compact([0, 1]) == [0, 1]
