"""A question gets the same answer alone, in any company, token by token, and in plain transformers."""

from pathlib import Path

import pytest
import torch

from luthier.chat import Message
from luthier.model import generate, loading
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
    assert generate.shared_beginning(prompts) > 40
    assert [reply.ids for reply in generate.answer(lm, prompts, max_new_tokens=12)] == [
        generate.answer(lm, [prompt], max_new_tokens=12)[0].ids for prompt in prompts
    ]


def test_a_shared_beginning_leaves_each_prompt_a_token() -> None:
    same = list(range(40))
    assert generate.shared_beginning([same, same]) == 39
    assert generate.shared_beginning([same, same[:20]]) == 19
    assert generate.shared_beginning([same]) == 0
    assert generate.shared_beginning([[1, 2, 3], [1, 2, 4]]) == 0


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
