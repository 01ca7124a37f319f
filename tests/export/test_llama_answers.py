"""Answers of a GGUF file, many side by side: those of llama.cpp's own server, whatever was guessed before."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from luthier.engine import llama_library
from luthier.engine.llama_cpp import LlamaCpp
from luthier.errors import UserError
from luthier.export.gguf import model as gguf_model
from luthier.export.source import Source

from .conftest import ROWS, MakeRun

LIMIT = 8
Asked = tuple[Path, list[list[int]]]


@pytest.fixture
def asked(make_run: MakeRun, tmp_path: Path) -> Asked:
    """A file in f32, and prompts for it."""
    source = Source.of(make_run())
    gguf_model.write(source, tmp_path / "it.gguf", number_format="f32")
    return tmp_path / "it.gguf", [source.template.prompt(item.conversation.prompt) for item in ROWS]


def from_server(llama: LlamaCpp, prompt: list[int]) -> list[int]:
    body = {
        "prompt": prompt, "n_predict": LIMIT, "temperature": 0.0, "top_k": 1, "return_tokens": True, "cache_prompt": False,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{llama.address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        found: list[int] = json.load(response)["tokens"]
    return found


def test_answers_are_those_of_llama_cpps_server_whatever_was_guessed(asked: Asked) -> None:
    path, prompts = asked
    guesses: list[Callable[[list[int]], list[int]]] = [
        lambda ids: [],
        lambda ids: ids,
        lambda ids: [*ids, 5, 6, 7, 8],
        lambda ids: [*ids[:3], 7, *ids[4:]],
        lambda ids: [9] * 20,
    ]
    with LlamaCpp(path, context=256, slots=5) as llama:
        served = [from_server(llama, prompt) for prompt in prompts]
        for guess in guesses:
            found = llama.complete(prompts, max_new_tokens=LIMIT, drafts=[guess(ids) for ids in served])
            assert [one.ids for one in found] == served
            assert {one.finish for one in found} == {"length"}
        ends = llama.complete(prompts[:1], max_new_tokens=300 - len(prompts[0]))[0]
        assert ends.finish == "stop" or len(ends.ids) == 256 - len(prompts[0])  # the context's end
        with pytest.raises(UserError, match=r"a prompt of 256 tokens fills the context of 256"):
            llama.complete([[5] * 256], max_new_tokens=1)


def test_a_guess_that_is_right_is_read_in_one_go(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    path, prompts = asked
    fed: list[int] = []
    feed = llama_library._Flow.feed
    monkeypatch.setattr(llama_library._Flow, "feed", lambda flow, chunks: fed.append(len(chunks)) or feed(flow, chunks))
    library = llama_library.Library(str(path), None, context=256, threads=1, slots=16, vocab_only=False)
    written = [ids for ids, _ in library.answers(prompts, [[]] * len(prompts), LIMIT, exact=True)]
    assert fed == [1, *[12] * LIMIT]  # what all begin with, then a token of each at a time
    fed.clear()
    assert [ids for ids, _ in library.answers(prompts, written, LIMIT, exact=True)] == written
    assert fed == [1, 12]
    library.close()


def test_logits_are_the_same_behind_a_beginning_that_is_not_read_again(asked: Asked) -> None:
    first, second = [5, 9, 30, 11, 7, 8], [5, 9, 30, 40, 41]
    with LlamaCpp(asked[0], context=256, slots=1) as llama:
        alone = llama.logits(second)
        llama.logits(first)
        behind = llama.logits(second, begin=3)
    assert behind.shape == (2, alone.shape[1]) and np.allclose(behind, alone[3:], atol=1e-5)
