"""PDF, DOCX and HTML as blocks. Runs in a process under limits: nobody vouches for these files (see `reading`)."""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from luthier.data.documents.blocks import Block, definition, table

HEADING_SIZE = 1.15
"""A line of a PDF whose letters are so much larger than most is a heading."""
HEADING_WORDS = 20
_BULLET = re.compile(r"\s*(?:[•‣▪●○–*-]|\d{1,3}[.)])\s+(\S.*)")
_ENDS = re.compile("[.!?:;\u3002\uff01\uff1f\u2026][\"')\\]\u201d\u2019]*$")
_TURN = re.compile(r"\s*(?:Q|A|Question|Answer|F|Frage|Antwort)\d{0,3}[.:)]\s", re.IGNORECASE)


class Unreadable(Exception):
    """Why nothing can be made of a file, as the list of unread documents says it."""


def extract(request: str) -> str:
    """The blocks of the file that the request names by path and kind, or why there are none; both as JSON."""
    wanted = json.loads(request)
    try:
        found = list(READERS[wanted["kind"]](Path(wanted["path"])))
    except Unreadable as why:
        return json.dumps({"unreadable": str(why)})
    return json.dumps({"blocks": [block.to_json() for block in found]})


def _pdf(path: Path) -> Iterator[Block]:
    """Each page's lines, joined to paragraphs; letters tell headings and bold lines."""
    import pypdf
    from pypdf.errors import DependencyError, PyPdfError

    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted: it opens with a password only")
        pages = [_lines(page) for page in reader.pages]
    except DependencyError:
        raise Unreadable("encrypted in a way that needs the package cryptography; save it without a password") from None
    except PyPdfError as error:
        raise Unreadable(f"not a sound PDF ({str(error).rstrip('.')})") from None
    if not any(pages):
        raise Unreadable(
            "no text in it: pictures of pages, as a scanner makes them; run a text recognition (OCR) first"
        )
    sizes = Counter({0.0: 0})
    for line in (line for page in pages for line in page):
        sizes[line.size] += len(line.text)
    body = sizes.most_common(1)[0][0]
    larger = sorted((size for size in sizes if size >= body * HEADING_SIZE), reverse=True)
    for number, page in enumerate(pages, start=1):
        yield from _paragraphs(
            page, f"page {number}", {size: min(6, rank) for rank, size in enumerate(larger, start=1)}
        )


class _Line:
    """A line of a page, with the size of most of its letters."""

    def __init__(self, pieces: list[tuple[str, float, bool]]) -> None:
        self.text = " ".join("".join(text for text, _, _ in pieces).split())
        weights: Counter[float] = Counter()
        for text, size, _ in pieces:
            weights[size] += len(text.strip())
        self.size = weights.most_common(1)[0][0] if weights else 0.0
        self.bold = all(bold for text, _, bold in pieces if text.strip())


def _lines(page: Any) -> list[_Line]:
    """The page's lines that hold something; an empty text between two paragraphs stays as a line without words."""
    lines: list[list[tuple[str, float, bool]]] = [[]]

    def visit(text: str, user: list[float], matrix: list[float], font: Any, size: float) -> None:
        scale = abs(matrix[3] or matrix[1]) * abs(user[3] or user[1])
        name = str((font or {}).get("/BaseFont", ""))
        first, *others = text.split("\n")
        lines[-1].append((first, round(size * scale, 1), "bold" in name.lower()))
        lines.extend([(other, round(size * scale, 1), "bold" in name.lower())] for other in others)

    page.extract_text(visitor_text=visit)
    return [line for line in map(_Line, lines) if line.text]


def _paragraphs(lines: list[_Line], position: str, levels: dict[float, int]) -> Iterator[Block]:
    """A page's lines as blocks: a line goes on with the one before unless that has ended, or the line starts something."""
    longest = max((len(line.text) for line in lines), default=0)
    joined: list[list[_Line]] = []
    for before, line in pairwise([None, *lines]):
        assert line is not None
        if before is None or _starts(before, line, longest, levels):
            joined.append([])
        joined[-1].append(line)
    for group in joined:
        text = group[0].text
        for line in group[1:]:
            hyphen = text.endswith("-") and text[-2:-1].isalpha() and line.text[:1].islower()
            text = text[:-1] + line.text if hyphen else f"{text} {line.text}"
        if group[0].size in levels and len(text.split()) <= HEADING_WORDS:
            yield Block("heading", text, position, level=levels[group[0].size])
        elif bullet := _BULLET.fullmatch(text):
            yield Block("item", bullet[1], position)
        else:
            yield Block("paragraph", text, position, bold=all(line.bold for line in group))


def _starts(before: _Line, line: _Line, longest: int, levels: dict[float, int]) -> bool:
    """Whether a line begins a paragraph of its own."""
    if before.size != line.size and (before.size in levels or line.size in levels):
        return True
    if before.bold != line.bold or _BULLET.match(line.text) or _TURN.match(line.text):
        return True
    short = len(before.text) < 0.8 * longest
    return short and bool(_ENDS.search(before.text))


def _docx(path: Path) -> Iterator[Block]:
    """Paragraphs and tables in their order, with Word's own styles for headings and lists."""
    import docx
    from docx.table import Table

    with path.open("rb") as file:
        if file.read(4) == b"\xd0\xcf\x11\xe0":
            raise Unreadable("encrypted, or in Word's older format; save it as .docx without a password")
    if not zipfile.is_zipfile(path):
        raise Unreadable("not a sound DOCX file (it is no archive, or was cut off)")
    try:
        document = docx.Document(str(path))
    except (KeyError, ValueError) as error:
        raise Unreadable(f"not a sound DOCX file ({str(error).rstrip('.')})") from None
    for number, element in enumerate(document.iter_inner_content(), start=1):
        position = f"paragraph {number}"
        if isinstance(element, Table):
            found = table([[cell.text for cell in row.cells] for row in element.rows], position)
            yield from [found] if found else []
        elif text := " ".join(element.text.split()):
            yield _styled(element, text, position)


def _styled(paragraph: Any, text: str, position: str) -> Block:
    style = str(paragraph.style.name or "") if paragraph.style is not None else ""
    if style == "Title":
        return Block("heading", text, position, level=1)
    if heading := re.fullmatch(r"Heading (\d)", style):
        return Block("heading", text, position, level=min(6, int(heading[1])))
    if style.startswith("List"):
        return Block("item", text, position)
    return Block("paragraph", text, position, bold=all(run.bold for run in paragraph.runs if run.text.strip()))


def _html(path: Path) -> Iterator[Block]:
    """The page's own text as trafilatura finds it, without menus and footers."""
    import trafilatura
    from trafilatura.settings import use_config

    config = use_config()
    for limit in ("MIN_EXTRACTED_SIZE", "MIN_OUTPUT_SIZE"):
        config.set("DEFAULT", limit, "1")  # else of a short page all structure is lost, and its menu comes along
    found = trafilatura.bare_extraction(
        path.read_bytes(), config=config, include_comments=False, include_tables=True, include_formatting=True
    )
    body = getattr(found, "body", None)
    if body is None:
        raise Unreadable("no text in it; a page that a program fills in the browser has none before")
    numbers = iter(range(1, 1 << 30))
    for element in body:
        yield from _element(element, numbers)


def _element(element: Any, numbers: Iterator[int]) -> Iterator[Block]:
    """The blocks of an element of trafilatura's tree, which are numbered on."""
    tag = str(element.tag)
    if tag in ("div", "quote") and len(element):
        for inner in element:
            yield from _element(inner, numbers)
        return
    if tag == "list":
        yield from _list(element, numbers)
        return
    position = f"paragraph {next(numbers)}"
    text = _text(element)
    if tag == "table":
        rows = [[_text(cell) for cell in row.iter("cell")] for row in element.iter("row")]
        found = table(rows, position)
        yield from [found] if found else []
    elif tag in ("code", "quote") and "\n" in "".join(element.itertext()).strip():
        yield Block("code", "".join(element.itertext()).strip("\n"), position)
    elif text and tag == "head":
        level = str(element.get("rend", "h2"))[1:]
        yield Block("heading", text, position, level=int(level) if level.isdigit() else 2)
    elif text:
        yield Block("paragraph", text, position, bold=_is_bold(element))


def _list(element: Any, numbers: Iterable[int]) -> Iterator[Block]:
    """Items; of a definition list, terms with their definitions."""
    term = None
    for item, number in zip(element.iter("item"), numbers, strict=False):
        text, position = _text(item), f"paragraph {number}"
        kind = str(item.get("rend", ""))[:2]
        if kind == "dt":
            term = text
        elif kind == "dd" and term and text:
            yield definition(term, text, position)
        elif text:
            yield Block("item", text, position)


def _text(element: Any) -> str:
    for line_break in element.iter("lb"):
        line_break.tail = f" {line_break.tail or ''}"
    return " ".join("".join(element.itertext()).split())


def _is_bold(element: Any) -> bool:
    """Whether bold marks hold all of a paragraph's text."""
    bold = "".join("".join(mark.itertext()) for mark in element.iter("hi") if mark.get("rend") == "#b")
    return bool(bold.strip()) and "".join(bold.split()) == "".join("".join(element.itertext()).split())


READERS: dict[str, Callable[[Path], Iterator[Block]]] = {".pdf": _pdf, ".docx": _docx, ".html": _html}
"""Kinds of files that need a package each, by ending."""
