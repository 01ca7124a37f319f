"""A sweep's page and chart say what its results say, alone and in words."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from luthier.report import sweep

SVG = "{http://www.w3.org/2000/svg}"


def result(name: str, series: str, rows: int, mean: float, **others: Any) -> dict[str, Any]:
    shared = {
        "amount": rows / 8, "model": "tiny", "settings": {}, "folder": f"points/{name}", "parameters": 30_000,
        "metric": "token_f1", "higher_is_better": True, "n": 60, "best_prompt_arm": "few-shot", "prompt_mean": 0.4,
        "prompt_interval": [0.3, 0.5], "difference": mean - 0.4, "difference_interval": [mean - 0.5, mean - 0.3],
        "verdict": "NOT SHOWN", "dev_loss": 1.5, "train_seconds": 61.0,
    }  # fmt: skip
    return {
        **shared,
        "name": name,
        "series": series,
        "rows": rows,
        "mean": mean,
        "interval": [mean - 0.1, mean + 0.1],
        **others,
    }


def write(folder: Path, results: list[dict[str, Any]], **others: Any) -> tuple[str, ElementTree.Element]:
    record = {
        "created": "2026-01-31T09:30:00.000+00:00", "command": "luthier sweep d.jsonl <now>", "metric": "token_f1",
        "higher_is_better": True, "points": results, "results": results, "answers": ["It helps."],
    }  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(record | others))
    page = sweep.write(folder).read_text(encoding="utf-8")
    return page, ElementTree.fromstring((folder / "sweep.svg").read_text(encoding="utf-8"))


def texts(drawn: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in drawn.iter(f"{SVG}text")]


CURVE = [result(f"{rows}", "fine-tuned", rows, mean) for rows, mean in ((800, 0.7), (400, 0.6), (100, 0.45))]


def test_a_curve_has_a_mark_and_a_whisker_for_each_point_and_one_line(tmp_path: Path) -> None:
    _, drawn = write(tmp_path, CURVE)
    kinds = [each.get("class") for each in drawn.iter()]
    assert (kinds.count("mark"), kinds.count("whisker"), kinds.count("line")) == (3, 3, 1)
    assert {"45.0", "60.0", "70.0", "100", "800", "best prompt (few-shot)", "fine-tuned"} <= set(texts(drawn))


def test_each_doubling_is_equally_wide_and_higher_scores_are_higher_up(tmp_path: Path) -> None:
    _, drawn = write(tmp_path, CURVE)
    (line,) = (each for each in drawn.iter(f"{SVG}polyline"))
    (a, ya), (b, yb), (c, yc) = (tuple(map(float, spot.split(","))) for spot in str(line.get("points")).split())
    assert (b - a) == pytest.approx(2 * (c - b), abs=0.3)
    assert ya > yb > yc and (ya - yb) == pytest.approx(1.5 * (yb - yc), abs=0.3)


def test_a_ladder_has_no_lines_and_a_column_each(tmp_path: Path) -> None:
    steps = [result(f"p{n}", f"train.epochs={n}", 800, 0.5 + n / 100, settings={"train.epochs": n}) for n in (1, 2, 3)]
    _, drawn = write(tmp_path, steps)
    assert not list(drawn.iter(f"{SVG}polyline"))
    assert {"train.epochs=1", "train.epochs=2", "train.epochs=3"} <= set(texts(drawn))


def test_names_at_the_ends_of_lines_never_lie_on_each_other(tmp_path: Path) -> None:
    names = [f"model {n}" for n in range(5)]
    points = [result(f"{name} {rows}", name, rows, 0.6) for name in names for rows in (400, 800)]
    _, drawn = write(tmp_path, points)
    places = sorted(float(str(each.get("y"))) for each in drawn.iter(f"{SVG}text") if each.text in names)
    assert len(places) == 5 and min(b - a for a, b in pairwise(places)) >= 16


def test_bits_per_byte_are_drawn_as_they_are(tmp_path: Path) -> None:
    points = [
        result(f"{rows}", "fine-tuned", rows, mean, metric="bits_per_byte") for rows, mean in ((400, 1.5), (800, 1.4))
    ]
    page, drawn = write(tmp_path, points, metric="bits_per_byte", higher_is_better=False)
    assert "1.400" in texts(drawn) and "lower is better" in " ".join(texts(drawn))
    assert "1.400 [1.300 – 1.500]" in page


def test_the_page_tells_every_point_and_escapes_what_was_typed(tmp_path: Path) -> None:
    page, _ = write(tmp_path, CURVE, points=[*CURVE, CURVE[0]])
    for words in (
        "It helps.",
        ">Token F1<small>",
        "800 rows (100 %)",
        "70.0 [60.0 – 80.0]",
        "+30.0",
        "1 point still to come",
        "1 min 01 s",
    ):
        assert words in page
    assert 'href="points/800/report.html"' in page
    assert "luthier sweep d.jsonl &lt;now&gt;" in page and "http://" not in page.replace(
        "http://www.w3.org/2000/svg", ""
    )


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path, CURVE)
    before = [(tmp_path / name).read_bytes() for name in ("sweep.html", "sweep.svg")]
    write(tmp_path, CURVE)
    assert [(tmp_path / name).read_bytes() for name in ("sweep.html", "sweep.svg")] == before
