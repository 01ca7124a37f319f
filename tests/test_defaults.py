"""Settings that nobody set."""

from typing import Any

import pytest

from luthier import defaults


def interval(*, steps: int, method: str = "full", speed: float = 1e12) -> int:
    values: dict[str, Any] = {"train.method": method, "train.epochs": 3, "train.tokens_per_step": 1024}
    return defaults.check_interval(values, steps=steps, products_per_second=speed)[0]


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
