"""The page in a real browser: marks by mouse and by key, kept, saved as a file that the run takes in; nothing is loaded."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from luthier import review
from luthier.review import page as pages
from luthier.runs import Run

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

MakeRun = Callable[..., Run]
CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
]
QUIET += ["--disable-background-networking", "--disable-sync"]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator["BrowserContext"]:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM, args=QUIET
        )
        yield context
        context.close()


@pytest.fixture
def opened(browser: "BrowserContext", make_run: MakeRun, tmp_path: Path) -> Iterator[tuple["Page", Run, list[str]]]:
    """The page of a run with four questions, one of them hostile; and what the browser asked for or complained of."""
    run = make_run(items=4)
    answers = run.folder / "evaluation" / "answers.jsonl"
    hostile = "</script><script>document.title='taken'</script><img src=http://127.0.0.1:9/x>"
    answers.write_text(answers.read_text().replace("finetuned answers 1", hostile))
    pages.write(review.make_sheet(run, 4), tmp_path / "s.html", items=4)
    heard: list[str] = []
    page = browser.new_page()
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else heard.append(request.url)
    )
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto((tmp_path / "s.html").as_uri())
    yield page, run, heard
    assert [word for word in heard if not word.startswith("blob:")] == []


def test_marks_by_mouse_and_key_come_back_as_a_file_that_the_run_takes_in(
    opened: tuple["Page", Run, list[str]], tmp_path: Path
) -> None:
    page, run, _ = opened
    page.get_by_role("radio", name="A is better").check()
    page.get_by_label("Comment (optional)").fill('=1, he said "no"')
    page.get_by_role("button", name="Next").click()
    page.keyboard.press("2")
    page.keyboard.press("3")
    page.keyboard.press("4")
    assert page.locator("#marked-count").inner_text() == "4 of 4 marked"
    page.get_by_role("button", name="Save marks").click()
    assert "Enter your name" in page.get_by_role("alert").inner_text()
    page.get_by_label("Your name").fill("Ada L.")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save marks").click()
    assert download.value.suggested_filename.endswith("-Ada-L-.csv")
    download.value.save_as(tmp_path / "m.csv")
    rows = list(csv.DictReader((tmp_path / "m.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [row["mark"] for row in rows] == ["A", "B", "tie", "both bad"]
    assert rows[0]["comment"] == '\'=1, he said "no"' and rows[0]["reviewer"] == "Ada L."
    result = review.import_marks(run, [tmp_path / "m.csv"])
    assert (result.questions, result.counts["tie"], result.counts["both bad"]) == (4, 1, 1)


def test_marks_are_still_there_when_the_page_is_opened_again(opened: tuple["Page", Run, list[str]]) -> None:
    page, *_ = opened
    page.keyboard.press("1")
    page.get_by_text("1 of 4 marked").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    for _ in range(20):  # a browser under load takes a moment to write down what a page stores
        page.reload()
        if page.locator("#marked-count").inner_text() == "1 of 4 marked":
            break
        page.wait_for_timeout(250)
    assert page.get_by_role("radio", name="A is better").is_checked()
    page.get_by_role("button", name="Remove the mark").click()
    assert page.locator("#marked-count").inner_text() == "0 of 4 marked"


def test_a_hostile_answer_is_only_text_and_the_page_names_no_arm(opened: tuple["Page", Run, list[str]]) -> None:
    page, *_ = opened
    seen = []
    for number in range(4):
        page.get_by_role("button", name=f"Question {number + 1}", exact=True).click()
        seen += [page.locator("#answer-a").inner_text(), page.locator("#answer-b").inner_text()]
    assert any("</script>" in text for text in seen)
    assert page.title().startswith("Blind review")
    assert "few-shot" not in page.content() and "fine-tuned" not in page.content()


def test_a_phone_shows_it_whole(opened: tuple["Page", Run, list[str]]) -> None:
    page, *_ = opened
    page.set_viewport_size({"width": 360, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach(folded => folded.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
