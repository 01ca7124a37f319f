"""Settings that nobody set."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from luthier import recipe as recipes
from luthier.pipeline import defaults
from luthier.pipeline.defaults import SettingsWithReasons
from luthier.recipe import Recipe


def interval(*, steps: int, method: str = "full", speed: float = 1e12) -> int:
    settings = SettingsWithReasons(Recipe())
    for key, value in {"train.method": method, "train.epochs": 3, "train.tokens_per_step": 1024}.items():
        settings.set(key, value, "for this test")
    return defaults.check_interval(settings, steps=steps, products_per_second=speed)[0]


def test_what_was_asked_for_stays_and_the_rest_is_set_with_its_reason() -> None:
    settings = SettingsWithReasons(recipes.replace(Recipe(), {"train.epochs": 5}))
    for key, value in {"train.epochs": 3, "train.method": "lora"}.items():
        settings.set(key, value, "usual")
    assert settings.reasons == {"train.epochs": "as asked", "train.method": "usual"}
    assert (settings["train.epochs"], settings.recipe().train.epochs, settings.recipe().train.method) == (5, 5, "lora")


def test_saving_stays_below_three_percent_of_the_time() -> None:
    """A gigaweight at 1e12 operations a second: 10.24 s a step, 15 s a checkpoint: 59 steps between two make 2.5 %."""
    assert interval(steps=180, speed=1e12) == 59
    assert interval(steps=720, speed=1e12) == 60  # four looks an epoch are farther apart than that


@pytest.mark.parametrize(("steps", "expected"), [(60, 20), (30, 10), (3000, 250)])
def test_a_training_is_looked_at_three_times_at_least_and_four_times_an_epoch_at_most(
    steps: int, expected: int
) -> None:
    assert interval(steps=steps, speed=1e12) == expected


def test_adapters_are_small_and_saved_as_often_as_is_useful() -> None:
    assert interval(steps=180, method="lora", speed=1e15) == 15


def test_models_that_think_get_room_for_it_and_others_none() -> None:
    def room(
        *, thinks: bool = True, context: int = 40_960, learnt: int = 5, switch: str | None = None
    ) -> tuple[int, str]:
        facts: Any = SimpleNamespace(
            thinking_switch=switch, thinks=thinks, context=context, longest_thoughts=np.full(200, learnt)
        )
        return defaults._room_for_thoughts(facts)

    assert room(thinks=False) == (0, "the chat template has no thinking")
    assert room() == (2048, "the chat template lets the model think before it answers; enough for most questions")
    assert room(context=512) == (
        128, "the chat template lets the model think before it answers; a quarter of the model's context",
    )  # fmt: skip
    assert room(switch="enable_thinking")[1].endswith("; chat.variables.enable_thinking=false lets it answer at once")
    assert room(learnt=3000) == (
        3752,
        "99 % of the thoughts in the training answers have at most 3,000 tokens; a quarter more",
    )
    assert room(context=4096, learnt=3000)[0] == 2048  # half the context: a question must fit before
