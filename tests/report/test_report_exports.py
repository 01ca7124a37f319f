"""What has left a run stands on its page, as it was last found, with a bar for each share and the score's difference."""

import json
from collections.abc import Callable
from pathlib import Path

from luthier import report
from luthier.report import exports

from .conftest import EXPORTS, NASTY

MakeRun = Callable[..., Path]


def test_an_export_is_shown_once_as_it_was_last_found() -> None:
    first, second, third = exports.read(EXPORTS)
    assert (first.file, first.word, first.score) == ("tickets-q8_0.gguf", "the same model", "+0.022 [-0.004, +0.047]")
    assert [(part.name, part.share, part.limit) for part in first.parts] == [
        ("Ollama's template", 30 / 32, None), ("template", 1.0, 1.0), ("ids", 1.0, 1.0), ("top-1", 0.968, 0.85),
        ("KL", None, None), ("answers", 87 / 140, 0.25),
    ]  # fmt: skip
    assert second.word == "NOT the same model" and second.parts[1].found == "1,988 of 2,000 texts the same tokens"
    assert third.score == "–" and third.parts[-1].found == "not compared: no answers"


def test_the_page_draws_shares_and_differences(make_run: MakeRun) -> None:
    page = report.write(make_run(exports=True)).read_text()
    section = page[page.index('aria-labelledby="exports"') : page.index('aria-labelledby="losses"')]
    assert section.count('class="share"') == 4 + 4 + 2 + 1 and section.count('class="forest"') == 2
    assert 'width="96.80%"' in section and 'x1="85.00%"' in section
    assert section.count("NOT the same model") == 1 and NASTY[0] not in section and "&lt;script&gt;" in section


def test_other_forms_of_the_report_have_exports_too(make_run: MakeRun) -> None:
    folder = make_run(exports=True)
    report.write(folder)
    assert [each["file"] for each in json.loads((folder / "report.json").read_text())["exports"]][::2] == [
        "tickets-q8_0.gguf", "a folder",
    ]  # fmt: skip
    text = (folder / "report.md").read_text()
    assert (
        "- tickets-q8_0.gguf (q8_0, llama.cpp of xllamacpp 2026.10): the same model; Ollama's template: 30 of 32"
        in text
    )


def test_a_run_from_which_nothing_left_has_no_such_section(make_run: MakeRun) -> None:
    folder = make_run()
    assert 'id="exports"' not in report.write(folder).read_text()
    assert "## Exports" not in (folder / "report.md").read_text()
