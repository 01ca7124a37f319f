"""A run folder keeps its promises through crashes, rivals and full disks."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from luthier import runs
from luthier.errors import CorruptedState, Interrupted, MachineError, UserError
from luthier.runs import Run, durable
from luthier.runs import folder as run_folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "r", command="luthier run x")


def test_a_new_run_is_new_and_can_be_found(run: Run) -> None:
    assert run.state == "new"
    assert [found.name for found in runs.find(run.folder.parent)[0]] == ["r"]


def test_work_that_ends_well_is_complete(run: Run) -> None:
    with run.working():
        assert Run(run.folder).state == "running"
    assert Run(run.folder).state == "complete"


def test_work_that_stops_on_request_is_interrupted(run: Run) -> None:
    with pytest.raises(Interrupted), run.working():
        raise Interrupted("stopped after step 3")
    assert (Run(run.folder).state, Run(run.folder).metadata["reason"]) == ("interrupted", "stopped after step 3")


def test_a_defect_leaves_the_run_failed_with_its_reason(run: Run) -> None:
    with pytest.raises(ZeroDivisionError), run.working():
        raise ZeroDivisionError("division by zero")
    assert (Run(run.folder).state, Run(run.folder).metadata["reason"]) == ("failed", "division by zero")


def test_a_crash_in_the_report_does_not_hide_what_stopped_the_run(run: Run) -> None:
    def report() -> None:
        raise ZeroDivisionError("a defect in the report")

    with pytest.raises(ValueError, match="what stopped the run"), run.working(report):
        raise ValueError("what stopped the run")
    assert (run.state, run.metadata["reason"]) == ("failed", "what stopped the run")
    assert "ZeroDivisionError: a defect in the report" in run.events("warning")[0]["message"]


def test_running_without_a_lock_means_interrupted(run: Run) -> None:
    run.update(state="running")
    assert Run(run.folder).state == "interrupted"


def _work(folder: Path, inside: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event") -> None:
    with Run(folder).working():
        inside.set()
        done.wait(30)


def test_a_second_process_is_told_who_works_there(run: Run) -> None:
    context = multiprocessing.get_context("spawn")
    inside, done = context.Event(), context.Event()
    other = context.Process(target=_work, args=(run.folder, inside, done))
    other.start()
    try:
        assert inside.wait(60)
        with pytest.raises(MachineError, match=f"the run is in use by process {other.pid} on "), run.working():
            pass
        assert run.state == "running" or Run(run.folder).state == "running"
    finally:
        done.set()
        other.join()


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="already exists and is not a run folder; choose another with --run"):
        Run.create(tmp_path)


def test_of_two_processes_that_begin_a_run_in_one_folder_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one saw no run there a moment before."""
    unused = run_folder._unused

    def then_another_begins(folder: Path) -> bool:
        monkeypatch.setattr(run_folder, "_unused", unused)
        Run.create(folder, command="the first")
        return True

    monkeypatch.setattr(run_folder, "_unused", then_another_begins)
    with pytest.raises(MachineError, match="another process has begun a run here meanwhile"):
        Run.create(tmp_path / "r", command="the second")
    assert Run(tmp_path / "r").metadata["command"] == "the first"


def test_a_folder_without_run_json_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder: it has no run\.json"):
        Run(tmp_path)


def test_a_damaged_run_json_is_corrupted_state(run: Run) -> None:
    (run.folder / "run.json").write_text("{")
    with pytest.raises(CorruptedState, match="not valid JSON"):
        Run(run.folder)


def test_a_run_that_cannot_be_read_hides_no_other(run: Run, tmp_path: Path) -> None:
    for name, content in {"a": "{", "b": '{"format": 99}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    found, unreadable = runs.find(tmp_path)
    assert [one.name for one in found] == ["r"]
    assert [str(error).partition(":")[0] for error in unreadable] == [
        f"{tmp_path}/a/run.json",
        f"{tmp_path}/b/run.json",
    ]


def _look(folder: Path, answer: "multiprocessing.queues.Queue[str]") -> None:
    """What somebody sees who may not write here."""
    os.chdir(folder.parent)
    if os.geteuid() == 0:
        os.setuid(65534)
    answer.put(Run(Path(folder.name)).state)


def test_who_may_only_read_a_run_sees_that_it_runs(run: Run) -> None:
    def seen() -> str:
        for path, mode in ((run.folder / "run.json", 0o644), (run.folder, 0o555), (run.folder.parent, 0o755)):
            path.chmod(mode)
        context = multiprocessing.get_context("spawn")
        answer = context.Queue()
        other = context.Process(target=_look, args=(run.folder, answer))
        other.start()
        state = answer.get(timeout=30)
        other.join()
        run.folder.chmod(0o755)
        return state

    with run.working():
        for mode in (0o444, 0):  # with no right at all, run.json is believed
            (run.folder / ".lock").chmod(mode)
            assert seen() == "running"
    run.update(state="running")
    (run.folder / ".lock").unlink(missing_ok=True)
    assert seen() == "interrupted"
    assert not (run.folder / ".lock").exists(), "who only looks writes nothing"


def test_events_survive_a_torn_last_line(run: Run) -> None:
    run.record("step", loss=1.0)
    with (run.folder / "events.jsonl").open("a") as file:
        file.write('{"kind": "st')
    assert [event["loss"] for event in run.events("step")] == [1.0]


def test_listeners_hear_what_is_recorded(run: Run) -> None:
    heard: list[str] = []
    run.listeners.append(lambda event: heard.append(event["kind"]))
    run.record("data")
    assert heard == ["data"]


def test_appending_cuts_a_torn_line_away_first(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    durable.append_json_lines(path, [{"a": 3}])
    assert path.read_text() == '{"a": 1}\n{"a": 3}\n'
    assert durable.read_json_lines(path) == [{"a": 1}, {"a": 3}]


def test_writing_whole_files_leaves_nothing_beside_them(tmp_path: Path) -> None:
    durable.write_atomic(tmp_path / "x.json", "1")
    durable.write_atomic(tmp_path / "x.json", "2")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("x.json", "2")]


def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path: Path, small_disk: Path) -> None:
    target = small_disk / "x.json"
    durable.write_atomic(target, "old")
    with pytest.raises(MachineError, match="cannot write: the disk is full") as caught:
        durable.write_atomic(target, "n" * 10_000_000)
    assert caught.value.exit_code == 4
    assert target.read_text() == "old"
    assert list(small_disk.iterdir()) == [target]


def test_run_json_is_readable_by_people(run: Run) -> None:
    record = json.loads((run.folder / "run.json").read_text())
    assert record["command"] == "luthier run x"
