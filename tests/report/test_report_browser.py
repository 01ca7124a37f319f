"""The page in a real browser: nothing asked of the net, no complaint, nothing wider than a phone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from luthier import report

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

MakeRun = Callable[..., Path]
CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator["BrowserContext"]:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        profile = tmp_path / "profile"
        context = playwright.chromium.launch_persistent_context(profile, executable_path=CHROMIUM, args=QUIET)
        yield context
        context.close()


@pytest.mark.parametrize("stop_at_step", [None, 137])
def test_a_phone_shows_the_page_whole_and_asks_nothing_of_the_net(
    make_run: MakeRun, browser: "BrowserContext", stop_at_step: int | None
) -> None:
    path = report.write(make_run(stop_at_step=stop_at_step, exports=stop_at_step is None))
    requests: list[str] = []
    complaints: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(folded => folded.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
