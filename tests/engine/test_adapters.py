"""Rows of one batch, each with its own adapter, say what each adapter says alone; what cannot be shared is refused."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.engine import loop
from luthier.engine.adapters import Matrices, RowAdapters
from luthier.engine.engine import Engine
from luthier.engine.reading import Reading
from luthier.engine.requests import GenerationRequest
from luthier.engine.rows import Row
from luthier.errors import UserError
from luthier.model import generate, loading
from luthier.model.loading import LanguageModel
from peft_folders import write_adapter

Prompts = list[tuple[int, ...]]


@pytest.fixture(scope="module")
def folders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("adapters")
    settings: list[dict[str, object]] = [
        {},
        {"r": 8, "lora_alpha": 32, "use_rslora": True},
        {"target_modules": ["q_proj"]},
    ]
    return {
        f"a{number}": write_adapter(tiny_model, place / str(number), number, **each)
        for number, each in enumerate(settings)
    }


@pytest.fixture(scope="module")
def single(folders: dict[str, Path], lm: LanguageModel) -> dict[str | None, LanguageModel]:
    """The model that each adapter makes with its base, as `luthier ask` loads it."""
    return {None: lm, **{name: loading.load(str(folder)) for name, folder in folders.items()}}


@pytest.fixture
def engine(tiny_model: Path, folders: dict[str, Path]):  # type: ignore[no-untyped-def]
    with Engine(loading.load(str(tiny_model)), threads=1) as engine:
        for name, folder in folders.items():
            engine.add_adapter(name, folder)
        yield engine


def test_each_row_has_its_own_adapter(
    engine: Engine, single: dict[str | None, LanguageModel], prompts: Prompts
) -> None:
    names = [None, "a0", "a1", "a2"]
    asked = [(prompt, names[number % 4]) for number, prompt in enumerate(prompts)]
    streams = [engine.submit(GenerationRequest(prompt, 12, adapter=name)) for prompt, name in asked]
    found = [list(stream.result().ids) for stream in streams]
    assert found == [generate.answer(single[name], [prompt], max_new_tokens=12)[0].ids for prompt, name in asked]
    bare = [generate.answer(single[None], [prompt], max_new_tokens=12)[0].ids for prompt, _ in asked]
    assert sum(one != other for one, other in zip(found, bare, strict=True)) > 6, "adapters change answers here"


def test_prompts_of_several_adapters_are_read_together(
    engine: Engine, single: dict[str | None, LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class Noted(Reading):
        def __init__(self, adapters: RowAdapters, rows: list[Row], **more: Any) -> None:
            read.append(len(rows))
            super().__init__(adapters, rows, **more)

    monkeypatch.setattr(loop, "Reading", Noted)
    asked = [(tuple(range(9 + number, 29)), name) for number, name in enumerate([None, "a0", "a1", "a2"])]
    streams = engine._loop.call(  # between two steps, so that all wait at once
        lambda: [engine.submit(GenerationRequest(prompt, 9, adapter=name)) for prompt, name in asked]
    )
    for (prompt, name), stream in zip(asked, streams, strict=True):
        assert list(stream.result().ids) == generate.answer(single[name], [prompt], max_new_tokens=9)[0].ids
    assert read == [4]


def test_what_an_adapter_computes_beyond_all_bounds_stays_in_its_own_rows(
    tiny_model: Path, folders: dict[str, Path]
) -> None:
    lm = loading.load(str(tiny_model))
    adapters = RowAdapters(lm)
    found = adapters.read("a0", folders["a0"])
    adapters.add("sound", found)
    adapters.add("endless", {layer: Matrices(part.down * 1e38, part.up * 1e38) for layer, part in found.items()})
    sound, endless = adapters.key("sound"), adapters.key("endless")
    ids = torch.tensor([[7, 11, 5], [7, 11, 5], [7, 11, 5]])

    @torch.inference_mode()
    def scores(keys: list[str | None]) -> torch.Tensor:
        with adapters.using(keys):
            return lm.model(input_ids=ids, use_cache=False).logits

    alone, bare, beside = scores([sound] * 3), scores([None] * 3), scores([sound, endless, None])
    torch.testing.assert_close(beside[0], alone[0])
    torch.testing.assert_close(beside[2], bare[2])
    assert not torch.isfinite(beside[1]).all(), "it was meant to be beyond all bounds"
    assert (alone[0] - bare[0]).abs().max() > 0.01


def test_a_beginning_is_shared_by_rows_of_one_adapter_only(
    engine: Engine, single: dict[str | None, LanguageModel]
) -> None:
    head = tuple(range(50, 150))
    for number in range(4):
        for name in (None, "a0"):
            prompt = (*head, 20 + number)
            found = engine.submit(GenerationRequest(prompt, 5, adapter=name)).result()
            assert list(found.ids) == generate.answer(single[name], [prompt], max_new_tokens=5)[0].ids
    assert engine.stats().tokens_saved >= 300


def test_a_request_keeps_its_adapter_until_it_ends(
    engine: Engine, folders: dict[str, Path], single: dict[str | None, LanguageModel], prompts: Prompts
) -> None:
    stream = engine.submit(GenerationRequest(prompts[3], 60, adapter="a0", ignore_end=True))
    events = stream.events()
    next(events)
    engine.remove_adapter("a0")
    with pytest.raises(UserError, match='unknown adapter "a0"'):
        engine.submit(GenerationRequest(prompts[3], 1, adapter="a0"))
    engine.add_adapter("a0", folders["a1"])  # another one under the old name
    later = engine.submit(GenerationRequest(prompts[3], 9, adapter="a0"))
    ids = [token for event in events for token in getattr(event, "ids", ())]
    with torch.inference_mode():
        plain = single["a0"].model.generate(
            input_ids=torch.tensor([prompts[3]]), max_new_tokens=60, do_sample=False, eos_token_id=[]
        )
    assert ids == plain[0, len(prompts[3]) + 1 :].tolist()
    assert list(later.result().ids) == generate.answer(single["a1"], [prompts[3]], max_new_tokens=9)[0].ids
    engine.submit(GenerationRequest(prompts[0], 1)).result()
    assert len(engine._loop.adapters._weights) == 3, "the old one is gone"


def test_adapters_come_while_others_are_answered(engine: Engine, folders: dict[str, Path], prompts: Prompts) -> None:
    running = engine.submit(GenerationRequest(prompts[0], 200, adapter="a0", ignore_end=True))
    thread = threading.Thread(target=engine.add_adapter, args=("late", folders["a2"]))
    thread.start()
    thread.join()
    assert engine.submit(GenerationRequest(prompts[1], 2, adapter="late")).result().ids
    assert len(running.result().ids) == 200
    assert engine.adapters == ["a0", "a1", "a2", "late"]


def test_likelihoods_have_their_adapter(
    engine: Engine, single: dict[str | None, LanguageModel], prompts: Prompts
) -> None:
    from luthier.model import likelihood

    pairs = [(prompts[1], (5, 6)), (prompts[2], (8, 9))]
    for name in (None, "a1"):
        expected = likelihood.continuations(single[name], pairs)
        for one, other in zip(engine.likelihoods(pairs, adapter=name), expected, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_what_cannot_share_a_batch_is_refused(engine: Engine, tiny_model: Path, tmp_path: Path) -> None:
    dora = write_adapter(tiny_model, tmp_path / "dora", 1, use_dora=True)
    head = write_adapter(tiny_model, tmp_path / "head", 1, target_modules=["q_proj"], modules_to_save=["norm"])
    for folder, message in (
        (dora, "more than LoRA on linear layers .it has .*magnitude"),
        (head, "more than LoRA on linear layers .it has .*norm"),
        (tiny_model, "a whole model, not an adapter"),
    ):
        with pytest.raises(UserError, match=f"{message}.*model of its own"):
            engine.add_adapter("x", folder)
    assert "x" not in engine.adapters
