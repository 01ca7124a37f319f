"""Folders and archives: files that their names make train, dev or test stay apart, shards are one, notes are left out."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luthier.data import read_rows
from luthier.data.readers import archives
from luthier.data.readers.files import Files, find
from luthier.errors import UserError

Write = Callable[[str, str | bytes], Path]


def line(number: int) -> str:
    return f'{{"question": "q{number}", "answer": "a{number}"}}\n'


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        find(path)
    return str(caught.value)


def names(files: Files) -> list[str]:
    return [source.name for source in files.sources]


def parquet(*questions: str) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"question": questions, "answer": ["a"] * len(questions)}), file)
    return file.getvalue()


def arrow(*questions: str) -> bytes:
    file = io.BytesIO()
    table = pa.table({"question": questions, "answer": ["a"] * len(questions)})
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return file.getvalue()


def packed(files: dict[str, str | bytes], kind: str) -> bytes:
    """The files in an archive of this kind."""
    out = io.BytesIO()
    if kind == ".zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w:gz" if kind in (".tgz", ".tar.gz") else "w") as tar:
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return out.getvalue()


# Splits by name


@pytest.mark.parametrize("dev", ["valid.jsonl", "validation.csv", "dev.json", "faq-val.jsonl", "eval.jsonl"])
def test_files_named_as_splits_are_never_pooled(write: Write, dev: str) -> None:
    for name in ("faq_train.jsonl", "faq_test.jsonl", dev):
        write(f"d/{name}", "question,answer\nq,a\n" if name.endswith("csv") else line(1))
    files = find(Path("d"))
    assert names(files) == ["d/faq_train.jsonl"]
    assert {split: names(part) for split, part in files.held_out.items()} == {
        "dev": [f"d/{dev}"],
        "test": ["d/faq_test.jsonl"],
    }
    assert files.sentence == (
        f"by their names d/faq_train.jsonl is trained on, d/{dev} is dev, d/faq_test.jsonl is test"
    )
    assert [row.location for row in read_rows(Path("d"))] == ["d/faq_train.jsonl:1"]


def test_eval_alone_is_test_and_dev_comes_from_train(write: Write) -> None:
    write("d/train.jsonl", line(1))
    write("d/eval.jsonl", line(2))
    assert find(Path("d")).sentence == (
        "by their names d/train.jsonl is trained on, d/eval.jsonl is test; dev is taken from train"
    )


def test_a_file_of_no_split_beside_train_is_left_out_and_beside_test_it_is_train(write: Write) -> None:
    for name in ("d/train.jsonl", "d/test.jsonl", "d/more.jsonl", "e/faq.jsonl", "e/test.jsonl"):
        write(name, line(1))
    assert find(Path("d")).ignored == ["d/more.jsonl (its name tells no split)"]
    Path("d/test.jsonl").unlink()
    assert find(Path("d")).sentence == "by their names d/train.jsonl is trained on; dev and test are taken from train"
    assert names(find(Path("e"))) == ["e/faq.jsonl"]
    assert names(find(Path("e")).held_out["test"]) == ["e/test.jsonl"]


def test_names_that_only_contain_such_words_are_no_splits(write: Write) -> None:
    for name in ("contest.jsonl", "kiln test.jsonl", "trained.jsonl"):
        write(f"d/{name}", line(1))
    files = find(Path("d"))
    assert (len(files.sources), files.held_out, files.sentence) == (3, {}, None)


def test_documents_are_splits_only_where_a_name_says_nothing_else(write: Write) -> None:
    for name in ("How to train.md", "test.md"):
        write(f"d/{name}", "Kilns.")
        write(f"e/{name.lower().replace('how to ', '')}", "Kilns.")
    assert names(find(Path("d"))) == ["d/How to train.md"]
    assert names(find(Path("e"))) == ["e/train.md"]


def test_a_test_without_anything_to_train_on_is_refused(write: Write) -> None:
    write("d/test.jsonl", line(1))
    write("d/dev.jsonl", line(2))
    assert message(Path("d")) == (
        "d: files for dev and test, and none to train on. Expected one that is named train, or a name of its own."
    )
    write("e/test.jsonl", line(1))
    assert names(find(Path("e"))) == ["e/test.jsonl"]


# As Hugging Face lays data out


def test_shards_of_a_split_are_one(write: Write) -> None:
    write("d/README.md", "# A card")
    for name, content in {
        "train-00000-of-00002": parquet("a", "b"), "train-00001-of-00002": parquet("c"),
        "validation-00000-of-00001": parquet("d"), "test-00000-of-00001-0123456789abcdef": parquet("e"),
    }.items():  # fmt: skip
        write(f"d/data/{name}.parquet", content)
    files = find(Path("d"))
    assert [row.values["question"] for row in files.rows()] == ["a", "b", "c"]
    assert {split: len(part.sources) for split, part in files.held_out.items()} == {"dev": 1, "test": 1}
    assert files.ignored == ["d/README.md"]
    assert str(files.sentence).startswith(
        "by their names d/data/train-00000-of-00002.parquet (and 1 more) is trained on, "
    )


def test_of_several_kinds_of_training_files_one_is_named_by_a_word(write: Write) -> None:
    for name in ("train_sft-00000-of-00002", "train_sft-00001-of-00002", "train_gen-00000-of-00001", "test_sft"):
        write(f"d/data/{name}.parquet", parquet("a"))
    write("d/dataset_infos.json", "{}")
    assert message(Path("d")) == (
        "d: several kinds of files to train on: train_gen, train_sft. Name the one to read by a word of its names: d#gen."
    )
    files = find(Path("d#sft"))
    assert (len(files.sources), names(files.held_out["test"])) == (2, ["d/data/test_sft.parquet"])
    assert message(Path("d#prefs")).startswith(
        'd#prefs: no file with "prefs" in its name. There are data/test_sft.parquet'
    )


def test_train_files_of_several_sources_are_one_train(write: Write) -> None:
    for name in ("faq_train", "mail_train", "faq_test"):
        write(f"d/{name}.jsonl", line(1))
    assert len(find(Path("d")).sources) == 2


def test_inner_folders_that_are_splits_are_read(write: Write) -> None:
    for name in ("d/train/0.jsonl", "d/train/1.jsonl", "d/test/0.jsonl", "d/pictures/0.png"):
        write(name, line(1))
    files = find(Path("d"))
    assert (len(files.sources), names(files.held_out["test"])) == (2, ["d/test/0.jsonl"])
    assert files.ignored == ["d/pictures"]


def test_what_save_to_disk_writes_is_read_in_its_order(write: Write) -> None:
    for split in ("train", "test"):
        listed = [{"filename": f"data-0000{number}-of-00002.arrow"} for number in (1, 0)]
        write(f"d/{split}/state.json", json.dumps({"_data_files": listed}))
        write(f"d/{split}/dataset_info.json", "{}")
        for number in (0, 1):
            write(f"d/{split}/data-0000{number}-of-00002.arrow", arrow(f"{split} {number}"))
    assert [row.values["question"] for row in read_rows(Path("d/train"))] == ["train 1", "train 0"]
    write("d/dataset_dict.json", '{"splits": ["train", "test"]}')
    files = find(Path("d"))
    assert [row.location for row in files.rows()] == [
        "d/train/data-00001-of-00002.arrow:row 1",
        "d/train/data-00000-of-00002.arrow:row 1",
    ]
    assert len(list(files.held_out["test"].rows())) == 2
    Path("d/train/data-00000-of-00002.arrow").unlink()
    assert message(Path("d/train")).startswith(
        "d/train: state.json names data-00001-of-00002.arrow, data-00000-of-00002.arrow, and the folder has "
    )


def test_several_inner_folders_without_such_names_are_not_searched(write: Write) -> None:
    write("d/en/a.jsonl", line(1))
    write("d/fr/a.jsonl", line(1))
    assert "no file to read in this folder, found en, fr." in message(Path("d"))
    assert names(find(Path("d/en"))) == ["d/en/a.jsonl"]


# Archives


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tgz", ".tar.gz"])
def test_an_archive_is_read_like_a_folder(write: Write, kind: str) -> None:
    files = {
        "faq/train.jsonl": line(1) + line(2), "faq/test.parquet": parquet("t"), "faq/README.md": "# Card",
        "__MACOSX/faq/._train.jsonl": b"\0", "faq/.hidden.jsonl": line(9),
    }  # fmt: skip
    path = write("x", packed(files, kind)).rename(f"x{kind}")
    found = find(path)
    assert [row.location for row in found.rows()] == [f"x{kind}/faq/train.jsonl:1", f"x{kind}/faq/train.jsonl:2"]
    assert [row.location for row in found.held_out["test"].rows()] == [f"x{kind}/faq/test.parquet:row 1"]
    assert (found.ignored, found.paths) == ([f"x{kind}/faq/README.md"], [f"x{kind}"])


def test_members_of_an_archive_may_be_packed(write: Write) -> None:
    files: dict[str, str | bytes] = {"b.csv.gz": gzip.compress(b"question,answer\nq,a\n"), "c.json": f"[{line(1)}]"}
    path = write("x.zip", packed(files, ".zip"))
    assert [row.location for row in read_rows(path)] == ["x.zip/b.csv.gz:2", "x.zip/c.json:1"]


@pytest.mark.parametrize("name", ["../../rows.jsonl", "/rows.jsonl"])
def test_a_members_name_reaches_nothing(write: Write, name: str) -> None:
    path = write("x.zip", packed({name: line(1)}, ".zip"))
    assert [row.values["question"] for row in read_rows(path)] == ["q1"]
    assert sorted(each.name for each in Path().iterdir()) == ["x.zip"]


def test_an_archive_with_a_password_or_damage_is_named(write: Write) -> None:
    content = packed({"a.jsonl": line(1)}, ".zip")
    locked = bytearray(content)
    locked[content.index(b"PK\x01\x02") + 8] |= 1
    assert message(write("x.zip", bytes(locked))) == (
        "x.zip: the archive has a password. Unpack it first: unzip FILE.zip -d FOLDER."
    )
    assert message(write("y.zip", content[:-30])).startswith("y.zip: damaged or cut off archive")
    broken = bytearray(content)
    broken[40] ^= 255
    with pytest.raises(UserError, match="damaged or cut off archive"):
        list(read_rows(write("z.zip", bytes(broken))))
    assert message(write("w.tar.gz", packed({"a.jsonl": line(1)}, ".tgz")[:-20])).startswith("w.tar.gz: damaged")


def test_an_archive_of_too_many_files_is_to_be_unpacked(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    path = write("x.zip", packed({f"{n}.jsonl": line(n) for n in range(3)}, ".zip"))
    assert message(path) == "x.zip: the archive has 3 files. Unpack it and keep those that hold data."
