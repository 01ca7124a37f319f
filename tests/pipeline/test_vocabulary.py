"""A tokenizer out of a corpus."""

from pathlib import Path

import pytest

from luthier.chat import Message
from luthier.errors import UserError
from luthier.model import new_tokenizer
from luthier.model.tokenizer import HubTokenizer, template_of
from luthier.pipeline import vocabulary

STRANGE = "Grüße 🦊\u200b \x00\x07 <|im_end|> <|endoftext|> \ud7ff\r\n\t日本語"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"The printer in room {number} prints blue pages.\n\n" for number in range(300)))
    return path


def test_the_same_corpus_gives_the_same_tokenizer(corpus: Path, tmp_path: Path, tiny_model: Path) -> None:
    for name in ("one", "two"):
        made = vocabulary.make(corpus, tmp_path / name, vocabulary=320, beside=str(tiny_model))
    assert new_tokenizer.identity(tmp_path / "one") == new_tokenizer.identity(tmp_path / "two")
    assert made.vocabulary == 320
    own, other = made.compressions
    assert own.bytes_per_token > other.bytes_per_token > 1


def test_any_text_comes_back_and_control_tokens_in_it_are_text(corpus: Path, tmp_path: Path, tiny_model: Path) -> None:
    vocabulary.make(corpus, tmp_path / "made", vocabulary=320, beside=str(tiny_model))
    tokenizer = new_tokenizer.read(tmp_path / "made")
    new_tokenizer.expect_round_trip(tokenizer, [STRANGE])
    (ids,) = HubTokenizer(tokenizer).encode_texts([STRANGE])
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_it_brings_a_chat_template_whose_answers_end(corpus: Path, tmp_path: Path, tiny_model: Path) -> None:
    vocabulary.make(corpus, tmp_path / "made", vocabulary=320, beside=str(tiny_model))
    tokenizer = new_tokenizer.read(tmp_path / "made")
    template = template_of(tokenizer)
    assert template.name == "the model's own chat template"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in template.stop_ids
    asked = (Message("user", "Why?"), Message("assistant", "So."))
    assert template.render(asked).startswith("<|im_start|>user\nWhy?<|im_end|>\n")


def test_a_vocabulary_beyond_what_the_corpus_has_is_refused(corpus: Path, tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"vocabulary of 5,000 was asked for.*no more than \d+ different pieces"):
        vocabulary.make(corpus, tmp_path / "made", vocabulary=5000, beside=str(tiny_model))
    with pytest.raises(UserError, match="vocabulary of 100 cannot hold the 256 bytes and 4 control tokens"):
        vocabulary.make(corpus, tmp_path / "made", vocabulary=100, beside=str(tiny_model))
    assert not (tmp_path / "made").exists()


def test_nothing_is_written_over(corpus: Path, tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UserError, match="already exists; name a new folder"):
        vocabulary.make(corpus, tmp_path, beside=str(tiny_model))
    with pytest.raises(UserError, match="no such folder to write to"):
        vocabulary.make(corpus, tmp_path / "a" / "b", beside=str(tiny_model))
