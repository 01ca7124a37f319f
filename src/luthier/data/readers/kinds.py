"""What kind of file it is: by its content where that is plain, else by its name; for kinds not read, the way to one that is.

A content that is known goes before a name that lies: a page saved as .jsonl is named as a page.
"""

import re
from dataclasses import dataclass

from luthier.data.readers.values import JSONFault, decode_only
from luthier.errors import UserError, nearest

ENDINGS = {
    ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text", ".md": "text", ".yaml": "yaml",
    ".parquet": "parquet", ".arrow": "arrow", ".xlsx": "spreadsheet", ".ods": "spreadsheet", ".sqlite": "sqlite",
}  # fmt: skip
"""The endings that messages name, and the kind that a file is taken for by each."""
OTHER_ENDINGS = {
    ".ndjson": "json", ".jsonlines": "json", ".tab": "csv", ".psv": "csv", ".text": "text", ".markdown": "text",
    ".yml": "yaml", ".pq": "parquet", ".feather": "arrow", ".ipc": "arrow", ".xls": "spreadsheet", ".xlsm": "spreadsheet",
    ".xlsb": "spreadsheet", ".db": "sqlite", ".db3": "sqlite", ".sqlite3": "sqlite",
}  # fmt: skip
ALL_ENDINGS = ENDINGS | OTHER_ENDINGS
ROWS = tuple(ending for ending, kind in ALL_ENDINGS.items() if kind not in ("text", "yaml"))
"""Endings of files that hold rows for certain."""
KNOWN = f"{', '.join(list(ENDINGS)[:-1])} or {list(ENDINGS)[-1]}, each also packed (.gz, .zst, .xz, .bz2, .zip, .tar)"
BESIDE_ROWS = ("text", "yaml")
"""Kinds that beside files of rows are a note about them, such as README.md."""
METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files that Hugging Face's datasets write beside rows."""


@dataclass(frozen=True)
class Other:
    """A kind that is not read: the bytes that it begins with (at an offset), what it is, and the way to a file that is read."""

    magic: bytes
    what: str
    way: str
    offset: int = 0


PYTHON = "In Python: "
DOCUMENT = "Make text of it: pandoc FILE -t plain -o FILE.txt."
PICTURE = "Luthier trains on text; take the text out of it first, for pictures with tesseract FILE FILE."
SOUND = "Luthier trains on text; write down what is said first, for example with whisper FILE."
UNPACK = "Unpack it first."
OTHERS = (
    Other(b"%PDF", "a PDF", "For questions and answers out of it: luthier pairs FILE; as text: pdftotext FILE FILE.txt."),
    Other(b"{\\rtf", "an RTF document", DOCUMENT),
    Other(b"\x89PNG", "a picture (PNG)", PICTURE),
    Other(b"\xff\xd8\xff", "a picture (JPEG)", PICTURE),
    Other(b"GIF8", "a picture (GIF)", PICTURE),
    Other(b"WEBP", "a picture (WebP)", PICTURE, 8),
    Other(b"WAVE", "a sound (WAV)", SOUND, 8),
    Other(b"ID3", "a sound (MP3)", SOUND),
    Other(b"OggS", "a sound (Ogg)", SOUND),
    Other(b"fLaC", "a sound (FLAC)", SOUND),
    Other(b"ftyp", "a film or sound (MP4)", SOUND, 4),
    Other(
        b"\x89HDF", "an HDF5 file",
        PYTHON + 'pandas.read_hdf("FILE").to_json("FILE.jsonl", orient="records", lines=True).',
    ),
    Other(
        b"\x93NUMPY", "a NumPy array",
        PYTHON + 'pandas.DataFrame(numpy.load("FILE")).to_json("FILE.jsonl", orient="records", lines=True).',
    ),
    Other(
        b"ORC", "an ORC file",
        PYTHON + 'pandas.read_orc("FILE").to_json("FILE.jsonl", orient="records", lines=True).',
    ),
    Other(b"Obj\x01", "an Avro file", "Make JSON Lines of it: avro-tools tojson FILE > FILE.jsonl."),
    Other(b"FEA1", "a Feather file of version 1", PYTHON + 'pandas.read_feather("FILE").to_parquet("FILE.parquet").'),
    Other(b"$FL2", "an SPSS file", PYTHON + 'pandas.read_spss("FILE").to_parquet("FILE.parquet").'),
    Other(b"<stata_dta>", "a Stata file", PYTHON + 'pandas.read_stata("FILE").to_parquet("FILE.parquet").'),
    Other(b"GGUF", "a model (GGUF)", "A model is named by model=FILE; the data is another file."),
    Other(b"\x7fELF", "a program", "Check the path."),
    Other(b"7z\xbc\xaf\x27\x1c", "a packed file (7z)", UNPACK),
    Other(b"Rar!", "a packed file (RAR)", UNPACK),
    Other(b"\x04\x22\x4d\x18", "a packed file (L.xz or .bz24)", UNPACK),
    Other(
        b"version https://git-lfs.github.com/spec", "a Git LFS pointer, which stands where the data should be",
        "Fetch the data: git lfs pull.",
    ),
)  # fmt: skip
ZIPPED = (
    (b"word/", "a Word document", DOCUMENT),
    (b"opendocument.text", "a Writer document", DOCUMENT),
    (b"ppt/", "a presentation", DOCUMENT),
    (b"opendocument.presentation", "a presentation", DOCUMENT),
    (b"epub+zip", "a book (EPUB)", DOCUMENT),
    (b".iwa", "a document of Numbers or Pages", "Export it, a table as CSV or .xlsx, a text as .txt."),
    (b"/data.pkl", "a PyTorch checkpoint", "A model is named by model=FOLDER; the data is another file."),
    (
        b".npy", "several NumPy arrays (npz)",
        PYTHON + 'pandas.DataFrame(dict(numpy.load("FILE"))).to_json("FILE.jsonl", orient="records", lines=True).',
    ),
)  # fmt: skip
"""Kinds that are zip files: what is in them."""
PICKLE = re.compile(rb"\x80[\x02-\x05]")
SAFETENSORS = re.compile(rb".{5}\0\0\0\{\"", re.DOTALL)
PAGE = re.compile(rb"\s*(<!--.{0,2000}?-->\s*)?<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
XML = re.compile(rb"\s*<\?xml\b")
PAGES = (".html", ".htm", ".epub", ".tex", ".org")
NOT_UNPACKED = (".7z", ".br", ".lz4", ".lzma", ".rar", ".sz", ".z")


class NotData(UserError):
    """A kind that is not read, told by a name that promises no data: in a folder such a file stands beside the data."""


def identify(name: str, ending: str, head: bytes) -> str:
    """The kind of a file: by its first unpacked bytes, or the name's ending (lower case); a UserError where it is not read."""
    promised = ALL_ENDINGS.get(ending)
    if binary := _binary(ending, head):
        return binary
    _refuse_others(name, promised, head)
    if promised in (None, "text", "csv") and ending not in (".md", ".markdown") and looks_like_json(head):
        return "json"
    if promised in ("text", "spreadsheet") and ending not in (".md", ".markdown") and _looks_like_table(head):
        return "csv"
    if promised is None:
        raise _unknown(name, ending)
    return promised


def _binary(ending: str, head: bytes) -> str | None:
    """The kind of a file that is read and is no text."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1") or (head.startswith(b"\xff\xff\xff\xff") and b"\0" in head[4:16]):
        return "arrow"
    if head.startswith(b"SQLite format 3\0"):
        return "sqlite"
    if head.startswith(b"PK\x03\x04") and (b"xl/" in head or b"opendocument.spreadsheet" in head[:200]):
        return "spreadsheet"
    if head.startswith(b"\xd0\xcf\x11\xe0") and ALL_ENDINGS.get(ending) == "spreadsheet":
        return "spreadsheet"
    return None


def _refuse_others(name: str, promised: str | None, head: bytes) -> None:
    """Raises a UserError for a kind that is known and not read."""
    error: type[UserError] = UserError if promised else NotData
    for other in OTHERS:
        if head[other.offset :].startswith(other.magic) and not (other.magic == b"ORC" and b"\0" not in head):
            raise error(f"this is {other.what}. {other.way}", where=name)
    if head.startswith(b"PK\x03\x04"):
        for sign, what, way in ZIPPED:
            if sign in head:
                raise error(f"this is {what}. {way}", where=name)
        raise error("this is a zip archive under another name. Name it .zip.", where=name)
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        raise error(
            "this is an old Office document, or one with a password. Save it without one as .docx, .xlsx or CSV.",
            where=name,
        )
    if PICKLE.match(head):
        raise error(
            "this is a Python pickle, which can run code when it is opened. If you trust it, in Python: "
            'pandas.read_pickle("FILE").to_json("FILE.jsonl", orient="records", lines=True).',
            where=name,
        )
    if SAFETENSORS.match(head):
        raise error("this is a model's weights (safetensors). A model is named by model=FOLDER.", where=name)
    if PAGE.match(head) and promised != "text":
        if promised == "spreadsheet":
            raise error("this is a web page (HTML). Open it in a spreadsheet and save it as CSV (UTF-8).", where=name)
        raise error(
            "this is a web page (HTML), perhaps one that asks to log in, saved where the data should be. "
            f"Download the data itself; if the page is the data: {DOCUMENT[0].lower()}{DOCUMENT[1:]}",
            where=name,
        )
    if XML.match(head) and promised not in ("text",):
        raise error("this is XML. Write its records as JSON Lines or CSV; a script with xml.etree does it.", where=name)


def looks_like_json(head: bytes) -> bool:
    """Whether a file's first bytes begin a JSON object, or a list of objects, texts or lists."""
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    if re.match(r'\[\s*(\{|"|\]|\[\s*["\d\]])', text):
        return True
    first = text.split("\n", 1)[0]
    try:
        return isinstance(decode_only(first), dict)
    except JSONFault:
        return re.match(r'\{\s*"(?:[^"\\]|\\.)*"\s*:', text) is not None


def _looks_like_table(head: bytes) -> bool:
    """Whether lines of text are rows of cells: parted by the same number of tabs on each, or as Anki says on top."""
    text = head.decode("utf-8-sig", errors="replace")
    if re.match(r"#(separator|html|tags|columns|notetype|deck|guid|if matches)\b[^\n]*:", text) or re.match(
        r"sep=.\r?\n", text
    ):
        return True
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    lines = lines[:-1] if len(head) >= 1 << 16 else lines
    if len(lines) > 1 and len({line.count("\t") for line in lines} - {0}) == 1 and all("\t" in line for line in lines):
        return True
    # In prose a blank stands behind these.
    return len(lines) > 2 and any(
        len({line.count(sign) for line in lines}) == 1 and sign in lines[0] and f"{sign} " not in text for sign in ",;|"
    )


def _unknown(name: str, ending: str) -> UserError:
    if ending in NOT_UNPACKED:
        return NotData(
            f'a packed file of a kind that is not unpacked here, "{ending}". Expected {KNOWN}. Unpack it first.',
            where=name,
        )
    if ending in PAGES:
        return NotData(f'a document of a kind that is not read, "{ending}". {DOCUMENT}', where=name)
    guess = nearest(ending, ENDINGS)
    found = f'unknown kind of file "{ending}"' if ending else "a file whose name has no ending that says its kind"
    hint = f', did you mean "{guess}"?' if guess else "."
    return NotData(
        f"{found}{hint} Expected {KNOWN}. Rename it, or save it as one of these; .txt is read as one text.", where=name
    )
