"""A service, its workers and its database are killed at random moments: jobs end as if nothing had been, no row is lost."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import job_life
from job_service import SETTINGS, Client, Shop
from luthier.errors import MachineError
from luthier.jobs import lease
from luthier.jobs.service import Jobs
from luthier.jobs.store import Store
from luthier.model.identity import fingerprint

from .conftest import Tally

SERVICE = Path(__file__).resolve().parent.parent / "job_service.py"
STEPS = 150
MANY_STEPS = {**SETTINGS, "train.max_steps": STEPS, "train.check_every": 25}


class Served:
    """A service in a process of its own, which starts again when it was killed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.start()

    def start(self) -> None:
        asked = [sys.executable, str(SERVICE), str(self.home)]
        self.process = subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def below(self) -> list[psutil.Process]:
        """The worker, and the training if there is one."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self, victim: str) -> None:
        """Kill -9 what is named: the service, its worker, the training, or several; the service is then started again."""
        found = self.below()
        workers, trainings = (
            [one for one in found if name in " ".join(_command(one))] for name in ("jobs.worker", "jobs.child")
        )
        for one in (workers if victim in ("worker", "both", "all") else []) + (
            trainings if victim in ("training", "all") else []
        ):
            one.kill()
        if victim in ("server", "both", "all"):
            self.process.kill()
            self.process.wait()
            self.close_pipes()
            self.start()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)
        self.close_pipes()

    def close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe and not pipe.closed:
                pipe.close()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[str, float]:
    """The weights of a job that nothing disturbed, and how many seconds it took."""
    with Jobs(tmp_path_factory.mktemp("calm") / "home") as service:
        client = Client(service, tiny_model)
        start = time.monotonic()
        done = client.wait(job := client.create(settings=MANY_STEPS))
        assert done.state == "succeeded", client.messages(job)
        return fingerprint(service.store.run_folder(job.id) / "model"), time.monotonic() - start


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [20])
def test_a_job_ends_with_the_same_weights_whoever_is_killed_when(
    tmp_path: Path, tiny_model: Path, calm: tuple[str, float], tally: Tally, kills: int
) -> None:
    weights, seconds = calm
    chance = random.Random(15)
    served = Served(tmp_path / "home")
    client = Client(Jobs(tmp_path / "home"), tiny_model)  # never started: it only asks
    try:
        for number in range(kills):
            victim = ("server", "worker", "both", "training", "all")[number % 5]
            job = client.create(settings=MANY_STEPS)
            if number % 2:  # every other one among the steps, which are a small part of the time
                moment = f"step {(least := chance.randint(1, STEPS - 1))}"
                client.wait(job, lambda row, least=least: row.step >= least or row.is_finished)  # type: ignore[misc]
            else:
                moment = f"{(end := chance.uniform(0.2, seconds)):.1f} s"
                end += time.monotonic()
                client.wait(job, lambda row, end=end: time.monotonic() > end or row.is_finished)  # type: ignore[misc]
            before = client.get(job)
            served.kill(victim)
            done = client.wait(job)
            said = client.messages(job)
            print(f"kill {number + 1}: {victim} after {moment} ({before.state}, step {before.step}): {done.state}")
            assert done.state == "succeeded", (victim, moment, done, said)
            assert fingerprint(client.store.run_folder(job.id) / "model") == weights, (victim, moment, said)
            steps = [event.data["step"] for event in client.store.events.since(job.id, 0) if event.data]
            assert steps == list(range(1, STEPS + 1)), (victim, moment, steps)
            assert said.count("The job has successfully completed") == 1
            tally.add(f"kill -9 of {victim} under a job")
    finally:
        served.close()
        client.store.close()


@pytest.mark.faults
def test_a_worker_that_was_frozen_for_longer_than_its_lease_spoils_nothing(
    tmp_path: Path, tiny_model: Path, calm: tuple[str, float], tally: Tally
) -> None:
    with Jobs(tmp_path / "home", slots=2, lease_seconds=3) as service:
        client = Client(service, tiny_model)
        job = client.create(settings=MANY_STEPS)
        client.wait(job, lambda row: row.log_offset > 0)  # its training has begun
        (child,) = (
            one for one in psutil.Process().children(recursive=True) if one.is_running() and job.id in _command(one)
        )
        worker = child.parent()
        assert worker
        worker.send_signal(signal.SIGSTOP)
        try:
            taken = client.wait(job, lambda row: row.fence == 2 or row.is_finished)
            assert taken.fence == 2, client.messages(job)
        finally:
            worker.send_signal(signal.SIGCONT)
        done = client.wait(job)
        assert done.state == "succeeded" and done.fence == 2, client.messages(job)
        assert fingerprint(client.store.run_folder(job.id) / "model") == calm[0]
        assert [event.data["step"] for event in client.store.events.since(job.id, 0) if event.data] == list(
            range(1, STEPS + 1)
        )
        tally.add("worker frozen for longer than its lease")


@pytest.mark.faults
def test_a_job_that_kills_its_training_each_time_fails_with_the_reason(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    (tmp_path / "poison.py").write_text("import os\ndef score(answer, reference):\n    os.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with Jobs(tmp_path / "home", lease_seconds=3) as service:
        client = Client(service, tiny_model)
        done = client.wait(job := client.create(settings={**SETTINGS, "evaluate.metric": "poison:score"}))
        assert done.state == "failed" and done.error and done.error.code == "worker_lost"
        assert "killed by the system (signal 9), most often because memory ran out" in done.error.message
        assert "started 3 times without a step forward" in done.error.message
        assert client.wait(client.create()).state == "succeeded", "the worker lives on"
        assert len([message for message in client.messages(job) if "goes on from what is kept" in message]) == 2
        tally.add("training that kills itself", 3)


@pytest.mark.faults
def test_a_job_for_which_the_disk_is_too_small_fails_with_the_numbers(
    small_disk: Path, tiny_model: Path, tally: Tally
) -> None:
    (small_disk / "filler").write_bytes(b"x" * 450_000)
    with Jobs(small_disk / "home", lease_seconds=3) as service:
        client = Client(service, tiny_model)
        done = client.wait(client.create())
        assert done.state == "failed" and done.error and done.error.code == "machine_error"
        assert "the disk is full" in done.error.message and str(small_disk) not in done.error.message
        service.remove_run(client.key, done.id)
        (small_disk / "filler").unlink()
        tally.add("full disk under a job")


WRITER = """
import sys
from pathlib import Path
from job_service import Shop
from luthier.jobs.store import Store
shop = Shop(Store(Path(sys.argv[1])))
while True:
    job = shop.job(queued=True)
    print(job.id, flush=True)
    shop.store.queue.claim()
    shop.store.jobs.cancel(shop.key, job.id)
    print(job.id, flush=True)
"""


@pytest.mark.faults
def test_the_database_is_whole_after_every_kill_and_has_every_job_that_was_told(tmp_path: Path, tally: Tally) -> None:
    home, chance = tmp_path / "home", random.Random(17)
    Store(home).close()
    told: dict[str, int] = {}
    for _ in range(40):
        asked = [sys.executable, "-c", WRITER, str(home)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout
            lines = [process.stdout.readline()]
            time.sleep(chance.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        for line in lines:
            if line.endswith("\n"):
                told[line.strip()] = told.get(line.strip(), 0) + 1
        with sqlite3.connect(home / "luthier.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            found: dict[str, Any] = dict(connection.execute("SELECT id, state FROM jobs").fetchall())
        connection.close()
        assert told.keys() <= found.keys()
        assert {job for job, times in told.items() if times == 2 and found[job] != "cancelled"} == set()
        tally.add("kill -9 while the database is written")
    assert len(told) > 40


@pytest.mark.faults
def test_a_disk_that_fills_at_any_write_leaves_a_whole_database(small_disk: Path, tally: Tally) -> None:
    """The disk has a little more room each time, so that another write is the one that fails."""
    store = Store(small_disk / "home")
    shop = Shop(store)
    job = shop.job()
    filler, refused = small_disk / "filler", 0
    for step in range(30):
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        filler.write_bytes(b"x" * max(0, free - 4096 * (step % 20)))
        created = []
        try:
            for _ in range(10):
                created.append(shop.job(training_file=job.training_file, metadata={"a": "x" * 200}))
        except MachineError:
            refused += 1
        filler.unlink()
        with sqlite3.connect(store.home / "luthier.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        for each in created:
            assert store.jobs.get(shop.key, each.id).state == "validating_files"
            store.jobs.cancel(shop.key, each.id)
        tally.add("full disk while the database is written")
    assert refused > 10
    store.close()


@pytest.mark.faults
def test_a_job_has_one_end_in_hundreds_of_orders(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    monkeypatch.setattr(lease, "clock", lambda: job_life.CLOCK[0])
    job_life.live(300, 40)
    tally.add("lives of a job in random order", 300)


@pytest.mark.faults
def test_cancel_and_finish_race_a_thousand_times(tmp_path: Path, tally: Tally) -> None:
    store = Store(tmp_path / "home")
    ends = job_life.race(store, 1000)
    assert sum(ends.values()) == 1000 and all(ends.values())
    tally.add("races of cancel and finish", 1000)
    store.close()
