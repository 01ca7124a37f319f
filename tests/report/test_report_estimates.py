"""Estimates are held against the facts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from luthier import report

EVENTS = [
    {"kind": "needs", "training": 3_300_000_000},
    {"kind": "dev", "step": 0, "loss": 2.0, "seconds": 10.0},
    {"kind": "forecast", "steps": 4, "updating": 40.0, "looking": 20.0, "saving": 20.0},
    {"kind": "step", "step": 1, "steps": 4, "loss": 1.0, "tokens": 1000, "tokens_per_second": 100.0},
    {"kind": "step", "step": 2, "steps": 4, "loss": 1.0, "tokens": 1000, "tokens_per_second": 50.0},
    {"kind": "step", "step": 2, "steps": 4, "loss": 1.0, "tokens": 1000, "tokens_per_second": 100.0},
    {"kind": "dev", "step": 2, "loss": 1.5, "seconds": 10.0},
    {"kind": "checkpoint", "step": 2, "seconds": 10.0},
    {"kind": "trained", "step": 2, "best_step": 2, "best_loss": 1.5, "peak_bytes": 3_000_000_000},
]


def estimates(folder: Path, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps({"time": "", **event}) + "\n" for event in events)
    report.write(folder)
    found: list[dict[str, Any]] = json.loads((folder / "report.json").read_text())["training"]["foretold"]
    return found


def test_a_training_that_ended_half_way_is_compared_with_half_the_forecast(make_run: Callable[..., Path]) -> None:
    """Half of 80 s were estimated; 10 + 10 s of steps (the repeated one once), 20 s of dev checks and 10 s of saving came."""
    folder = make_run(steps=2, stop_at_step=1)
    (folder / "events.jsonl").write_text("")
    memory, time = estimates(folder, EVENTS)
    assert (memory["foretold"], memory["measured"], round(memory["off"], 3)) == (3.3e9, 3e9, 0.1)
    assert (time["foretold"], time["measured"], round(time["off"], 3)) == (40.0, 50.0, -0.2)
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert "3.30 GB" in page and "\N{MINUS SIGN}20 %" in page
    assert "- time: 40 s estimated (from the first three steps), 50 s measured, \N{MINUS SIGN}20 %" in text


def test_a_training_without_any_measured_time_is_not_compared(make_run: Callable[..., Path]) -> None:
    folder = make_run(steps=2, stop_at_step=1)
    (folder / "events.jsonl").write_text("")
    quick = [{name: value for name, value in event.items() if "second" not in name} for event in EVENTS]
    (memory,) = estimates(folder, [*quick[:-1], quick[-1] | {"peak_bytes": 3_300_000_001}])
    assert memory["what"] == "memory"
    assert "3.30 GB measured, 0 %" in (folder / "report.md").read_text()


def test_nothing_is_compared_before_the_end_or_without_a_forecast(make_run: Callable[..., Path]) -> None:
    assert estimates(make_run("unfinished", stop_at_step=30), EVENTS[:-1]) == []
    assert estimates(make_run("older"), []) == []
