"""What stands beside the verdict: plan, other arms, leaks, guards, errors, benchmarks, on the page and in words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from luthier import report
from luthier.report.evaluation_details import leakage_sentence

MakeRun = Callable[..., Path]

PLAN = {"sha256": "9f3a" * 16, "frozen": "2026-11-24T13:04:00+00:00", "test_opened": 2}
SECONDARY = [
    {"arm": "few-shot", "word": "BETTER", "difference": 0.081, "interval": [0.03, 0.13], "adjusted_p_value": 0.0021}
]
GUARDS = [
    {
        "guard": "forgetting", "check": "general text", "title": "Predicts general text as before", "passed": True,
        "word": "EQUIVALENT", "unit": "percent", "base": 1.162, "fine_tuned": 1.165, "difference": 0.2,
        "interval": [-0.3, 0.8], "sentence": "General text: 1.162 before, 1.165 after.",
        "examples": [{"question": "<b>Mars?</b>", "base": "red", "fine_tuned": "I only answer about Luthier."}],
    },
    {
        "guard": "hallucination", "check": "over-refusal", "title": "Answers what it should", "passed": False,
        "word": "WORSE", "unit": "points", "base": 0.0, "fine_tuned": 9.0, "difference": 9.0, "interval": [5.0, 14.0],
        "sentence": "It refuses 9 of 100 questions.", "examples": [],
    },
]  # fmt: skip
EXAMPLE = {"place": "t.jsonl:7", "nearest": [{"place": "t.jsonl:3"}]}
FORMAT = {
    "guard": "format", "check": "ends", "title": "Ends its answers", "passed": True, "word": "WITHIN LIMIT", "unit": "percent",
    "base": 68.3, "fine_tuned": 0.0, "difference": -68.3, "interval": [0.0, 6.0], "sentence": "It ends them.", "examples": [],
}  # fmt: skip
ERRORS = {
    "sentence": "Errors in 140 answers: repetitive 62 → 5.",
    "categories": [
        {
            "category": "repetitive", "meaning": "says the same again", "base": {"count": 62}, "fine_tuned": {"count": 5},
            "mended": 58, "new": 1, "advice": "Shorten the answers that repeat.", "examples": {"fine_tuned": [EXAMPLE]},
        },
        {"category": "refusal", "meaning": "", "base": {"count": 0}, "fine_tuned": {"count": 0}, "advice": ""},
    ],
}  # fmt: skip
BENCHMARKS = {
    "tasks": [
        {
            "task": "arc_easy", "items": 2376,
            "metrics": [
                {
                    "metric": "acc", "value": 0.571, "base": 0.567, "difference": 0.004, "interval": [-0.01, 0.02],
                    "word": "NOT SHOWN",
                }
            ],
        }
    ]
}  # fmt: skip


DECISIONS = {
    "answers": ["invoice", "refund"], "temperature": 1.84, "dev": 200, "change": [-0.2, -0.05], "allowed_mass": 0.98,
    "before": {
        "n": 30, "accuracy": 0.8, "brier": 0.41, "log_loss": 0.9, "calibration_error": 0.152,
        "bins": [{"n": 15, "confidence": 0.9, "right": 0.7}, {"n": 15, "confidence": 0.99, "right": 0.9}],
    },
    "after": {
        "n": 30, "accuracy": 0.8, "brier": 0.29, "log_loss": 0.5, "calibration_error": 0.021,
        "bins": [{"n": 15, "confidence": 0.71, "right": 0.7}, {"n": 15, "confidence": 0.92, "right": 0.9}],
    },
}  # fmt: skip


def with_details(make_run: MakeRun, **verdict: Any) -> Path:
    folder = make_run(verdict={"plan": PLAN, "secondary": SECONDARY, **verdict})
    for name, content in (
        ("guards", {"guards": [*GUARDS, FORMAT]}),
        ("errors", ERRORS),
        ("benchmarks", BENCHMARKS),
        ("decisions", DECISIONS),
    ):
        (folder / "evaluation" / f"{name}.json").write_text(json.dumps(content))
    return folder


def written(folder: Path) -> tuple[str, str]:
    page = report.write(folder)
    return page.read_text(encoding="utf-8"), (folder / "report.md").read_text(encoding="utf-8")


def test_guards_stand_with_before_after_and_a_mark(make_run: MakeRun) -> None:
    html, markdown = written(with_details(make_run))
    assert "1.162" in html and "+0.2 % [−0.3, +0.8]" in html and "&lt;b&gt;Mars?&lt;/b&gt;" in html
    assert "0.0 % [0.0, 6.0]" in html and "−68.3 %<" in html  # the interval of a limit is that of the value after
    assert "- ✗ Answers what it should (WORSE): It refuses 9 of 100 questions." in markdown
    assert "- ✓ Predicts general text as before (EQUIVALENT)" in markdown


def test_the_other_comparisons_give_the_adjusted_p_value(make_run: MakeRun) -> None:
    html, markdown = written(with_details(make_run, excluded=[{"arm": "endpoint:big", "why": "it gave no answer"}]))
    assert "against few-shot: +8.1 [+3.0, +13.0], p after Holm's correction 0.0021: BETTER" in markdown
    assert "endpoint:big was left out: it gave no answer." in markdown and "p (Holm)" in html


def test_errors_are_counted_and_end_in_advice(make_run: MakeRun) -> None:
    html, markdown = written(with_details(make_run))
    assert "repetitive: says the same again" in html and "t.jsonl:3" in html and "Shorten the answers" in markdown
    assert "refusal" not in markdown


def test_benchmarks_stand_with_their_items(make_run: MakeRun) -> None:
    _, markdown = written(with_details(make_run))
    assert "arc_easy, acc, 2376 items: 0.5670 before, 0.5710 after, +0.0040 [−0.0100, +0.0200] (NOT SHOWN)" in markdown


def test_how_sure_labels_are_stands_before_and_after_calibration(make_run: MakeRun) -> None:
    html, markdown = written(with_details(make_run))
    assert "| calibration error | 15.2 % | 2.1 % |" in markdown and "| Brier score | 0.410 | 0.290 |" in markdown
    assert "By 200 dev questions the model was too sure: its probabilities are taken at temperature 1.84." in markdown
    assert "The Brier score moves by −0.200 to −0.050." in markdown
    assert 'id="reliability-title"' in html and "0.70 right where 0.71 sure" in html


def test_labels_that_are_hardly_ever_said_are_told(make_run: MakeRun) -> None:
    folder = with_details(make_run)
    path = folder / "evaluation" / "decisions.json"
    path.write_text(json.dumps(DECISIONS | {"allowed_mass": 0.004, "dev": 0, "temperature": 1.0}))
    _, markdown = written(folder)
    assert "gives all of them together 0.4 % only" in markdown and "Too few dev questions" in markdown


def test_the_plan_s_hash_and_every_departure_are_told(make_run: MakeRun) -> None:
    departures = [{"sentence": "alpha: planned 0.05, done 0.1"}]
    _, markdown = written(with_details(make_run, plan=PLAN | {"deviations": departures}))
    assert "SHA-256 9f3a9f3a9f3a…" in markdown and "opened 2 times, with 1 departure from the plan:" in markdown
    assert "- alpha: planned 0.05, done 0.1" in markdown


def test_rows_that_training_has_seen_are_not_called_held_out(make_run: MakeRun) -> None:
    leakage = {"exact": 1, "question": 0, "near": 2, "group": 0, "of": 140, "held_out": False}
    html, markdown = written(with_details(make_run, leakage=leakage))
    assert "not held out: training has seen some of them" in html
    assert (
        "Of 140 test rows, these resemble a row of train or dev: 1 with an exact copy, 2 with a near copy." in markdown
    )
    assert leakage_sentence(leakage | {"exact": 0, "near": 0}).startswith("None of 140 test rows has a copy")


def test_a_run_without_any_of_it_says_nothing_about_it(make_run: MakeRun) -> None:
    html, markdown = written(make_run())
    assert "Guards" not in markdown and "Holm" not in html and "plan was frozen" not in markdown
