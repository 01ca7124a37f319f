"""Models come when they are asked for and go when memory is wanted; those that answer stay."""

import shutil
import threading
from pathlib import Path

import pytest

from luthier.engine import pool as pools
from luthier.engine.pool import ModelSource, Pool, TooLarge
from luthier.engine.requests import GenerationRequest
from luthier.errors import UserError
from luthier.model import loading
from luthier.model.loading import LanguageModel

BYTES = 1000


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Three models of 1,000 bytes each, as the pool counts."""
    monkeypatch.setattr(pools, "_bytes", lambda model: BYTES)
    for name in "abc":
        shutil.copytree(tiny_model, tmp_path / name)
    return {name: str(tmp_path / name) for name in "abc"}


def ask(pool: Pool, name: str) -> tuple[int, ...]:
    with pool.engine(name) as served:
        return served.engine.submit(GenerationRequest((5, 6, 7), 4, adapter=served.adapter)).result().ids


def test_the_model_used_longest_ago_makes_room(models: dict[str, str]) -> None:
    pool = Pool(lambda name: ModelSource(models[name]), memory_bytes=2 * BYTES)
    for name in "aba":
        ask(pool, name)
    assert pool.loaded == [models["b"], models["a"]]
    ask(pool, "c")
    assert pool.loaded == [models["a"], models["c"]]
    pool.unload("a")
    assert pool.loaded == [models["c"]]
    pool.close()


def test_a_model_that_answers_stays(models: dict[str, str]) -> None:
    pool = Pool(lambda name: ModelSource(models[name]), memory_bytes=BYTES, wait_seconds=0.01)
    with pool.engine("a"), pytest.raises(TooLarge, match="beside those that are answering now"):
        ask(pool, "b")
    with pool.engine("a") as served:
        stream = served.engine.submit(GenerationRequest((5, 6), 450, ignore_end=True))
    with pytest.raises(TooLarge):
        ask(pool, "b")
    assert len(stream.result().ids) == 450
    assert ask(pool, "b")
    pool.close()


def test_all_who_ask_wait_for_one_load_and_its_failure_is_told_to_all(models: dict[str, str]) -> None:
    loads: list[str] = []
    go = threading.Event()

    def load(name: str) -> LanguageModel:
        loads.append(name)
        go.wait()
        if len(loads) == 1:
            raise UserError("the disk is gone.", where=name)
        return loading.load(name)

    pool = Pool(lambda name: ModelSource(models[name]), load=load, memory_bytes=2 * BYTES)
    told: list[object] = []

    def attempt() -> None:
        try:
            told.append(ask(pool, "a"))
        except UserError as error:
            told.append(error.message)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(loads) < 1:
        pass
    go.set()
    for thread in threads:
        thread.join()
    assert "the disk is gone." in told
    assert len(ask(pool, "a")) == 4, "it can be tried again"
    assert len(loads) == 2
    pool.close()


def test_a_model_larger_than_all_memory_is_refused(models: dict[str, str]) -> None:
    pool = Pool(lambda name: ModelSource(models[name]), memory_bytes=BYTES - 1)
    with pytest.raises(TooLarge, match="models may take 999 bytes in all; name a smaller model"):
        ask(pool, "a")


def test_memory_is_counted_from_the_configuration(tiny_model: Path) -> None:
    weights = sum(weight.numel() for weight in loading.load(str(tiny_model)).model.parameters())
    assert pools._bytes(str(tiny_model)) == int(1.1 * 4 * weights)
