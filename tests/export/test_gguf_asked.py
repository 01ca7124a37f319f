"""A GGUF file is asked as people run it, by llama.cpp: as an arm beside the model that it was made from, and by name."""

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from luthier import export, inference
from luthier import recipe as recipes
from luthier.engine import llama_cpp
from luthier.errors import UserError
from luthier.evaluate.answers.endpoint import Unavailable
from luthier.evaluate.answers.gguf_file import GgufFile
from luthier.evaluate.context import Context, endpoint_of
from luthier.evaluate.prompts import arms
from luthier.export import texts
from luthier.export.gguf import file as files
from luthier.inference import gguf_model
from luthier.model import loading
from luthier.pipeline.opening import with_whole_paths
from luthier.recipe import Endpoint, Recipe
from luthier.runs import Run

from .conftest import SIZES, MakeRun

ARM = "endpoint:file"


def whole(text: object) -> str:
    """An answer without halves of characters, which noise is full of, and of which programs show one or several signs."""
    return str(text).replace("\ufffd", "").strip()


@pytest.fixture
def made(make_run: MakeRun, tmp_path: Path) -> tuple[Run, Path]:
    """A run with its model's answers to test questions, and the file of it."""
    run, path = make_run(answered=True), tmp_path / "it.gguf"
    export.export(run.folder, to="gguf", type="f32", out=path)
    return run, path


def beside(run: Run, path: Path) -> Recipe:
    """The run's recipe with the file as an arm."""
    endpoint = {"url": str(path), "model": "f32", "prompt": arms.TUNED}
    return recipes.replace(recipes.load(run.folder / "recipe.toml"), {"evaluate.endpoints": {"file": endpoint}})


def test_a_file_answers_the_run_s_own_questions_as_its_model_does(made: tuple[Run, Path]) -> None:
    run, path = made
    recipe = beside(run, path)
    context, arm = Context(run, recipe), arms.resolve(ARM, recipe.evaluate.endpoints)
    assert arm.answered_by == "endpoint" and arm.build is arms.question_only
    items = context.items("test")
    found = context.answers_file("answers").ask_endpoint(
        endpoint_of(recipe, ARM), items, arm=ARM, prompt=lambda item: item.conversation.prompt,
        budget=context.token_budget, progress=lambda done, of: None,
    )  # fmt: skip
    own = context.answers_file("answers").records_of(arms.TUNED, items)
    assert len(found) == 12 and [each["prompt_tokens"] for each in found] == [each["prompt_tokens"] for each in own]
    same = sum(whole(one["answer"]) == whole(other["answer"]) for one, other in zip(found, own, strict=True))
    assert same >= 11


def test_a_file_is_asked_by_name(made: tuple[Run, Path], tmp_path: Path) -> None:
    run, path = made
    notes: list[str] = []
    questions, output = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    questions.write_text("".join(json.dumps({"question": f"What is {n}?"}) + "\n" for n in range(3)))
    for name in (path, run.folder):
        output.unlink(missing_ok=True)
        inference.ask_file(str(name), questions, output, max_new_tokens=6, on_note=notes.append)
        lines = [whole(json.loads(line)["answer"]) for line in output.read_text().splitlines()]
        (tmp_path / f"{name.name}.txt").write_text(json.dumps(lines))
    assert notes == [gguf_model.BY_LLAMA_CPP]
    assert (tmp_path / "it.gguf.txt").read_text() == (tmp_path / f"{run.folder.name}.txt").read_text()
    one, other = inference.compare("What is 3?", [str(path), str(run.folder)], max_new_tokens=6)
    assert whole(one.answer.text) == whole(other.answer.text) and one.model == str(path)


def test_a_conversation_with_a_file_streams_remembers_and_drops_its_oldest_turns(made: tuple[Run, Path]) -> None:
    model = inference.asked_model(str(made[1]))
    assert isinstance(model, gguf_model.GgufModel)
    with closing(model):
        chat = inference.Chat(model, max_new_tokens=8)
        first = "".join(piece.text for piece in chat.say("What is 3?"))
        assert [message.role for message in chat.history] == ["user", "assistant"]
        assert whole(first) in whole(chat.history[1].content)
        own = inference.Chat(inference.load_model(str(made[0].folder)), max_new_tokens=8)
        assert list(own.say("What is 3?"))  # llama.cpp streams nothing behind half a character
        assert first and whole(own.history[1].content).startswith(whole(chat.history[1].content))
        for number in range(3):  # the file's context holds 512 tokens
            list(chat.say(f"{number} " + "word " * 120))
        assert chat.history[0].content.startswith(("1 ", "2 ")) and len(chat.history) < 8
        before = list(chat.history)
        with pytest.raises(UserError, match="the question alone fills the context"):
            list(chat.say("word " * 600))
        assert chat.history == before


def test_without_llama_cpp_a_file_is_unpacked_and_that_is_said(
    made: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(llama_cpp, "is_installed", lambda: False)
    notes: list[str] = []
    assert gguf_model.find(str(made[1]), None, notes.append) is None and notes == [gguf_model.UNPACKED]
    with pytest.raises(UserError, match=r"endpoints.file.url.*pip install"):
        endpoint_of(beside(*made), ARM)


def test_what_is_no_model_is_refused_before_it_is_asked(made: tuple[Run, Path], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(made[1].read_bytes()[:-40])
    adapter, bare = tmp_path / "adapter.gguf", tmp_path / "bare.gguf"
    files.write(adapter, "llama", {"general.type": "adapter"})
    files.write(bare, "clip", {})
    for path, said in (
        (damaged, "not a whole GGUF file"),
        (adapter, "this file is an adapter alone"),
        (bare, "does not state clip.context_length"),
        (tmp_path / "gone.gguf", "there is no such file"),
    ):
        with pytest.raises(UserError, match=said):
            endpoint_of(beside(made[0], path), ARM)
    elsewhere = recipes.replace(
        beside(*made), {"evaluate.endpoints": {"file": {"url": "http://localhost:1/it.gguf", "model": "m"}}}
    )
    assert not isinstance(endpoint_of(elsewhere, ARM), GgufFile)
    headless = tmp_path / "headless.gguf"
    files.write(headless, "llama", {"llama.context_length": 64})
    with pytest.raises(Unavailable, match=r"llama.cpp"):
        GgufFile.at(headless, where="x").ask([], max_new_tokens=4)


def test_a_recipe_names_the_file_by_its_whole_path(made: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run, path = made
    monkeypatch.chdir(path.parent)
    recipe = beside(run, Path("it.gguf"))
    assert with_whole_paths(recipe).evaluate.endpoints["file"] == Endpoint(
        url=str(path), model="f32", prompt=arms.TUNED
    )


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_file_as_a_base_model_cuts_text_and_ends_answers_as_the_run_s_model(
    family: str, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    plain = {
        "qwen2": Qwen2Config(**SIZES, vocab_size=384)
    }  # whose positions are not scaled: a base of that kind is refused
    run, path = make_run(plain.get(family, family)), tmp_path / "it.gguf"
    export.export(run.folder, to="gguf", type="f32", out=path)
    own, read = loading.load(str(run.folder)), loading.load(str(path))
    assert read.template.stop_ids == own.template.stop_ids and read.template.source == own.template.source
    for text in texts.FIXED:
        assert read.tokenizer(text).input_ids == own.tokenizer(text).input_ids, text
    ids = torch.tensor([[5, 9, 30]])
    assert torch.allclose(read.model(ids).logits, own.model(ids).logits, atol=1e-4)
