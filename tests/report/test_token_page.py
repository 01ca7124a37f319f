"""The page of tokens: everything on it is escaped, nothing is loaded, templates stand side by side."""

import re
from pathlib import Path

from luthier.data.token_view import BatchPosition, RowsView, ViewedRow, ViewedToken
from luthier.report import token_page

TOKENS = (
    ViewedToken(1, "<b>", "context", shared=True),
    ViewedToken(5, "↵", "context"),
    ViewedToken(7, "·" * 40, "thought"),
    ViewedToken(8, "ok", "loss"),
    ViewedToken(2, "<|end|>", "end"),
)
POSITION = BatchPosition(step=3, steps=9, batch=1, batches=2, rows=2, tokens=10, computed=9)


def row(location: str = "x.jsonl:2", part: str = "") -> ViewedRow:
    return ViewedRow(location, "train", TOKENS, part, POSITION, "x.jsonl:1", ("as <i>shown</i>",))


def test_each_token_has_its_role_its_id_and_its_text_escaped() -> None:
    page = token_page.html(RowsView("tiny", "its own", (row(),)))
    assert re.findall(r'<span class="token (\w+)" title="(\d+: id \d+), \w+">(.*?)<small>(\d+)</small>', page) == [
        ("shared", "0: id 1", "&lt;b&gt;", "1"),
        ("context", "1: id 5", "↵", "5"),
        ("thought", "2: id 7", "·×40", "7"),
        ("loss", "3: id 8", "ok", "8"),
        ("end", "4: id 2", "&lt;|end|&gt;", "2"),
    ]
    assert "first in step 3 of 9, micro-batch 1 of 2, with 1 other row: 10 tokens, 9 of them computed" in page
    assert "Note: as &lt;i&gt;shown&lt;/i&gt;" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_the_legend_has_what_is_there() -> None:
    plain = RowsView("tiny", "its own", (ViewedRow("x.jsonl:2", "dev", TOKENS[1:2]),))
    assert "loss, in a thought" in token_page.html(RowsView("tiny", "its own", (row(),)))
    assert "loss, in a thought" not in token_page.html(plain) and "computed once" not in token_page.html(plain)


def test_rows_of_a_record_stand_beside_those_of_another_template() -> None:
    other = RowsView("big", "another", (row(), row("x.jsonl:3", "answer 1 of 2"), row("x.jsonl:3", "answer 2 of 2")))
    found = RowsView("tiny", "its own", (row(), row("x.jsonl:3")), other)
    pairs = token_page.side_by_side(found)
    assert [[one and (one.location, one.part) for one in pair] for pair in pairs] == [
        [("x.jsonl:2", ""), ("x.jsonl:2", "")],
        [("x.jsonl:3", ""), ("x.jsonl:3", "answer 1 of 2")],
        [None, ("x.jsonl:3", "answer 2 of 2")],
    ]
    assert token_page.html(found).count('<section class="pair two">') == 3


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    token_page.write(RowsView("tiny", "its own", (row(),)), tmp_path / "rows.html")
    assert (tmp_path / "rows.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
