"""A nursery for the whole session, and the counts that are printed at the end."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from faulty import Nursery

COUNTED = "durability: "


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A sweep has time enough on a machine that is busy with other things."""
    for item in items:
        if item.get_closest_marker("faults"):
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """A process whose children can be killed."""
    one = Nursery(tmp_path_factory.mktemp("nursery"))
    yield one
    one.close()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty questions and answers."""
    path = tmp_path_factory.mktemp("data") / "colours.jsonl"
    rows = [
        {"question": f"What colour is the {thing} number {number}?", "answer": f"The {thing} is {colour}."}
        for number, colour in enumerate(["red", "green", "blue", "yellow", "black", "white"])
        for thing in ["car", "door", "hat", "lamp", "boat", "chair", "cup", "book", "shoe", "bird"]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def words(tiny_model: Path) -> list[str]:
    """Settings of a run that takes a second or two and passes through every stage."""
    return [
        f"model={tiny_model}", "train.max_steps=20", "train.tokens_per_step=256", "train.check_every=3", "train.precision=fp32",
        "evaluate.arms=zero-shot,fine-tuned", "evaluate.max_new_tokens=8", "evaluate.guards=consistency", "data.test_items=8",
        "data.dev_items=6",
    ]  # fmt: skip


class Tally:
    """Adds up what was tried, over all tests."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def add(self, what: str, count: int = 1) -> None:
        self._item.user_properties.append((COUNTED + what, count))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    return Tally(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the faults came to: how many of each kind, and how many of them left something torn."""
    total: Counter[str] = Counter()
    torn = 0
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call" and "faults" in Path(report.nodeid.partition("::")[0]).parts:
                torn += outcome == "failed"
                for name, count in report.user_properties:
                    total[name.removeprefix(COUNTED)] += int(count)
    if total:
        terminalreporter.section("faults injected")
        for name, count in sorted(total.items()):
            terminalreporter.write_line(f"{count:6,}  {name}")
        terminalreporter.write_line(
            f"{sum(total.values()):6,}  in all; tests that found a torn state or other weights: {torn}"
        )
