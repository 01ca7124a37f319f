"""Markdown and plain text as blocks: headings, paragraphs, lists, tables, definitions and code, each with its line.

The part of CommonMark and GitHub's Markdown that carries structure, read line by line in time that grows with the text alone.
What stands inside a line loses its marks (`**`, links, tags) and keeps its words and its code.
"""

import re
from collections.abc import Iterator, Sequence

from luthier.data.documents.blocks import Block, definition, table

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})\s*$")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_ITEM = re.compile(r"[ \t]*(?:[-*+•‣▪]|\d{1,3}[.)])[ \t]+(\S.*)")
_DIVIDER = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_MEANING = re.compile(r" {0,3}:[ \t]+(\S.*)")
_TURN = re.compile(
    r"[ \t]*(?:\*\*|__)?(?:Q|A|Question|Answer|F|Frage|Antwort)\d{0,3}(?:\*\*|__)?[.:)](?:\*\*|__)?\s", re.I
)
_QUOTE = re.compile(r"^ {0,3}> ?")
_COMMENT = re.compile(r"<!--.*?-->")
_BOLD = re.compile(r"(\*\*|__)(.+)\1[:.]?")
_CODE = re.compile(r"(?<!`)(`++)(.+?)(?<!`)\1(?!`)")
_IMAGE = re.compile(r"!\[([^\[\]]*)\]\([^()\s]*(?:\s+\"[^\"]*\")?\)")
_LINK = re.compile(r"\[([^\[\]]+)\](?:\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"]*\")?\)|\[[^\[\]]*\])")
_ADDRESS = re.compile(r"<((?:https?|mailto):[^<>\s]+)>")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,300}>")
_STRONG = re.compile(r"(\*\*|__|~~)(?=\S)([^*_~]+(?:[*_~][^*_~]+)*?)\1")
_EMPHASIS = re.compile(r"(?<![\w*_])([*_])(?=[^\s*_])([^*_\n]+)(?<=[^\s*_])\1(?![\w*_])")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_ASIDE = 0xE000  # where signs with a backslash stand, as letters of private use, while marks are taken away
MARKED = 3000
"""Characters of a line up to which marks are looked for: what is longer is data, and searching it would take long."""
_PUT_ASIDE = re.compile(r"[\ue021-\ue07e]")


def blocks(text: str, *, plain: bool = False) -> list[Block]:
    """The text's blocks in order; of `plain` text the words are taken as they stand."""
    return list(_Reader(text, plain=plain).blocks())


def inline(text: str) -> str:
    """A line without marks: the words of links and emphasis, code as it stands."""
    if len(text) > MARKED:
        return " ".join(text.split())
    parts = []
    end = 0
    for code in _CODE.finditer(text):
        parts += [_unmarked(text[end : code.start()]), f"`{code[2].strip()}`"]
        end = code.end()
    return " ".join("".join([*parts, _unmarked(text[end:])]).split())


def _unmarked(text: str) -> str:
    if not any(mark in text for mark in "*_~[<\\"):
        return text
    text = _ESCAPED.sub(lambda escaped: chr(_ASIDE + ord(escaped[1])), text)
    text = _LINK.sub(r"\1", _IMAGE.sub(r"\1", _COMMENT.sub("", text)))
    text = _TAG.sub(lambda tag: " " if tag[0][1:3] == "br" else "", _ADDRESS.sub(r"\1", text))
    text = _EMPHASIS.sub(r"\2", _STRONG.sub(r"\2", text))
    return _PUT_ASIDE.sub(lambda sign: chr(ord(sign[0]) - _ASIDE), text)


class _Reader:
    """Goes over the lines once."""

    def __init__(self, text: str, *, plain: bool) -> None:
        self._lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._plain = plain
        self._at = self._after_front_matter()

    def blocks(self) -> Iterator[Block]:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            start = str(self._at + 1)
            if not line.strip() or (_RULE.match(line) and not self._plain):
                self._at += 1
            elif fence := _FENCE.match(line):
                yield from self._code(fence[1], start)
            elif line.lstrip().startswith("<!--"):
                self._skip_comment()
            elif heading := _HEADING.match(line):
                self._at += 1
                yield from self._heading(heading[2].rstrip("# \t"), len(heading[1]), start)
            elif self._starts_table():
                yield from self._table(start)
            elif item := _ITEM.match(line):
                self._at += 1
                yield from self._text("item", [item[1], *self._rest_of_item()], start)
            else:
                yield from self._paragraph(start)

    def _after_front_matter(self) -> int:
        """The line behind `---` … `---` at the very top, where pages keep their title and date."""
        if self._lines[0].rstrip() != "---":
            return 0
        ends = (number for number, line in enumerate(self._lines[1:200], start=1) if line.rstrip() in ("---", "..."))
        end = next(ends, None)
        is_matter = end is not None and all(
            not line.strip() or re.match(r"[\w-]+[ \t]*:|[ \t]|#|-", line) for line in self._lines[1:end]
        )
        return (end or 0) + 1 if is_matter else 0

    def _clean(self, text: str) -> str:
        return " ".join(text.split()) if self._plain else inline(text)

    def _heading(self, text: str, level: int, start: str) -> Iterator[Block]:
        if cleaned := self._clean(text):
            yield Block("heading", cleaned, start, level=level)

    def _text(self, kind: str, lines: Sequence[str], start: str) -> Iterator[Block]:
        raw = " ".join(line.strip() for line in lines)
        if cleaned := self._clean(raw):
            bold = bool(_BOLD.fullmatch(raw)) and raw.count(raw[:2]) == 2 and not self._plain
            yield Block("item" if kind == "item" else "paragraph", cleaned, start, bold=bold)

    def _code(self, fence: str, start: str) -> Iterator[Block]:
        self._at += 1
        inside = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                break
            inside.append(line.rstrip())
        if any(inside):
            yield Block("code", "\n".join(inside).strip("\n"), start)

    def _skip_comment(self) -> None:
        while self._at < len(self._lines):
            self._at += 1
            if "-->" in self._lines[self._at - 1]:
                return

    def _starts_table(self) -> bool:
        following = self._lines[self._at + 1] if self._at + 1 < len(self._lines) else ""
        return "|" in self._lines[self._at] and "|" in following and bool(_DIVIDER.match(following))

    def _table(self, start: str) -> Iterator[Block]:
        rows = [_cells(self._lines[self._at])]
        self._at += 2
        while self._at < len(self._lines) and "|" in self._lines[self._at]:
            rows.append(_cells(self._lines[self._at]))
            self._at += 1
        width = len(rows[0])
        cleaned = [[self._clean(cell) for cell in (*row, *[""] * width)][:width] for row in rows]
        if found := table(cleaned, start):
            yield found

    def _rest_of_item(self) -> Iterator[str]:
        """The lines that go on with an item: all up to a blank one or the start of something else."""
        while self._at < len(self._lines) and self._goes_on(self._lines[self._at]):
            self._at += 1
            yield self._lines[self._at - 1]

    def _goes_on(self, line: str) -> bool:
        starts = (_HEADING, _FENCE, _ITEM, _TURN, _MEANING)
        return bool(line.strip()) and not any(pattern.match(line) for pattern in starts) and not self._starts_table()

    def _paragraph(self, start: str) -> Iterator[Block]:
        lines: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if lines and (underline := _UNDERLINE.match(line)):
                self._at += 1
                yield from self._heading(" ".join(lines), 1 if underline[1][0] == "=" else 2, start)
                return
            if lines and (meaning := _MEANING.match(line)):
                self._at += 1
                *before, term = lines
                yield from self._text("paragraph", before, start) if before else ()
                rest = " ".join([meaning[1], *self._rest_of_item()])
                yield definition(self._clean(term), self._clean(rest), str(int(start) + len(before)))
                return
            if lines and (not self._goes_on(line) or _RULE.match(line)):
                break
            lines.append(_QUOTE.sub("", line))
            self._at += 1
        yield from self._text("paragraph", lines, start)


def _cells(line: str) -> list[str]:
    """The cells of a table's line; a `\\|` stays inside its cell."""
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", inner)]
