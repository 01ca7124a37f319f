"""The log of a run's events, read on from where a reader was."""

from pathlib import Path

import pytest

from luthier.runs import Run, durable
from luthier.runs.events import EventLog


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "r")


def kinds(events: list[dict[str, object]]) -> list[object]:
    return [event["kind"] for event in events]


def test_a_reader_goes_on_behind_the_last_event_that_it_read(run: Run) -> None:
    run.record("start")
    run.record("data", rows=3)
    events, offset = run.log.tail()
    assert kinds(events) == ["start", "data"] and offset == run.log.path.stat().st_size
    assert run.log.tail(offset) == ([], offset)
    run.record("trained", note="with an ä, which is two bytes")
    events, end = run.log.tail(offset)
    assert kinds(events) == ["trained"] and end == run.log.path.stat().st_size


def test_an_event_that_is_being_written_is_left_for_the_next_time(run: Run) -> None:
    run.record("start")
    with run.log.path.open("ab") as file:
        file.write(b'{"time": "now", "kind": "da')
        file.flush()
        events, offset = run.log.tail()
        assert kinds(events) == ["start"]
        file.write(b'ta"}\n')
    assert kinds(run.log.tail(offset)[0]) == ["data"]


@pytest.mark.parametrize("torn", [b'{"kind": "half', b"\0\0\0\n\0\0", b'{"kind": "half\n'])
def test_an_offset_stays_right_when_what_a_crash_left_is_cut_away(run: Run, torn: bytes) -> None:
    run.record("start")
    with run.log.path.open("ab") as file:
        file.write(torn)
    events, offset = run.log.tail()
    assert kinds(events) == ["start"]
    with run.lock():
        assert durable.repair(run.log.path) == 0, "who takes the lock repairs first"
        run.record("resumed")
    assert kinds(run.log.tail(offset)[0]) == ["mended", "resumed"]


def test_events_of_one_kind(run: Run) -> None:
    for step in (1, 2):
        run.record("step", step=step)
    run.record("trained")
    assert [event["step"] for event in run.events("step")] == [1, 2]
    assert kinds(run.events()) == ["step", "step", "trained"]


def test_emitted_events_are_heard_and_not_written(run: Run) -> None:
    heard: list[dict[str, object]] = []
    run.listeners.append(heard.append)
    run.emit("start")
    assert kinds(heard) == ["start"] and EventLog(run.log.path).tail() == ([], 0)
