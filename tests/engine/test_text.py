"""Text that is shown while it is generated: whole characters, no beginning of a stop string, all of the answer in the end."""

import pytest

from luthier.engine.text import TextStream
from luthier.model.loading import LanguageModel
from luthier.model.tokenizer import HubTokenizer


@pytest.fixture
def tokenizer(lm: LanguageModel) -> HubTokenizer:
    assert isinstance(lm.template.tokenizer, HubTokenizer)
    return lm.template.tokenizer


@pytest.mark.parametrize("spelled_in_bytes", [True, False])
@pytest.mark.parametrize("text", ["plain", "Zoë isst 🍏 und 漢字.", "  blanks  \n\n at both ends  "])
def test_parts_are_whole_characters_and_together_the_text(
    tokenizer: HubTokenizer, text: str, spelled_in_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tokenizer.__dict__, "spells_bytes", spelled_in_bytes)
    stream = TextStream(tokenizer)
    ids, _ = tokenizer.encode(text)
    parts = [stream.add(token) for token in ids]
    assert not any("\ufffd" in part for part in parts)
    assert "".join(parts) + stream.end() == text


def test_bytes_that_are_no_character_are_shown_as_decoding_shows_them(tokenizer: HubTokenizer) -> None:
    ids = tokenizer.encode("a🍏")[0][:-1] + tokenizer.encode("b")[0] + tokenizer.encode("🍏")[0][:-2]
    stream = TextStream(tokenizer)
    assert "".join(map(stream.add, ids)) + stream.end() == tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("stops", "shown", "stop"),
    [
        (("capital",), "What is the ", "capital"),
        (("the cap", "capital"), "What is ", "the cap"),
        (("city", "France?"), "What is the capital of ", "France?"),
        (("France!",), "What is the capital of France?", None),
    ],
)
def test_text_ends_before_the_first_stop_string(
    tokenizer: HubTokenizer, stops: tuple[str, ...], shown: str, stop: str | None
) -> None:
    stream, parts = TextStream(tokenizer, stops), []
    for token in tokenizer.encode("What is the capital of France?")[0]:
        parts.append(stream.add(token))
        whole = "".join(parts)
        assert shown.startswith(whole), "a part of a stop string was shown"
        if stream.stop_string is not None:
            break
    assert "".join(parts) + stream.end() == shown
    assert stream.stop_string == stop
