"""The three files: nothing loaded, nothing executed, nothing lost, the same bytes each time."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from luthier import report
from luthier.report.page import clamp, fenced, inline, visible

MakeRun = Callable[..., Path]


class Page(HTMLParser):
    """A page as a reader gets it: its text, its tags and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", [], []  # type: ignore[var-annotated]
        self.feed(html.replace("<style>", "<!--").replace("</style>", "-->"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def page(folder: Path) -> Page:
    return Page(report.write(folder).read_text(encoding="utf-8"))


def test_the_report_is_three_files_in_the_run_folder(make_run: MakeRun) -> None:
    folder = make_run()
    assert report.write(folder) == folder / "report.html"
    assert {file.name for file in folder.glob("*report*")} == {"report.html", "report.md", "report.json"}


def test_the_page_loads_nothing_and_runs_nothing(make_run: MakeRun) -> None:
    html = report.write(make_run()).read_text(encoding="utf-8")
    shown = Page(html)
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & set(shown.tags)
    loading = [value for name, value in shown.attributes if name in ("src", "href", "srcset", "xlink:href")]
    assert loading == ["data:,"]
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    assert set(re.findall(r"url\(([^)]*)\)", html)) == {"#counts-hatch"}
    assert "@import" not in html and "default-src 'none'" in html


def test_thoughts_unfold_beside_the_answers_of_the_examples(make_run: MakeRun) -> None:
    def think(answers: list[dict[str, object]]) -> list[dict[str, object]]:
        return [line | {"thoughts": f"So <b>many</b> {line['arm']}.", "finish": "thinking"} for line in answers]

    folder = make_run(edit=think)
    shown = page(folder)
    assert "So <b>many</b> retrieved." in shown.text and "So <b>many</b> fine-tuned." in shown.text
    assert "Thoughts, 25 characters" in shown.text and "still thinking at the token limit" in shown.text
    plain = (folder / "report.md").read_text(encoding="utf-8")
    assert "Thoughts before it:" in plain and "So <b>many</b> retrieved." in plain
    assert "still thinking at the token limit" in plain


def test_texts_of_users_and_models_appear_literally(make_run: MakeRun) -> None:
    text = page(make_run()).text
    for words in ("<script>alert('run me')</script>", "<|im_end|>", "{{ 7 * 7 }}", "&lt;already escaped&gt;"):
        assert words in text
    assert "mails/<old> & odd/tickets.jsonl:77" in text


def test_characters_that_act_without_being_seen_are_shown_by_their_number() -> None:
    assert visible("a\u202eb\x00c\x1b[31m\r\nd\te") == "a[U+202E]b[U+0000]c[U+001B][31m\nd\te"
    assert visible("half \ud83d, whole \ud83d\ude00") == "half \ufffd, whole \U0001f600"


def test_losses_are_shown_before_gains_and_ten_of_each(make_run: MakeRun) -> None:
    html = report.write(make_run()).read_text(encoding="utf-8")
    worse, better = html.index('id="worse"'), html.index('id="better"')
    assert worse < better < html.index('id="caveats"')
    assert html.count('<div class="question">', worse, better) == html.count('<div class="question">', better) == 10


def test_the_ledger_of_the_page_adds_up(make_run: MakeRun) -> None:
    html = report.write(make_run()).read_text(encoding="utf-8")
    assert "1,439 rows read = 1,394 kept + 45 dropped" in html
    rows = re.search(r'<table class="ledger".*?</table>', html, re.DOTALL)
    assert rows is not None
    counts = [int(count) for count in re.findall(r'class="number" data-label="rows">([\d,]+)</td>', rows[0])]
    assert counts == [37, 1, 5, 2] and sum(counts) == 45
    assert set(re.findall(r"tickets\.jsonl:(2\d\d)\b", rows[0])) == {str(line) for line in range(201, 238)}


def test_the_first_five_places_stand_and_the_others_fold_away(make_run: MakeRun) -> None:
    html = report.write(make_run()).read_text(encoding="utf-8")
    assert "tickets.jsonl:205<details><summary>and 32 more</summary>tickets.jsonl:206" in html


def test_the_arm_that_dev_chose_is_marked_once(make_run: MakeRun) -> None:
    html = report.write(make_run()).read_text(encoding="utf-8")
    assert html.count("chosen on dev</span>") == 1
    assert html.index(">retrieved</b>") < html.index("chosen on dev</span>") < html.index(">fine-tuned</b>")


def test_a_stopped_run_has_a_page_with_what_is_there_and_how_to_go_on(make_run: MakeRun) -> None:
    folder = make_run(stop_at_step=137)
    text = page(folder).text
    assert "The run stopped before there was a verdict" in text
    assert f"luthier resume {folder}" in text
    assert "rows read = " in text and "Loss while training" in text and "What got worse" not in text


@pytest.mark.parametrize("gone", ["recipe.toml", "evaluation/answers.jsonl", "evaluation/verdict.json"])
def test_a_missing_file_takes_only_its_own_part_of_the_page(make_run: MakeRun, gone: str) -> None:
    folder = make_run()
    (folder / gone).unlink()
    assert "1,439 rows read" in page(folder).text


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"state": "new", "reason": null, "created": "2026-11-24T13:03:11+00:00"}')
    (tmp_path / "events.jsonl").touch()
    text = page(tmp_path).text
    assert "It had just begun." in text and "The data has not been read" not in text
    assert "The data report: the data has not been read." in text


def test_documents_have_a_page_without_examples(make_run: MakeRun) -> None:
    text = page(make_run(documents=True)).text
    assert "bits per byte 0.94 vs 1.31" in text.replace("Bits", "bits")
    assert "What got worse" not in text and "no answers to show" in text


def test_the_same_folder_gives_the_same_bytes(make_run: MakeRun) -> None:
    folder = make_run()
    first = report.write(folder).read_bytes()
    assert report.write(folder).read_bytes() == first


def test_markdown_begins_with_the_verdict_and_shows_losses_first(make_run: MakeRun) -> None:
    folder = make_run()
    report.write(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# BETTER: Fine-tuning is BETTER than the best prompt (retrieved)\n")
    assert 0 < text.index("## Arms") < text.index("## What got worse") < text.index("## What got better")


def test_a_text_cannot_leave_its_markdown_fence() -> None:
    assert fenced("a\n````\nb") == "`````text\na\n````\nb\n`````"


def test_a_text_inside_a_markdown_line_cannot_start_a_link_a_tag_or_a_cell() -> None:
    assert inline("[x](http://y) <b> a|b\n`c`") == r"[x\](http://y) \<b> a\|b \`c\`"
    assert inline("95 % CI [+4.1, +10.4]") == "95 % CI [+4.1, +10.4]"


def test_long_texts_part_between_words_and_lose_nothing() -> None:
    text = "word " * 200
    beginning, rest = clamp(text, 320)
    assert beginning + rest == text
    assert beginning.endswith("word ") and len(beginning) <= 320
    assert clamp("x" * 1000, 320) == ("x" * 320, "x" * 680)
    assert clamp("short", 320) == ("short", "")


def test_the_json_is_for_every_reader_and_holds_the_story(make_run: MakeRun) -> None:
    folder = make_run(verdict={"p_value": float("nan")})
    report.write(folder)
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["verdict"]["verdict"] == "BETTER" and content["verdict"]["p_value"] is None
    assert content["data"]["read"] == 1439
    assert len(content["examples"]["worse"]) == len(content["examples"]["better"]) == 10
    assert content["examples"]["worse"][0]["change"] < 0 < content["examples"]["better"][0]["change"]


def test_colours_keep_the_contrast_that_wcag_aa_asks_for(make_run: MakeRun) -> None:
    css = re.search(r"<style>(.*?)</style>", report.write(make_run()).read_text(encoding="utf-8"), re.DOTALL)
    assert css is not None
    light, dark = re.findall(r":root \{(.*?)\}", css[1], re.DOTALL)[:2]
    for scheme in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ink in ("ink", "soft", "accent", "good", "bad", "calm", "open"):
            for ground in ("paper", "sheet"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours (#rrggbb)."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
