"""A sweep's points as tasks of Ray: the same table as without it, whatever happens to a task."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from luthier.errors import UserError
from luthier.pipeline.sweep.ray_tasks import RayTasks
from luthier.pipeline.sweep.work import Work
from luthier.recipe import Recipe

POINTS = ["--amounts", "50,100", "--set", "train.learning_rate=1e-3,1e-2"]


@pytest.fixture
def words(tiny_model: Path, tmp_path: Path) -> list[str]:
    """A sweep of four points of forty steps each."""
    rows = [{"question": f"What is {number} times three?", "answer": f"It is {3 * number}."} for number in range(60)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "data.jsonl", f"model={tiny_model}", "train.max_steps=40", "train.check_every=10", "train.tokens_per_step=300",
        "train.precision=fp32", "evaluate.arms=zero-shot,fine-tuned", "evaluate.guards=[]", "evaluate.max_new_tokens=4",
        "data.test_items=6", "data.dev_items=6", *POINTS,
    ]  # fmt: skip


def start(tmp_path: Path, *words: str) -> "subprocess.Popen[str]":
    """`luthier sweep` in a session of its own, as from a terminal."""
    return subprocess.Popen(
        [sys.executable, "-c", "from luthier.cli.main import main; main()", "sweep", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]", code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=280)
    assert process.returncode == code, err
    return out, err


def steps(point: Path) -> int:
    events = point / "events.jsonl"
    return events.read_text().count('"kind": "step"') if events.exists() else 0


def wait_for_steps(folder: Path, count: int) -> None:
    until = time.monotonic() + 120
    while sum(steps(point) for point in (folder / "points").glob("*")) < count and time.monotonic() < until:
        time.sleep(0.05)


def results(folder: Path) -> list[dict[str, Any]]:
    """What a sweep found, without the time that it took."""
    found = json.loads((folder / "sweep.json").read_text())["results"]
    return [{key: value for key, value in each.items() if key != "train_seconds"} for each in found]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra `ray`: scripts/test-slow installs it"
)
def test_four_points_on_ray_give_the_same_table_though_a_task_is_killed_and_all_are_stopped_once(
    words: list[str], tmp_path: Path
) -> None:
    table, _ = finish(start(tmp_path, *words, "--folder", "alone"))

    # One of the tasks is killed: it is started again and goes on; then all are asked to stop, as by Ctrl-C.
    swept = start(tmp_path, *words, "--folder", "ray", "--on", "ray")
    wait_for_steps(tmp_path / "ray", 12)
    of_ray = psutil.Process(swept.pid).children(recursive=True)
    heard = {at.laddr.ip for each in of_ray for at in each.net_connections("inet") if at.status == "LISTEN"}
    assert heard <= {"127.0.0.1", "::ffff:127.0.0.1"}
    tasks = [each for each in of_ray if each.is_running() and "ray::_do" in " ".join(each.cmdline())]
    tasks[0].kill()
    wait_for_steps(tmp_path / "ray", 60)
    os.killpg(swept.pid, signal.SIGINT)
    _, said = finish(swept, code=3)
    assert "of 4 points are complete. Continue with: luthier sweep --folder ray --on ray" in said
    assert not [each for each in of_ray if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    again, said = finish(start(tmp_path, "--folder", "ray", "--on", "ray", "--cpus-per-point", "1"))
    assert again.replace("ray/", "alone/") == table
    assert results(tmp_path / "ray") == results(tmp_path / "alone")


def test_ray_that_is_not_installed_is_said_with_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    work = Work("100pct", 1, 1, tmp_path, Recipe(), None, "")
    with pytest.raises(UserError, match=r"--on: .*pip install 'luthier\[ray\]'"):
        list(RayTasks().do([work], listen=None, stop=None))


def test_more_cores_than_there_are_is_said(tmp_path: Path) -> None:
    work = Work("100pct", 1, 1, tmp_path, Recipe(), None, "")
    with pytest.raises(UserError, match=r"--cpus-per-point: a point is to have 4096 cores, and this machine has \d+"):
        list(RayTasks(4096).do([work], listen=None, stop=None))
