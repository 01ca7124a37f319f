"""What tests of the engine share: a tiny model, prompts of mixed length, and its answers to each of them alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier.engine.engine import Engine
from luthier.model import loading
from luthier.model.loading import LanguageModel


@pytest.fixture(scope="package")
def lm(tiny_model: Path) -> LanguageModel:
    return loading.load(str(tiny_model))


@pytest.fixture
def engine(lm: LanguageModel) -> Iterator[Engine]:
    with Engine(lm, threads=1) as engine:
        yield engine


@pytest.fixture(scope="package")
def prompts() -> list[tuple[int, ...]]:
    """Of 3 to 180 tokens; every third begins like the others."""
    head = tuple(range(5, 45))
    mixed = [tuple((11 * place + number) % 300 + 5 for place in range(3 + 53 * number % 180)) for number in range(18)]
    return [head + prompt if number % 3 == 0 else prompt for number, prompt in enumerate(mixed)]
