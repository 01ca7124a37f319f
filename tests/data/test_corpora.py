"""Corpora: read as a stream, tokenized once, rows by a pure function."""

import gzip
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from luthier.data import corpora
from luthier.data.corpora import CorpusRows, Plan, reading, token_files
from luthier.errors import Interrupted, UserError

END = 300


def encode(texts: Sequence[str]) -> list[list[int]]:
    """A byte is a token."""
    return [list(text.encode()) for text in texts]


def plan(**changes: object) -> Plan:
    settings: dict[str, object] = {"held_out": 0.1, "vocabulary": 301, "end": END, "tokenizer": "bytes"} | changes
    return Plan(encode, **settings)  # type: ignore[arg-type]


def frame(rows: Sequence[dict[str, object]]) -> bytes:
    """Rows as JSON Lines in a zstd frame of their own."""
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return pa.Codec("zstd").compress(text, asbytes=True)  # type: ignore[no-any-return]


def documents(count: int, source: str = "Wiki") -> list[dict[str, object]]:
    return [{"text": f"Document {number} of {source}.", "meta": {"pile_set_name": source}} for number in range(count)]


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    """The Pile's shape: three frames in one file, two sources."""
    path = tmp_path / "pile.jsonl.zst"
    path.write_bytes(frame(documents(40)) + frame(documents(40, "Books")) + frame(documents(3, "Late")))
    return path


def tokenized(path: Path, folder: Path, **changes: object) -> tuple[corpora.Account, list[int]]:
    """The account, and all training tokens in the order of their files."""
    folder.mkdir(exist_ok=True)
    account = corpora.tokenize(corpora.find(path), plan(**changes), folder)
    files = sorted(folder.glob("train-*.tokens"))
    return account, [token for file in files for token in np.fromfile(file, "<u2").tolist()]


def test_all_frames_of_a_pile_file_are_read_by_their_sources(pile: Path, tmp_path: Path) -> None:
    account, _ = tokenized(pile, tmp_path / "data")
    assert account.documents == account.passages == 83
    assert account.passages == sum(account.kept.values())
    assert set(account.sources) == {"Wiki", "Books", "Late"}
    assert account.kept["dev"] and account.kept["test"]


def test_a_file_of_several_gzip_members_is_read_whole(tmp_path: Path) -> None:
    lines = [json.dumps(row).encode() + b"\n" for row in documents(2)]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, lines)))
    corpus = corpora.find(tmp_path / "a.jsonl.gz")
    texts = [passage.text for file in corpus.files for passage in corpus.passages(file)]
    assert texts == ["Document 0 of Wiki.", "Document 1 of Wiki."]


def test_a_cut_frame_tells_what_was_read_and_where_it_broke(pile: Path, tmp_path: Path) -> None:
    rows = [{"text": f"{number} {np.random.default_rng(number).bytes(3000).hex()}"} for number in range(300)]
    whole = frame(documents(5)) + frame(rows)
    pile.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"damaged or cut off zstd.*\d+ whole documents of this file came before.*pile"):
        tokenized(pile, tmp_path / "data")


def test_text_in_another_encoding_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("All is well.\n" * 3, encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(UserError, match=r"b\.txt:2: byte 4 of this line \(0xe9\) is not UTF-8"):
        tokenized(tmp_path, tmp_path / "data")


@pytest.mark.parametrize("content", [{}, {"a.png": b"\x89PNG"}, {"a.txt": b""}])
def test_a_corpus_without_text_is_refused(tmp_path: Path, content: dict[str, bytes]) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, written in content.items():
        (folder / name).write_bytes(written)
    with pytest.raises(UserError, match=r"folder is empty|no text to read|file is empty"):
        tokenized(folder, tmp_path / "data")


def test_rows_without_a_text_are_refused_with_their_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1: a row without a text: it has question, answer"):
        tokenized(tmp_path / "a.jsonl", tmp_path / "data")


def test_passages_are_the_text_and_have_its_tokens(tmp_path: Path) -> None:
    text = "".join(f"Paragraph {number} has some words.\n\nAnd   a list:\n- one\n" for number in range(200))
    passages = list(reading._cut([text], 1024))
    assert "".join(passages) == text
    assert max(map(len, passages)) <= 1024
    assert all(passage[0].isspace() for passage in passages[1:])  # where byte-level tokenizers cut, too


def test_folders_are_searched_however_deep_and_are_sources(tmp_path: Path) -> None:
    for name in ("wiki/a/x.txt", "wiki/y.md", "books/z.txt", "loose.txt", "val.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\x89PNG" if name.endswith("png") else b"text\n")
    found = corpora.find(tmp_path)
    assert [name for name, _ in found.train] == [tmp_path.name, "books", "wiki", "wiki"]
    assert [name for name, _ in found.held_out] == ["dev"]
    assert [Path(name).name for name in found.ignored] == ["picture.png"]


def test_a_document_longer_than_any_file_goes_on_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "SHARD", 5000)
    text = "word after word. " * 3000
    (tmp_path / "a.txt").write_text(text)
    account, tokens = tokenized(tmp_path / "a.txt", tmp_path / "data", held_out=0.0)
    sizes = [file.stat().st_size // 2 for file in sorted((tmp_path / "data").glob("*.tokens"))]
    assert len(sizes) > 3 and max(sizes) <= 5000
    assert bytes(tokens[:-1]).decode() == text and tokens[-1] == END
    assert account.documents == 1


def test_equal_texts_never_lie_in_two_splits(tmp_path: Path) -> None:
    rows = [{"text": f"Text number {number % 50}"} for number in range(500)]
    (tmp_path / "a.jsonl.zst").write_bytes(frame(rows))
    tokenized(tmp_path / "a.jsonl.zst", tmp_path / "data")
    texts = [
        {bytes(ids[ids != END].tolist()) for _, ids, _ in CorpusRows(tmp_path / "data", split, context=16).passages()}
        for split in ("train", "dev", "test")
    ]
    assert all(texts) and len(set.union(*texts)) == sum(map(len, texts))


def test_duplicates_are_left_out_on_request(tmp_path: Path) -> None:
    rows = [{"text": f"Text  number {number % 50}"} for number in range(80)] + [{"text": " "}]
    (tmp_path / "a.jsonl.zst").write_bytes(frame(rows))
    account, _ = tokenized(tmp_path / "a.jsonl.zst", tmp_path / "data", deduplicate=True)
    assert (account.passages, account.duplicates, account.empty) == (81, 30, 1)
    assert sum(account.kept.values()) == 50


@pytest.mark.parametrize("deduplicate", [False, True])
def test_stopped_anywhere_it_goes_on_at_the_same_token(
    pile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deduplicate: bool
) -> None:
    rows = [*documents(30), *documents(20), {"text": "A long document. " * 400}]
    pile.write_bytes(frame(rows) + frame(documents(40, "Books")))
    expected = tokenized(pile, tmp_path / "whole", deduplicate=deduplicate)
    monkeypatch.setattr(token_files, "BATCH", 100)
    monkeypatch.setattr(token_files, "STEP", 1)
    folder = tmp_path / "stopped"
    folder.mkdir()
    stops = 0
    while True:
        answers = iter([False, stops % 3 == 0])
        stop = partial(next, answers, True)
        try:
            account = corpora.tokenize(corpora.find(pile), plan(deduplicate=deduplicate), folder, stop=stop)
        except Interrupted:
            stops += 1
            for file in folder.glob("*.tokens"):  # what a crash leaves behind the last step
                file.write_bytes(file.read_bytes() + b"half a st")
            continue
        break
    assert stops > 3
    assert (account, tokenized(pile, folder, deduplicate=deduplicate)[1]) == expected
    sums = [json.loads((tmp_path / name / "tokens.json").read_text())["sha256"] for name in ("whole", "stopped")]
    assert sums[0] == sums[1]


def test_tokens_of_another_corpus_are_not_continued(pile: Path, tmp_path: Path) -> None:
    tokenized(pile, tmp_path / "data")
    pile.write_bytes(frame(documents(3)))
    with pytest.raises(UserError, match=r"tokens of another corpus.*files differ"):
        tokenized(pile, tmp_path / "data")


def test_each_token_is_predicted_once_in_a_pass(pile: Path, tmp_path: Path) -> None:
    _, tokens = tokenized(pile, tmp_path / "data")
    rows = CorpusRows(tmp_path / "data", "train", context=16)
    predicted = [token for number in range(len(rows)) for token in rows[number].ids[1:].tolist()]
    firsts = len(list((tmp_path / "data").glob("train-*.tokens")))  # the first token of a file follows nothing
    assert len(predicted) == len(tokens) - firsts == rows.tokens
    assert rows.lengths == [len(rows[number].ids) for number in range(len(rows))]
    assert rows.location(0).endswith("pile.jsonl.zst, document 1")


def test_a_weight_says_how_often_a_source_comes_in_a_pass(pile: Path, tmp_path: Path) -> None:
    tokenized(pile, tmp_path / "data")

    def rows_of(**weights: float) -> int:
        return len(CorpusRows(tmp_path / "data", "train", context=16, weights=weights))

    wiki = rows_of(Books=0, Late=0)
    assert rows_of(Wiki=2.5, Books=0, Late=0) == round(2.5 * wiki)
    assert rows_of(Wiki=2) == rows_of() + wiki
    with pytest.raises(UserError, match=r'unknown source "Wkii", did you mean "Wiki"'):
        rows_of(Wkii=2)
    with pytest.raises(UserError, match="every source has the weight 0"):
        rows_of(Wiki=0, Books=0, Late=0)


def test_a_preview_reads_no_more_than_it_shows(pile: Path) -> None:
    long = [{"text": np.random.default_rng(number).bytes(3000).hex()} for number in range(100)]
    pile.write_bytes(frame(documents(5)) + frame(long) + b"\x28\xb5\x2f\xfd damaged")
    found = list(corpora.preview(pile, 3))
    assert [each.text for each in found] == [f"Document {number} of Wiki." for number in range(3)]
    assert found[2].location.endswith("pile.jsonl.zst:3") and found[2].source == "Wiki"
