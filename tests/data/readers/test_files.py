"""Paths, packing and encodings: what is found is read whole, and what cannot be read says why and what to do."""

import gzip
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from luthier.data import read_rows
from luthier.data.readers import packing, sources
from luthier.data.readers.files import find
from luthier.errors import MachineError, UserError

Write = Callable[[str, str | bytes], Path]
KNOWN = (
    ".jsonl, .json, .csv, .tsv, .txt, .md, .yaml, .parquet, .arrow, .xlsx, .ods or .sqlite, each also packed "
    "(.gz, .zst, .xz, .bz2, .zip, .tar)"
)
LINE = '{"question": "q", "answer": "a"}\n'


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    return str(caught.value)


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Nobody may read the path, root neither: root becomes an ordinary user meanwhile."""
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(0o700)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


# Found


@pytest.mark.parametrize(
    "name",
    [
        "x.jsonl",
        "x.JSONL",
        "x.ndjson",
        "x.jsonl.gz",
        "x.jsonl.zst",
        "x.jsonl.xz",
        "x.jsonl.bz2",
        "my.data.v2.ndjson.GZ",
    ],
)
def test_the_ending_tells_the_kind(write: Write, name: str) -> None:
    path = write(name, gzip.compress(LINE.encode()) if name.endswith("GZ") else LINE)
    assert [(row.location, row.values) for row in read_rows(path)] == [(f"{name}:1", {"question": "q", "answer": "a"})]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst", ".xz", ".bz2"])
def test_packed_files_read_like_plain_ones(write: Write, ending: str) -> None:
    content = "q,a\n" + "".join(f"{n},é{n}\n" for n in range(20_000))
    rows = list(read_rows(write(f"x.csv{ending}", content)))
    assert len(rows) == 20_000
    assert rows[-1].values == {"q": "19999", "a": "é19999"}


@pytest.mark.parametrize(
    ("ending", "padding"), [(".gz", 0), (".gz", 1000), (".zst", 0), (".xz", 0), (".xz", 8), (".xz", 999), (".bz2", 0)]
)
def test_packed_pieces_one_behind_the_other_are_read_to_the_end(write: Write, ending: str, padding: int) -> None:
    """Behind a piece zeros may stand, as tapes leave them."""
    path = write(f"x.jsonl{ending}", LINE)
    path.write_bytes(2 * (path.read_bytes() + padding * b"\0"))
    assert len(list(read_rows(path))) == 2


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            "00a8",
            "packed with a window of 2,048 MiB, more than the 128 MiB that are read. Unpack it with zstd -d --long=31",
        ),
        (
            "01002a",
            "packed with the dictionary 42, without which nothing can be read. Unpack it where the dictionary is",
        ),
    ],
)
def test_a_sound_zstd_file_that_needs_more_is_named_for_what_it_is(write: Write, header: str, found: str) -> None:
    """Frames by hand (RFC 8878): magic number, header, and the line as one block that is not compressed."""
    block = (len(LINE) << 3 | 1).to_bytes(3, "little") + LINE.encode()
    write("x", b"").rename("x.jsonl.zst").write_bytes(bytes.fromhex("28b52ffd" + header) + block)
    assert message(Path("x.jsonl.zst")).startswith(f"x.jsonl.zst: {found}")


@pytest.mark.parametrize("ending", [".gz", ".zst", ".xz", ".bz2"])
def test_a_packed_file_whose_name_does_not_say_so_is_read(write: Write, ending: str) -> None:
    path = write(f"x.jsonl{ending}", LINE).rename("x.jsonl")
    assert len(list(read_rows(path))) == 1


def test_a_packed_file_that_grows_beyond_measure_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "TRUSTED", 1 << 20)
    path = write("x.jsonl.gz", "\n" * (8 << 20))
    assert message(path) == (
        f"x.jsonl.gz: its {path.stat().st_size:,} bytes unpack to more than 200 times as many, which no data do. "
        "If you trust it, unpack it first."
    )


def test_a_folder_is_its_files_by_name_without_hidden_ones(write: Write) -> None:
    for name in ("d/b.jsonl", "d/a.csv", "d/.hidden.jsonl", "d/README.md", "d/inner/c.jsonl"):
        write(name, "question,answer\nq,a\n" if name.endswith("csv") else LINE)
    assert [row.location for row in read_rows(Path("d"))] == ["d/a.csv:2", "d/b.jsonl:1"]
    assert find(Path("d")).ignored == ["d/README.md", "d/inner"]


# Not found


def test_a_missing_file_suggests_the_nearest_name(write: Write) -> None:
    write("d/tickets.jsonl", LINE)
    write("d/other.csv", LINE)
    assert message(Path("d/tickts.jsonl")) == 'd/tickts.jsonl: no such file or folder, did you mean "d/tickets.jsonl"?'
    assert message(Path("d/zzz")) == (
        'd/zzz: no such file or folder in "d". There are other.csv, tickets.jsonl. Check the path.'
    )


def test_a_missing_folder_is_named(write: Write) -> None:
    assert (
        message(Path("nowhere/x.jsonl"))
        == 'nowhere/x.jsonl: no such file, nor is there a folder "nowhere". Check the path.'
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("x.foo", 'unknown kind of file ".foo".'),
        ("x.jsnl", 'unknown kind of file ".jsnl", did you mean ".jsonl"?'),
        ("x.gz", "a file whose name has no ending that says its kind."),
        ("x", "a file whose name has no ending that says its kind."),
    ],
)
def test_an_unknown_kind_of_file_is_refused(write: Write, name: str, found: str) -> None:
    assert message(write(name, "one, two\n")) == (
        f"{name}: {found} Expected {KNOWN}. Rename it, or save it as one of these; .txt is read as one text."
    )


@pytest.mark.parametrize("name", ["x.jsonl.lz4", "x.rar", "x.7z"])
def test_a_packed_file_of_another_kind_is_to_be_unpacked(write: Write, name: str) -> None:
    kind = Path(name).suffix
    told = message(write(name, b"\x01\x02"))
    assert (
        told
        == f'{name}: a packed file of a kind that is not unpacked here, "{kind}". Expected {KNOWN}. Unpack it first.'
    )


def test_a_folder_without_data_is_refused(write: Write) -> None:
    Path("empty").mkdir()
    assert message(Path("empty")) == f"empty: the folder is empty. Expected files: {KNOWN}."
    write("d/notes.log", "x")
    write("d/inner/x.jsonl", LINE)
    write("d/inner2/x.jsonl", LINE)
    assert message(Path("d")) == (
        f"d: no file to read in this folder, found inner, inner2, notes.log. Expected {KNOWN}; of inner folders only "
        "those are searched that are named as splits, data, or alone."
    )


# Not readable


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet", "x.csv.gz", "x.json.zst"])
def test_an_empty_file_is_refused(write: Write, name: str) -> None:
    assert message(write(name, "")) == (
        f"{name}: the file is empty; expected at least one row. Check that the export or the download finished."
    )


@pytest.mark.parametrize("name", ["x.csv", "x.json"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_that_is_not_utf8_is_named(write: Write, name: str, mark: bytes) -> None:
    content = b"question,answer\n" if name == "x.csv" else b"[\n"
    assert message(write(name, mark + content + "Grün,é".encode("latin-1"))) == (
        f"{name}:2: byte 3 of this line (0xfc) is not UTF-8; the file is probably in Windows-1252. "
        "Save it as UTF-8: in a spreadsheet as “CSV UTF-8”, or with iconv -f WINDOWS-1252 -t UTF-8."
    )


@pytest.mark.parametrize("name", ["x.csv", "x.json"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_named(write: Write, name: str, encoding: str) -> None:
    assert message(write(name, "q,a\n1,2\n".encode(encoding))) == (
        f"{name}: the file is in UTF-16, expected UTF-8. "
        "Save it as UTF-8: in a spreadsheet as “CSV UTF-8”, or with iconv -f UTF-16 -t UTF-8."
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.jsonl", "x.txt"])
def test_a_byte_order_mark_tells_the_encoding(write: Write, name: str, encoding: str) -> None:
    content = "q\tü\n1\t2\n" if name in ("x.csv", "x.txt") else '[{"q": "1", "ü": "2"}]'
    content = content.replace("\t", ",") if name == "x.csv" else content
    assert [row.values for row in read_rows(write(name, content.encode(encoding)))] == [{"q": "1", "ü": "2"}]


def test_an_encoding_that_the_mark_promises_and_the_rest_is_not_is_named(write: Write) -> None:
    assert message(write("x.csv", b"\xff\xfeq\0,\0\0\xd8")).startswith(
        "x.csv: its first bytes say that the file is in UTF-16, and it is not ("
    )


@pytest.mark.parametrize("ending", [".gz", ".zst", ".xz", ".bz2"])
def test_a_packed_file_that_was_cut_off_is_refused(write: Write, ending: str) -> None:
    path = write(f"x.jsonl{ending}", "".join(f'{{"text": "{n * n}"}}\n' for n in range(20_000)))
    path.write_bytes(path.read_bytes()[:-30])
    told = {
        ".gz": "gzip file (it ends in the middle)", ".zst": "zstd file (Truncated compressed stream)",
        ".xz": "xz file (it ends in the middle)", ".bz2": "bzip2 file (it ends in the middle)",
    }[ending]  # fmt: skip
    assert message(path) == (
        f"x.jsonl{ending}: damaged or cut off {told}. Copy or download it again, or pack it again."
    )


@pytest.mark.parametrize("ending", [".gz", ".zst", ".xz", ".bz2"])
def test_no_rows_are_lost_behind_a_damaged_piece(write: Write, ending: str) -> None:
    path = write(f"x.jsonl{ending}", LINE)
    path.write_bytes(path.read_bytes() + b"damaged" + path.read_bytes()[7:])
    assert message(path).startswith(f"x.jsonl{ending}: damaged or cut off ")


@pytest.mark.parametrize(("ending", "codec"), [(".gz", "gzip"), (".zst", "zstd"), (".xz", "xz"), (".bz2", "bzip2")])
def test_a_file_that_is_not_packed_as_its_name_says_is_refused(write: Write, ending: str, codec: str) -> None:
    path = write("x.jsonl", LINE).rename(f"x.jsonl{ending}")
    assert message(path).startswith(f"x.jsonl{ending}: damaged or cut off {codec} file (")


def test_a_file_closed_to_us_is_the_machines_refusal(open_folder: Path) -> None:
    path = open_folder / "x.jsonl"
    path.write_text(LINE)
    with closed(path), pytest.raises(MachineError) as caught:
        list(read_rows(path))
    assert str(caught.value) == (
        f"{path}: reading is not allowed. Change the permissions (chmod u+r, for a folder u+rx) or ask its owner."
    )


def test_a_folder_closed_to_us_is_the_machines_refusal(open_folder: Path) -> None:
    folder = open_folder / "d"
    folder.mkdir()
    with closed(folder), pytest.raises(MachineError) as caught:
        find(folder)
    assert str(caught.value) == (
        f"{folder}: reading is not allowed. Change the permissions (chmod u+r, for a folder u+rx) or ask its owner."
    )


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that answers with an input/output error")
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv.gz"])
def test_a_disk_that_fails_is_the_machines_refusal(write: Write, name: str) -> None:
    write("other.jsonl", LINE)
    Path(name).symlink_to("/proc/self/mem")  # address 0 is never mapped: reading it is EIO
    with pytest.raises(MachineError) as caught:
        list(read_rows(Path(name)))
    assert str(caught.value) == f"{name}: cannot be read: Input/output error. Check the disk, then try again."


def test_a_link_to_nowhere_in_a_folder_is_not_data(write: Write) -> None:
    write("d/a.jsonl", LINE)
    Path("d/b.jsonl").symlink_to("gone.jsonl")
    assert find(Path("d")).ignored == ["d/b.jsonl"]


def test_a_pipe_and_a_device_are_refused_before_they_are_opened(write: Write) -> None:
    write("other.jsonl", LINE)
    os.mkfifo("pipe.jsonl")
    assert message(Path("pipe.jsonl")) == (
        "pipe.jsonl: this is a pipe, expected a file. Save what it gives first: cat pipe.jsonl > rows.jsonl."
    )
    assert message(Path("/dev/null")).startswith("/dev/null: this is a device or a socket, expected a file.")


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_file_that_changes_while_it_is_read_is_refused(write: Write, name: str) -> None:
    path = write(name, 3000 * LINE if name == "x.jsonl" else "q,a\n" + 3000 * "1,2\n")
    rows = read_rows(path)
    next(rows)
    with path.open("a") as file:
        file.write("\n")
    with pytest.raises(UserError) as caught:
        list(rows)
    assert str(caught.value) == (
        f"{name}: the file changed while it was being read. Wait until it is written, then try again."
    )


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_line_longer_than_memory_should_hold_is_named(
    write: Write, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LONGEST_LINE", 1 << 20)
    path = write(name, '{"a": "1"}\n{"a": "' + "b" * (3 << 20) + '"}\n')
    assert message(path).startswith(f"{name}:2: the line is longer than 1 MiB; expected one row a line.")


def test_a_document_larger_than_memory_should_hold_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LARGEST_DOCUMENT", 1 << 10)
    assert message(write("x.json", "[" + " " * 2000 + "]")).startswith("x.json: larger than the ")


def test_a_text_beside_rows_is_a_note_and_alone_it_is_the_data(write: Write) -> None:
    write("d/README.md", "# About")
    write("d/notes.txt", "Kilns.")
    assert [row.values for row in read_rows(Path("d"))] == [{"text": "# About"}, {"text": "Kilns."}]
    write("d/rows.jsonl", LINE)
    assert find(Path("d")).ignored == ["d/README.md", "d/notes.txt"]
    assert [row.location for row in read_rows(Path("d"))] == ["d/rows.jsonl:1"]
