"""One reader for all documents: each kind keeps page, line and heading; what cannot be read is named and the rest goes on."""

import importlib.util
import io
import json
from pathlib import Path

import docx
import pypdf
import pytest

from luthier.chat import limited_process
from luthier.chat.limited_process import Outcome
from luthier.data.documents import extract, reading
from luthier.data.documents.passages import passages
from luthier.data.documents.reading import Document
from luthier.errors import MachineError, UserError
from pdf_files import pdf

PAGE = """<html><head><title>Kiln</title></head><body><nav><a href="/">Home</a></nav><main><h1>Kiln</h1>
<p><b>Is it hot?</b></p><p>Yes, at 7.</p><h2>Glazes</h2><ul><li>matte</li></ul>
<table><tr><th>Glaze</th><th>Cone</th></tr><tr><td>Celadon</td><td>9</td></tr></table>
<dl><dt>Bisque</dt><dd>Fired once.</dd></dl></main><footer>Imprint</footer></body></html>"""


def one(path: Path) -> Document:
    library = reading.read([path], path)
    assert library.unread == {}
    (document,) = library.documents
    return document


def seen(document: Document) -> list[tuple[str, str]]:
    return [(document.location(block), block.shown) for block in document.blocks]


def why_not(path: Path) -> str:
    library = reading.read([path], path)
    assert library.documents == ()
    return library.unread[path.name]


def test_a_pdf_keeps_pages_headings_and_whole_paragraphs(tmp_path: Path) -> None:
    page = [("Kiln rules", 18, False), "The kiln opens at seven in the morning, and nobody may come ear-",
            "lier than that.", ("Is it hot?", 11, True), "Yes.", "• Wear gloves."]  # fmt: skip
    (tmp_path / "k.pdf").write_bytes(pdf(page, [("Glazes", 14, False), "Celadon (cone 9)."]))
    assert seen(one(tmp_path / "k.pdf")) == [
        ("k.pdf:page 1", "# Kiln rules"),
        ("k.pdf:page 1", "The kiln opens at seven in the morning, and nobody may come earlier than that."),
        ("k.pdf:page 1", "Is it hot?"),
        ("k.pdf:page 1", "Yes."),
        ("k.pdf:page 1", "- Wear gloves."),
        ("k.pdf:page 2", "## Glazes"),
        ("k.pdf:page 2", "Celadon (cone 9)."),
    ]
    assert [block.bold for block in one(tmp_path / "k.pdf").blocks][2:4] == [True, False]


def test_a_docx_keeps_headings_lists_and_tables_in_their_order(tmp_path: Path) -> None:
    file = docx.Document()
    file.add_heading("Kiln", 0)
    file.add_heading("Firing", 2)
    file.add_paragraph().add_run("Is it hot?").bold = True
    table = file.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ["Glaze", "Cone", "Celadon", "9"], strict=True):
        cell.text = text
    file.add_paragraph("Wear gloves.", style="List Bullet")
    file.save(str(tmp_path / "k.docx"))
    document = one(tmp_path / "k.docx")
    assert seen(document) == [
        ("k.docx:paragraph 1", "# Kiln"),
        ("k.docx:paragraph 2", "## Firing"),
        ("k.docx:paragraph 3", "Is it hot?"),
        ("k.docx:paragraph 4", "Glaze | Cone\nCeladon | 9"),
        ("k.docx:paragraph 5", "- Wear gloves."),
    ]
    assert document.blocks[2].bold and document.blocks[3].cells[1] == ("Celadon", "9")


def test_a_page_keeps_its_structure_and_loses_menu_and_footer(tmp_path: Path) -> None:
    (tmp_path / "k.html").write_text(PAGE)
    document = one(tmp_path / "k.html")
    assert [shown for _, shown in seen(document)] == [
        "# Kiln", "Is it hot?", "Yes, at 7.", "## Glazes", "- matte", "Glaze | Cone\nCeladon | 9", "Bisque: Fired once.",
    ]  # fmt: skip
    assert document.blocks[1].bold and seen(document)[3][0] == "k.html:paragraph 4"


def test_passages_keep_their_line_and_the_headings_above(tmp_path: Path) -> None:
    long = " ".join(f"word{number}." for number in range(150))
    (tmp_path / "k.md").write_text(f"# Kiln\n\nHot.\n\n## Firing\n\n{long}\n\n{long}\n")
    found = list(passages(one(tmp_path / "k.md")))
    assert [(passage.location, passage.heading) for passage in found] == [("k.md:1", ""), ("k.md:9", "Kiln > Firing")]
    assert found[0].text.startswith("# Kiln\n\nHot.\n\n## Firing\n\nword0.")


def test_a_folder_goes_on_past_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.md").write_text("Hot.")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "b.md").write_text("Hidden.")
    (tmp_path / "scan.pdf").write_bytes(pdf([], []))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    library = reading.read(reading.files(tmp_path), tmp_path)
    assert [document.name for document in library.documents] == ["inner/a.md"]
    assert list(library.unread) == ["empty.txt", "latin.txt", "scan.pdf"]
    assert library.unread["empty.txt"] == "no text in it" and "not UTF-8" in library.unread["latin.txt"]
    assert library.unread["scan.pdf"].startswith("no text in it: pictures of pages")


def _unreadable(file: Path) -> str:
    """What the limited process would say, in this one, which has the packages loaded."""
    return str(json.loads(extract.extract(json.dumps({"path": str(file), "kind": file.suffix})))["unreadable"])


def test_encrypted_and_broken_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(["Hot."])))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "secret.pdf")
    (tmp_path / "broken.pdf").write_bytes(b"no PDF at all")
    (tmp_path / "old.docx").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    (tmp_path / "broken.docx").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "empty.html").write_text("<html><body><script>fill()</script></body></html>")
    reasons = {file.name: _unreadable(file) for file in sorted(tmp_path.iterdir())}
    assert why_not(tmp_path / "secret.pdf") == reasons["secret.pdf"]
    assert reasons["secret.pdf"] == "encrypted: it opens with a password only"
    assert reasons["broken.pdf"].startswith("not a sound PDF")
    assert reasons["old.docx"].startswith("encrypted, or in Word's older format")
    assert reasons["broken.docx"].startswith("not a sound DOCX file")
    assert reasons["empty.html"].startswith("no text in it; a page that a program fills")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(met="processor"), "parsing it takes more than 60 seconds of processor time"),
        (Outcome(met="clock"), "parsing it takes more than 600 seconds"),
        (Outcome(met="memory"), "parsing it takes more than 2.1 GB of memory"),
        (Outcome(met="output"), "parsing it takes more than 67.1 MB of text"),
        (Outcome(failure="RecursionError: too deep."), "cannot be parsed (RecursionError: too deep)"),
    ],
)
def test_a_file_that_takes_too_much_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, words: str
) -> None:
    monkeypatch.setattr(limited_process, "call", lambda function, argument, limits: outcome)
    (tmp_path / "k.pdf").write_bytes(pdf(["Hot."]))
    assert why_not(tmp_path / "k.pdf") == words


def test_without_the_extra_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "k.pdf").write_bytes(pdf(["Hot."]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"k\.pdf: this needs the package pypdf, .*pip install 'luthier\[docs\]'"):
        reading.read([tmp_path / "k.pdf"], tmp_path / "k.pdf")


def test_a_document_that_is_gone_or_far_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((UserError, MachineError), match="no such file"):
        reading.read([tmp_path / "none.md"], tmp_path)
    monkeypatch.setattr(reading, "LARGEST", 3)
    (tmp_path / "k.md").write_text("Hot.")
    assert why_not(tmp_path / "k.md") == "larger than 3 bytes"


def test_the_kinds_are_those_that_a_child_process_can_read() -> None:
    assert {".html" if ending == ".htm" else ending for ending in reading.PACKAGES} == extract.READERS.keys()
