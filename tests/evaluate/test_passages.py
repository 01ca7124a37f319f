"""Documents become passages, and the right ones are found."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from luthier.data.documents.passages import split_text
from luthier.errors import UserError
from luthier.evaluate.prompts import passages
from luthier.evaluate.prompts.retrieval import Index

LONG = " ".join(f"word{number}" for number in range(450))


def test_paragraphs_are_packed_and_nothing_is_lost() -> None:
    paragraphs = [" ".join(f"p{number}w{word}" for word in range(90)) for number in range(5)]
    pieces = list(split_text("\n\n".join(paragraphs)))
    assert [len(piece.split()) for piece in pieces] == [180, 180, 90]
    assert " ".join(pieces).split() == " ".join(paragraphs).split()


def test_a_long_paragraph_is_cut_at_sentences_and_a_long_sentence_at_words() -> None:
    sentences = [f"{'a ' * 119}s{number}." for number in range(4)]
    assert [len(piece.split()) for piece in split_text(" ".join(sentences))] == [120] * 4
    assert [len(piece.split()) for piece in split_text(LONG)] == [200, 200, 50]


def test_a_heading_stays_with_its_text() -> None:
    body = " ".join(["word"] * 195)
    assert list(split_text(f"{body}\n\n# Returns\n\n{body}")) == [body, f"# Returns\n\n{body}"]


def test_a_folder_is_read_file_by_file_and_rows_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.md").write_text("Opening hours are nine to five.")
    (tmp_path / "rows.jsonl").write_text('{"text": "First."}\n\n{"title": "T", "body": "Second."}\n')
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    found = [(passage.location, passage.text) for passage in passages.read(tmp_path)[0]]
    assert found == [
        ("inner/b.md:1", "Opening hours are nine to five."),
        ("rows.jsonl:1", "First."),
        ("rows.jsonl:3", "T\nSecond."),
    ]


def test_passages_survive_the_disk(tmp_path: Path) -> None:
    made = [passages.Passage("a.txt:1", "Zwölf Boxkämpfer\nund ein 字"), passages.Passage("a.txt:9", "Ende.", "Titel")]
    passages.save(made, tmp_path / "p.jsonl")
    assert passages.load(tmp_path / "p.jsonl") == made and passages.load(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "evaluate.documents: no such file or folder"),
        ("a.odt", b"PK", 'cannot read documents from "a.odt"'),
        ("a.pdf", b"%PDF", "a.pdf: not a sound PDF"),
        ("a.txt", b" \n\n ", "a.txt: the file is empty"),
        ("a.jsonl", b"{}\n", "the documents hold no text"),
        ("a.txt", b"caf\xe9", "is not UTF-8"),
        ("a.jsonl", b"{", "a.jsonl:1: not valid JSON"),
    ],
)
def test_documents_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        passages.read(tmp_path / name)


def test_a_folder_without_documents(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="no document in the folder"):
        passages.read(tmp_path)


def test_the_text_that_shares_rare_words_is_found_first() -> None:
    texts = ["The cat sleeps.", "The dog barks at the cat.", "A parrot speaks."]
    index = Index(texts)
    assert index.most_like("Which dog barks?", 2)[0] == 1 and index.most_like("parrot", 9)[0] == 2
    assert sorted(index.most_like("parrot", 9)) == [0, 1, 2]


def test_words_of_one_character_count_and_scripts_without_blanks_are_searched_by_character() -> None:
    assert Index(["Ticket 6", "Ticket 7"]).most_like("Is ticket 7 done?", 1) == [1]
    assert Index(["我想退货", "发票在哪里"]).most_like("发票", 1) == [1]


def test_a_question_without_any_known_word_finds_something_all_the_same() -> None:
    assert Index(["One.", "Two."]).most_like("?!", 1) == [0] == Index(["?", "!"]).most_like("zebra", 1)
    assert json.dumps(Index(["One.", "Two."]).most_like("two", 2)) == "[1, 0]"


def test_equal_texts_come_in_their_order_on_every_processor() -> None:
    texts = ["the same text"] * 40 + ["another text entirely"] * 2
    assert Index(texts).most_like("the same", 5) == [0, 1, 2, 3, 4]
    assert Index(texts).most_like("entirely another", 42) == [40, 41, *range(40)]
    search = "Index([f'same {n % 3}' for n in range(900)]).most_like('same 2', 9)"
    script = f"from luthier.evaluate.prompts.retrieval import Index; print({search})"
    plain = dict(os.environ) | {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 X86_V3 X86_V4"}
    found = [
        subprocess.check_output([sys.executable, "-c", script], env=env, text=True) for env in (dict(os.environ), plain)
    ]
    assert found == ["[2, 5, 8, 11, 14, 17, 20, 23, 26]\n"] * 2


def test_a_question_finds_its_text_in_either_unicode_form_and_by_whole_words() -> None:
    hindi = ["\u0926\u093e\u0928", "\u0926\u0940\u0928", "\u0926\u093f\u0928"]  # one consonant pair, three vowels
    assert [Index(hindi).most_like(word, 1) for word in hindi] == [[0], [1], [2]]
    composed = ["ma", "ph\u1edf b\u00f2", "b\u00e1nh m\u00ec"]
    assert Index(composed).most_like(unicodedata.normalize("NFD", composed[2]), 1) == [2]
    assert Index([unicodedata.normalize("NFD", text) for text in composed]).most_like(composed[1], 1) == [1]
