"""The page of an inspection says what was found, and nothing in the data can act on it."""

import json
from datetime import UTC, datetime
from pathlib import Path

from luthier import recipe as recipes
from luthier.pipeline.inspection import inspect
from luthier.report import charts
from luthier.report.inspection import html, summary, write

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def record(tmp_path: Path, *more: tuple[str, str], **settings: object) -> dict[str, object]:
    rows = [(f"What is {number} and {number}?", str(2 * number)) for number in range(30)]
    lines = [json.dumps({"question": asked, "answer": said}) + "\n" for asked, said in (*rows, *more)]
    (tmp_path / "x.jsonl").write_text("".join(lines), encoding="utf-8")
    asked = recipes.load(data=tmp_path / "x.jsonl")
    return inspect(recipes.replace(asked, {"data.findings": settings.get("findings", {})})).to_json()


def test_the_page_has_every_finding_with_its_places_and_loads_nothing(tmp_path: Path) -> None:
    found = record(tmp_path, ("What is 3 and 3?", "seven"), ("Who?", "anna.berg@nord-mail.de"))
    page = html(found, NOON)
    assert "3 warnings" in page and "2 January 2026, 12:00 UTC" in page
    assert f"{tmp_path / 'x.jsonl'}:31: asks the same as {tmp_path / 'x.jsonl'}:4" in page
    assert "anna.berg" not in page and "a•••@n•••.de" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page


def test_texts_of_the_data_cannot_act_on_the_page(tmp_path: Path) -> None:
    page = html(record(tmp_path, ("<script>alert(1)</script>", "N/A")) | {"first": [
        {"messages": [{"role": "user", "content": "<b>\u202eHi"}], "rejected": "</dd><i>"}
    ]}, NOON)  # fmt: skip
    assert "<script" not in page and "&lt;b&gt;[U+202E]Hi" in page and "&lt;/dd&gt;&lt;i&gt;" in page


def test_what_the_recipe_accepts_is_shown_and_does_not_count(tmp_path: Path) -> None:
    found = record(
        tmp_path,
        ("What is 3 and 3?", "seven"),
        findings=dict.fromkeys(["conflict", "few-rows", "near-duplicate"], "accept"),
    )
    assert summary(found["findings"]) == "Nothing found"
    assert "warning · conflict · the recipe says accept" in html(found, NOON)


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "inspect.html", record(tmp_path), now=NOON)
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_a_histogram_shows_what_is_not_zero_and_says_it_in_words() -> None:
    drawing = charts.histogram("h", "Words", [(10, 1000), (20, 0), (30, 1)])
    assert drawing.count("<rect") == 3 and 'height="1.5"' in drawing and 'height="0.0"' in drawing
    assert "up to 10: 1,000, up to 30: 1" in drawing and "30 and more" in drawing
