"""Every write survives a kill, a full or broken disk and a power cut at each of its calls; a few here, all with `-m faults`."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from faulty import BROKEN, FULL, FaultyDisk, Nursery, disk
from luthier.errors import MachineError
from luthier.runs import durable
from powerloss import WatchedDisk, cuts
from scenarios import SCENARIOS, Scenario

from .conftest import Tally

THROUGH_RUST = ("model",)  # written by safetensors and tokenizers, so only flushes and renames go through our calls
REMOVING = ("checkpoint", "new run")  # what was being removed may be left, under a name that the next start sweeps
SYSTEM_CALLS = (
    "openat", "write", "pwrite64", "fsync", "ftruncate", "rename", "renameat", "renameat2", "mkdir", "unlink", "unlinkat",
    "rmdir", "close",
)  # fmt: skip
each_scenario = pytest.mark.parametrize("name", SCENARIOS)
few_then_all = pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.faults)])


def ready(scenario: Scenario, folder: Path) -> Path:
    folder.mkdir()
    scenario.before(folder)
    return folder


def calls_of(scenario: Scenario, folder: Path, model: Path) -> int:
    """How many calls the write makes that change a disk."""
    act = scenario.ready(ready(scenario, folder), model)
    with disk(FaultyDisk(None, FULL)) as counting:
        act()
    scenario.check(folder, True)
    assert isinstance(counting, FaultyDisk) and len(counting.calls) > 3
    return len(counting.calls)


@few_then_all
@each_scenario
def test_a_kill_at_any_call_leaves_the_old_or_the_new(
    nursery: Nursery, tmp_path: Path, tiny_model: Path, tally: Tally, name: str, every: int
) -> None:
    scenario = SCENARIOS[name]
    for at in range(0, calls_of(scenario, tmp_path / "whole", tiny_model), every):
        folder = ready(scenario, tmp_path / f"killed{at}")
        ended = nursery.do("scenario", name=name, folder=str(folder), at=at, model=str(tiny_model))
        assert ended.code == -signal.SIGKILL, ended.said
        scenario.check(folder, False)
        durable.remove_leftovers(folder)
        scenario.check(folder, False)
        shutil.rmtree(folder)
        tally.add("kills at a write, flush or rename")


@few_then_all
@pytest.mark.parametrize("fault", [FULL, BROKEN], ids=["full", "broken"])
@each_scenario
def test_a_disk_that_fails_at_any_call_is_told_and_leaves_the_old_or_the_new(
    tmp_path: Path, tiny_model: Path, tally: Tally, name: str, every: int, fault: object
) -> None:
    scenario = SCENARIOS[name]
    words = "the disk is full" if fault is FULL else "the disk reports an input/output error"
    for at in range(0, calls_of(scenario, tmp_path / "whole", tiny_model), every):
        folder = ready(scenario, tmp_path / f"failed{at}")
        act = scenario.ready(folder, tiny_model)
        with disk(FaultyDisk(at, fault)), pytest.raises(MachineError, match=words):  # type: ignore[arg-type]
            act()
        scenario.check(folder, False)
        assert not list(folder.rglob("*.tmp")) or name in REMOVING
        scenario.ready(folder, tiny_model)()
        scenario.check(folder, True)
        shutil.rmtree(folder)
        tally.add(f"calls that failed with {'ENOSPC' if fault is FULL else 'EIO'}")


@few_then_all
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in THROUGH_RUST])
def test_a_power_cut_after_any_call_leaves_the_old_or_the_new(
    tmp_path: Path, tiny_model: Path, tally: Tally, name: str, every: int
) -> None:
    scenario = SCENARIOS[name]
    folder, states, calls = ready(scenario, tmp_path / "real"), tmp_path / "states", 0

    def after() -> None:
        nonlocal calls
        calls += 1
        if calls % every:
            return
        for cut in cuts():
            with disk(durable.Disk()):
                watched.model.write(states, **cut)
                scenario.check(states, False)
                shutil.rmtree(states)
            tally.add("states after a power cut")

    watched = WatchedDisk(folder, after)
    act = scenario.ready(folder, tiny_model)
    with disk(watched):
        act()
    assert calls > 3
    for cut in cuts():
        watched.model.write(states, **cut)
        scenario.check(states, True)
        shutil.rmtree(states)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["checkpoint", "model"])
def test_a_kill_at_any_system_call_leaves_the_old_or_the_new(
    nursery: Nursery, tmp_path: Path, tiny_model: Path, tally: Tally, name: str
) -> None:
    """The same from outside, by strace: it sees the calls of the libraries too, and trusts none of ours."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    scenario, kills = SCENARIOS[name], 0
    for call in SYSTEM_CALLS:  # strace counts each by itself
        ended, at = None, 0
        while ended is None or ended.code:
            folder = ready(scenario, tmp_path / f"traced{kills}")
            pid = nursery.start(
                "scenario", name=name, folder=str(folder), at=None, model=str(tiny_model), stop_first=True
            )
            nursery.when_stopped(pid)  # just before the write
            at += 1
            inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={at}"]
            tracer = subprocess.Popen(
                ["strace", "-f", "-qq", "-o", os.devnull, *inject, "-p", str(pid)], stderr=subprocess.PIPE, text=True
            )
            while not traced(pid):
                if tracer.poll() is not None:
                    os.kill(pid, signal.SIGKILL)
                    pytest.skip(f"cannot trace here: {tracer.communicate()[1]}")
            os.kill(pid, signal.SIGCONT)
            ended = nursery.wait(pid)
            tracer.communicate(timeout=60)
            assert ended.code in (0, -signal.SIGKILL), ended.said
            scenario.check(folder, ended.code == 0)
            shutil.rmtree(folder)
            kills += bool(ended.code)
    assert kills > 40
    tally.add("kills at a system call, by strace", kills)


def traced(pid: int) -> bool:
    return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()


@few_then_all
def test_a_small_disk_that_fills_up_really_keeps_the_old_or_the_new(
    small_disk: Path, tiny_model: Path, tally: Tally, every: int
) -> None:
    """No fault of ours: a file system of 2 MiB, with less and less room for the write."""
    scenario = SCENARIOS["model"]
    act = scenario.ready(small_disk / "run", tiny_model)
    (small_disk / "run").mkdir()
    full = 0
    for taken in range(2_090_000, 1_850_000, -6_000 * every):
        (small_disk / "ballast").write_bytes(b"x" * taken)
        try:
            act()
        except MachineError as error:
            assert "the disk is full" in str(error)
            full += 1
        scenario.check(small_disk / "run", False)
        assert not list((small_disk / "run").glob(".*"))
        shutil.rmtree(small_disk / "run")
        (small_disk / "run").mkdir()
        (small_disk / "ballast").unlink()
    assert full > 2
    tally.add("writes to a small disk that was really full", full)
