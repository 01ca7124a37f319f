"""An answer is the same alone and in any company; what is cancelled, refused or fails takes nobody along."""

import asyncio
import itertools
import random
import threading
from typing import Any

import pytest
import torch

from luthier.engine import engine as engines
from luthier.engine import loop
from luthier.engine.engine import Engine
from luthier.engine.requests import AnswerFailed, Busy, Closed, Finished, GenerationRequest, Piece
from luthier.errors import UserError
from luthier.model import cache, decoding, generate, likelihood
from luthier.model.loading import LanguageModel

Prompts = list[tuple[int, ...]]


def alone(lm: LanguageModel, prompt: tuple[int, ...], most: int) -> generate.Reply:
    return generate.answer(lm, [prompt], max_new_tokens=most)[0]


def test_answers_are_those_of_each_prompt_alone(engine: Engine, lm: LanguageModel, prompts: Prompts) -> None:
    limits = [1 + 7 * number % 40 for number in range(len(prompts))]
    streams = [engine.submit(GenerationRequest(prompt, most)) for prompt, most in zip(prompts, limits, strict=True)]
    for prompt, most, stream in zip(prompts, limits, streams, strict=True):
        wanted, found = alone(lm, prompt, most), stream.result()
        assert (list(found.ids), found.finished.finish) == (wanted.ids, wanted.finish)
        assert found.text == lm.template.tokenizer.decode(wanted.ids)
        assert (found.finished.prompt_tokens, found.finished.completion_tokens) == (len(prompt), len(wanted.ids))


@pytest.mark.parametrize("seed", range(3))
def test_arrivals_departures_and_short_memory_change_no_answer(lm: LanguageModel, prompts: Prompts, seed: int) -> None:
    """Requests come from several threads, at any time; some leave early; slots, memory and portions are small."""
    chance = random.Random(seed)
    asked = [(chance.choice(prompts), chance.randint(0, 30), chance.random() < 0.2) for _ in range(30)]
    found: dict[int, tuple[int, ...]] = {}
    with Engine(lm, threads=1, slots=chance.choice([2, 5, 9]), cache_bytes=chance.choice([2**16, 2**18])) as engine:
        engine._loop._beside = chance.choice([16, 64])

        def ask(numbers: range) -> None:
            for number in numbers:
                prompt, most, leaves = asked[number]
                stream = engine.submit(GenerationRequest(prompt, most, client=str(number % 3)))
                if leaves:
                    next(stream.events())
                    stream.cancel()
                else:
                    found[number] = stream.result().ids

        threads = [threading.Thread(target=ask, args=(range(first, 30, 6),)) for first in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.stats().failed == 0
    assert {number: list(ids) for number, ids in found.items()} == {
        number: alone(lm, prompt, most).ids for number, (prompt, most, leaves) in enumerate(asked) if not leaves
    }


def test_a_row_that_had_to_wait_again_is_answered_as_if_it_had_not(lm: LanguageModel, prompts: Prompts) -> None:
    some = [prompt for prompt in prompts if len(prompt) < 60]
    with Engine(lm, threads=1, cache_bytes=256 * 400) as engine:  # 256 bytes a token, a quarter of them for beginnings
        streams = [engine.submit(GenerationRequest(prompt, 60)) for prompt in some]
        assert [list(stream.result().ids) for stream in streams] == [alone(lm, prompt, 60).ids for prompt in some]
        assert engine.stats().preempted > 0


def test_the_end_of_the_context_ends_an_answer(engine: Engine, lm: LanguageModel) -> None:
    near, full = ((11 * np_ % 300 + 5 for np_ in range(lm.context - room)) for room in (3, 0))
    found = [engine.submit(GenerationRequest(tuple(prompt), 20)).result() for prompt in (near, full)]
    assert [(len(one.ids), one.finished.finish) for one in found] == [(3, "length"), (0, generate.NO_ROOM)]


def test_a_beginning_that_comes_again_is_computed_once(lm: LanguageModel, prompts: Prompts) -> None:
    head = tuple(range(50, 150))
    with Engine(lm, threads=1, slots=1) as engine:
        for number, prompt in enumerate(prompts[:5]):
            found = engine.submit(GenerationRequest(head + prompt, 5)).result()
            assert list(found.ids) == alone(lm, head + prompt, 5).ids
            assert found.finished.cached_tokens >= (100 if number > 1 else 0)
        assert engine.stats().tokens_saved >= 300


def test_a_cancelled_request_leaves_its_slot_at_the_next_step(lm: LanguageModel, prompts: Prompts) -> None:
    with Engine(lm, threads=1, slots=1) as engine:
        first = engine.submit(GenerationRequest(prompts[0], 400, ignore_end=True))
        events = first.events()
        assert isinstance(next(events), Piece)
        second = engine.submit(GenerationRequest(prompts[1], 3))
        first.cancel()
        assert [event for event in events if isinstance(event, Finished)][-1].finish == "cancelled"
        assert second.result().ids


def test_a_full_queue_says_when_to_come_again(lm: LanguageModel, prompts: Prompts) -> None:
    with Engine(lm, threads=1, slots=1, longest_queue=2) as engine:
        running = engine.submit(GenerationRequest(prompts[0], 400, ignore_end=True))
        next(running.events())
        waiting = [engine.submit(GenerationRequest(prompts[1], 2)) for _ in range(2)]
        with pytest.raises(Busy, match="try again in") as busy:
            engine.submit(GenerationRequest(prompts[1], 2))
        assert 1 <= busy.value.retry_after <= 60
        running.cancel()
        assert all(stream.result().ids for stream in waiting)


def test_clients_take_turns(lm: LanguageModel, prompts: Prompts) -> None:
    order: list[str] = []
    with Engine(lm, threads=1, slots=1) as engine:
        running = engine.submit(GenerationRequest(prompts[0], 400, ignore_end=True))
        next(running.events())
        asked = [("greedy", engine.submit(GenerationRequest(prompts[1], 1, client="greedy"))) for _ in range(6)]
        asked.append(("modest", engine.submit(GenerationRequest(prompts[1], 1, client="modest"))))
        for who, one in asked:  # told in the engine's thread, in the order of the ends
            one._wake = lambda who=who, one=one: order.append(who) if one.ended else None
        running.cancel()
        for _, one in asked:
            one.result()
    assert order.index("modest") <= 3


def test_streams_are_read_in_an_event_loop_too(engine: Engine, lm: LanguageModel, prompts: Prompts) -> None:
    async def ask() -> list[list[int]]:
        streams = [engine.submit(GenerationRequest(prompt, 9)) for prompt in prompts[:6]]
        return [list(one.ids) for one in await asyncio.gather(*(stream.aresult() for stream in streams))]

    assert asyncio.run(ask()) == [alone(lm, prompt, 9).ids for prompt in prompts[:6]]


def test_an_answer_ends_at_the_end_tokens_of_its_template(engine: Engine, prompts: Prompts) -> None:
    whole = engine.submit(GenerationRequest(prompts[2], 30, ignore_end=True)).result().ids
    ends = GenerationRequest(prompts[2], 30, stop_ids=frozenset([whole[4]]))
    found = engine.submit(ends).result()
    assert (found.ids, found.finished.finish) == (whole[: whole.index(whole[4]) + 1], "stop")


def test_what_is_drawn_depends_on_the_seed_alone(engine: Engine, prompts: Prompts) -> None:
    asked = [GenerationRequest(prompt, 12, temperature=1.0, top_p=0.9, seed=7) for prompt in prompts]
    by_itself = [engine.submit(request).result().ids for request in asked[:4]]
    together = [stream.result().ids for stream in [engine.submit(request) for request in asked]]
    assert together[:4] == by_itself
    other = engine.submit(GenerationRequest(prompts[0], 12, temperature=1.0, seed=8)).result()
    assert other.ids != by_itself[0]


def test_penalties_make_repetition_dearer(engine: Engine, prompts: Prompts) -> None:
    plain = engine.submit(GenerationRequest(prompts[2], 60, ignore_end=True)).result()
    varied = engine.submit(GenerationRequest(prompts[2], 60, presence_penalty=2.0, ignore_end=True)).result()
    assert len(set(plain.ids)) < len(set(varied.ids)) == 60


def test_logprobs_are_the_models_own(engine: Engine, lm: LanguageModel, prompts: Prompts) -> None:
    prompt = prompts[5]
    asked = GenerationRequest(prompt, 3, logprobs=2, prompt_logprobs=True, ignore_end=True)
    found = engine.submit(asked).result()
    ids = torch.tensor([[*prompt, *found.ids]])
    with torch.inference_mode():
        expected = lm.model(input_ids=ids).logits[0].log_softmax(-1)
    entries = [*found.prompt_logprobs, *found.logprobs]
    assert entries[0] is None and len(entries) == len(prompt) + 3
    for position, entry in enumerate(entries[1:]):
        assert entry is not None and entry.token == int(ids[0, position + 1])
        assert entry.logprob == pytest.approx(float(expected[position, entry.token]), abs=1e-4)
        assert [token for token, _ in entry.top] == expected[position].topk(2).indices.tolist()


def test_likelihoods_are_those_of_the_model(engine: Engine, lm: LanguageModel, prompts: Prompts) -> None:
    pairs = [(prompts[1], (5, 6)), (prompts[1], (7,)), (prompts[2], (8, 9, 10))]
    for one, other in zip(engine.likelihoods(pairs), likelihood.continuations(lm, pairs), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_a_fault_ends_the_answers_it_concerns_and_not_the_engine(
    engine: Engine, lm: LanguageModel, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = decoding.forward_all

    def failing(lm: LanguageModel, tokens: torch.Tensor, *rest: Any, **how: Any) -> torch.Tensor:
        if tokens.shape[1] > 1 and 330 in tokens:
            raise ValueError("a bad kernel")
        return forward(lm, tokens, *rest, **how)

    running = engine.submit(GenerationRequest(prompts[1], 50, ignore_end=True))
    next(running.events())
    monkeypatch.setattr(decoding, "forward_all", failing)
    with pytest.raises(AnswerFailed, match="could not read its prompt: ValueError: a bad kernel"):
        engine.submit(GenerationRequest((330, 5, 6), 4)).result()
    assert engine.submit(GenerationRequest(prompts[3], 4)).result().ids
    assert engine.stats().failed == 1


def test_without_memory_fewer_are_answered_at_a_time(
    lm: LanguageModel, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = decoding.forward_all

    def short(lm: LanguageModel, tokens: torch.Tensor, *rest: Any, **how: Any) -> torch.Tensor:
        if len(tokens) > 3:
            raise MemoryError
        return forward(lm, tokens, *rest, **how)

    wanted = [alone(lm, prompt, 12).ids for prompt in prompts]
    monkeypatch.setattr(decoding, "forward_all", short)
    with Engine(lm, threads=1) as engine:
        streams = [engine.submit(GenerationRequest(prompt, 12)) for prompt in prompts]
        assert [list(stream.result().ids) for stream in streams] == wanted
        assert engine.stats().slots <= 6
        assert engine.stats().failed == 0


def test_rows_whose_joining_fails_halfway_are_read_again(
    lm: LanguageModel, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = cache.RoomyLayer.append, itertools.count()

    def failing(layer: cache.RoomyLayer, *rows: Any) -> None:
        if next(calls) == 3:  # one layer of two has the new rows
            raise MemoryError
        append(layer, *rows)

    wanted = [alone(lm, prompt, 12).ids for prompt in prompts]
    monkeypatch.setattr(cache.RoomyLayer, "append", failing)
    with Engine(lm, threads=1) as engine:
        streams = [engine.submit(GenerationRequest(prompt, 12)) for prompt in prompts]
        assert [list(stream.result().ids) for stream in streams] == wanted
        assert engine.stats().failed == 0
    assert next(calls) > 4


def test_an_end_that_drains_answers_all_and_one_at_once_tells_all(lm: LanguageModel, prompts: Prompts) -> None:
    engine = Engine(lm, threads=1)
    streams = [engine.submit(GenerationRequest(prompt, 9)) for prompt in prompts]
    engine.close(drain=True)
    assert [list(stream.result().ids) for stream in streams] == [alone(lm, prompt, 9).ids for prompt in prompts]
    with pytest.raises(Closed, match="takes no more"):
        engine.submit(GenerationRequest(prompts[0], 1))
    engine = Engine(lm, threads=1)
    stream = engine.submit(GenerationRequest(prompts[0], 400, ignore_end=True))
    engine.close()
    with pytest.raises(Closed, match="before the answer"):
        stream.result()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompt": ()}, "prompt: it has no tokens"),
        ({"prompt": (5, 100_000)}, "found the token id 100000, the model knows ids from 0 to"),
        ({"max_new_tokens": -1}, "max_new_tokens: found -1"),
        ({"temperature": float("nan")}, "temperature: found nan"),
        ({"top_p": 0.0}, "top_p: found 0.0"),
        ({"seed": -1}, "seed: found -1"),
        ({"presence_penalty": 3.0}, "presence_penalty: found 3.0, expected a number from -2 to 2"),
        ({"logprobs": 21}, "logprobs: found 21, expected 0 to 20"),
        ({"stop_strings": ("",)}, "stop_strings: each has 1 to"),
        ({"stop_strings": ("x",) * 17}, "found 17 of them"),
        ({"adapter": "acme"}, 'unknown adapter "acme"'),
        ({"temperature": -1.0, "top_p": 2.0}, "temperature: .*; top_p: "),
    ],
)
def test_what_cannot_be_asked_is_said_at_once(engine: Engine, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        engine.submit(GenerationRequest(**{"prompt": (5,), "max_new_tokens": 1, **asked}))


def test_models_whose_caches_stay_as_they_were_read_are_answered_alike(
    lm: LanguageModel, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window or a state cannot be put beside others: each group that was read together is a lane of its own."""
    monkeypatch.setattr(loop.caches, "is_plain", lambda cache: False)
    monkeypatch.setattr(decoding.caches, "is_plain", lambda cache: False)
    with Engine(lm, threads=1, slots=9) as engine:
        streams = [engine.submit(GenerationRequest(prompt, 3 + number % 9)) for number, prompt in enumerate(prompts)]
        found = [list(stream.result().ids) for stream in streams]
    assert found == [alone(lm, prompt, 3 + number % 9).ids for number, prompt in enumerate(prompts)]


def test_pairs_of_one_context_stay_together() -> None:
    pairs = [([1] * 600, [2])] * 3 + [([3] * 600, [4])] * 2 + [([5] * 600, [6])]
    assert [len(some) for some in engines._portions(pairs)] == [5, 1]
