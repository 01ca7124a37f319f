"""Models come when they are asked for and go when memory is wanted; those that answer stay."""

import functools
import shutil
import threading
from pathlib import Path

import pytest

from luthier.engine import pool as pools
from luthier.engine import threads
from luthier.engine.engine import Engine
from luthier.engine.pool import ModelSource, Pool, TooLarge
from luthier.engine.requests import GenerationRequest
from luthier.errors import UserError
from luthier.model import generate, loading
from luthier.model.loading import LanguageModel
from peft_folders import write_adapter

BYTES = 1000
make = functools.partial(Engine, threads=1)


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
    pool = Pool(lambda name: ModelSource(models[name]), make=make, memory_bytes=2 * BYTES)
    for name in "aba":
        ask(pool, name)
    assert pool.loaded == [models["b"], models["a"]]
    ask(pool, "c")
    assert pool.loaded == [models["a"], models["c"]]
    pool.unload("a")
    assert pool.loaded == [models["c"]]
    pool.close()


def test_a_model_that_answers_stays(models: dict[str, str]) -> None:
    pool = Pool(lambda name: ModelSource(models[name]), make=make, memory_bytes=BYTES, wait_seconds=0.01)
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

    pool = Pool(lambda name: ModelSource(models[name]), make=make, load=load, memory_bytes=2 * BYTES)
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
    pool = Pool(lambda name: ModelSource(models[name]), make=make, memory_bytes=BYTES - 1)
    with pytest.raises(TooLarge, match="models may take 999 bytes in all; name a smaller model"):
        ask(pool, "a")


def test_memory_is_counted_from_the_configuration(tiny_model: Path) -> None:
    weights = sum(weight.numel() for weight in loading.load(str(tiny_model)).model.parameters())
    assert pools._bytes(str(tiny_model)) == int(1.1 * 4 * weights)


def test_adapters_share_their_base_and_others_have_an_engine_of_their_own(tiny_model: Path, tmp_path: Path) -> None:
    """The DoRA adapter is found to be one when it is first asked for."""
    base = str(tiny_model)
    folders = {
        "lora": write_adapter(tiny_model, tmp_path / "lora", 1),
        "dora": write_adapter(tiny_model, tmp_path / "dora", 2, use_dora=True),
    }
    pool = Pool(lambda name: ModelSource(base, folders.get(name)), make=make)
    for name in ("base", "lora", "dora"):
        single = loading.load(str(folders.get(name, tiny_model)))
        assert list(ask(pool, name)) == generate.answer(single, [(5, 6, 7)], max_new_tokens=4)[0].ids
    assert sorted(pool.loaded) == sorted([base, str(folders["dora"])])
    assert pool.engines[base].adapters == [str(folders["lora"])]
    pool.unload("lora")
    assert pool.engines[base].adapters == []
    pool.close()


def test_threads_are_no_more_than_cores_that_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for busy, free in (([0, 0, 0, 0], 4), ([100, 10, 10, 90], 2), ([100] * 4, 1), ([40, 40, 0, 0], 3)):
        monkeypatch.setattr(threads.psutil, "cpu_percent", lambda busy=busy, **how: busy)
        assert threads.free_cores() == free
