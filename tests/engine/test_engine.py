"""An answer is the same alone and in any company; what is cancelled, refused or fails takes nobody along."""

import random
import threading

import pytest

from luthier.engine.engine import Engine
from luthier.engine.requests import GenerationRequest, Piece
from luthier.model import generate
from luthier.model.loading import LanguageModel

Prompts = list[tuple[int, ...]]


def alone(lm: LanguageModel, prompt: tuple[int, ...], most: int, **how: object) -> generate.Reply:
    return generate.answer(lm, [prompt], max_new_tokens=most, **how)[0]  # type: ignore[arg-type]


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
    with Engine(lm, slots=chance.choice([2, 5, 9]), cache_bytes=2**18, longest_queue=99) as engine:
        engine._loop._beside = chance.choice([16, 64])

        def ask(numbers: range) -> None:
            for number in numbers:
                prompt, most, leaves = asked[number]
                stream = engine.submit(GenerationRequest(prompt, most, client=str(number % 3)))
                if leaves:
                    for event in stream.events():
                        if isinstance(event, Piece):
                            break
                else:
                    found[number] = stream.result().ids

        threads = [threading.Thread(target=ask, args=(range(first, 30, 6),)) for first in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.stats().slots_in_use == engine.stats().queued == 0 or engine.stats().failed == 0
    for number, ids in found.items():
        assert list(ids) == alone(lm, *asked[number][:2]).ids
    assert len(found) == sum(not leaves for *_, leaves in asked)
