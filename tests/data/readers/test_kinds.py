"""Kinds of files that are not read: each is named for what it is, by its content, with the way to one that is read."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.data import read_rows
from luthier.data.readers.files import find
from luthier.errors import UserError

Write = Callable[[str, str | bytes], Path]


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    return str(caught.value)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.unknown", "x"])
@pytest.mark.parametrize(
    ("content", "what", "way"),
    [
        (b"%PDF-1.7\n", "a PDF", "pdftotext"),
        (b"\x89PNG\r\n\x1a\n", "a picture (PNG)", "tesseract"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a sound (WAV)", "whisper"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "pandas.read_hdf"),
        (b"\x93NUMPY\x01\0", "a NumPy array", "numpy.load"),
        (b"Obj\x01\x04", "an Avro file", "avro-tools tojson"),
        (pickle.dumps([{"a": 1}]), "a Python pickle", "pandas.read_pickle"),
        (b'\x40\0\0\0\0\0\0\0{"w": {}}', "a model's weights (safetensors)", "model=FOLDER"),
        (b"GGUF\x03\0\0\0", "a model (GGUF)", "model=FILE"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Log in</body></html>", "a web page (HTML)", "Download the data itself"),
        (b"<?xml version='1.0'?><a/>", "XML", "JSON Lines or CSV"),
        (b"PK\x03\x04" + b"\0" * 26 + b"word/document.xml", "a Word document", "pandoc"),
        (b"PK\x03\x04" + b"\0" * 26 + b"mimetypeapplication/epub+zip", "a book (EPUB)", "pandoc"),
        (b"PK\x03\x04" + b"\0" * 26 + b"Index/Document.iwa", "a document of Numbers or Pages", "CSV"),
        (b"PK\x03\x04" + b"\0" * 26 + b"x/data.pkl", "a PyTorch checkpoint", "model=FOLDER"),
        (b"PK\x03\x04" + b"\0" * 26 + b"x.npy", "several NumPy arrays (npz)", "numpy.load"),
        (b"PK\x03\x04" + b"\0" * 26 + b"x.jsonl", "a zip archive under another name", "Name it .zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document, or one with a password", "CSV"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "a packed file (7z)", "Unpack it first"),
    ],
)
def test_the_content_is_named_whatever_the_name_says(
    write: Write, name: str, content: bytes, what: str, way: str
) -> None:
    told = message(write(name, content))
    assert told.startswith(f"{name}: this is {what}")
    assert way in told


def test_a_page_may_be_a_text(write: Write) -> None:
    (row,) = read_rows(write("x.txt", "<html>Slip</html>"))
    assert row.values == {"text": "<html>Slip</html>"}


def test_in_a_folder_what_promises_no_data_is_left_out_and_what_does_is_refused(write: Write) -> None:
    write("d/rows.jsonl", '{"a": "1"}\n')
    write("d/manual.pdf", b"%PDF-1.7\n")
    assert find(Path("d")).ignored == ["d/manual.pdf"]
    write("d/more.jsonl", b"version https://git-lfs.github.com/spec/v1\n")
    assert message(Path("d")).startswith("d/more.jsonl: this is a Git LFS pointer")


def test_a_text_of_lines_with_tabs_is_a_table_and_other_texts_are_documents(write: Write) -> None:
    assert len(list(read_rows(write("x.txt", "q\ta\nb\tc\nd\te\n")))) == 2
    assert len(list(read_rows(write("y.txt", "q\ta\nb\tc\nd\n")))) == 1
    for separator in ",;|":
        assert len(list(read_rows(write("z.txt", f"q{separator}a\nb{separator}c\nd{separator}e\n")))) == 2
    assert len(list(read_rows(write("w.txt", "Hot, dry.\nWet, cold.\nSo, so.\n")))) == 1


def test_a_page_by_its_name_gets_the_way_to_a_text(write: Write) -> None:
    assert message(write("x.html", "Slip")) == (
        'x.html: a document of a kind that is not read, ".html". Make text of it: pandoc FILE -t plain -o FILE.txt.'
    )


def test_what_other_programs_save_as_xls_is_known(write: Write) -> None:
    assert [row.values for row in read_rows(write("x.xls", "q\ta\nHot?\tNo\nWet?\tYes\n"))] == [
        {"q": "Hot?", "a": "No"},
        {"q": "Wet?", "a": "Yes"},
    ]
    assert message(write("y.xls", "<html><table><tr><td>q</td></tr></table></html>")) == (
        "y.xls: this is a web page (HTML). Open it in a spreadsheet and save it as CSV (UTF-8)."
    )
