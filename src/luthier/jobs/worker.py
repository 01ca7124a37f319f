"""A worker: takes one job after the other and lets each run in a process of its own, which it watches.

It holds the job by a lease that it renews, tells its training to stop where the job is to pause, was cancelled, or where the
service is gone, and writes down what the run's log says. Killed at any moment, it leaves a job that another worker takes up.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from luthier.errors import MachineError
from luthier.jobs import files, hyperparameters, lease, mirror, model_table
from luthier.jobs.database import DATABASE_VARIABLE, now
from luthier.jobs.errors import LostJob, NotFound, QuotaExceeded
from luthier.jobs.files import Unusable
from luthier.jobs.limits import Limits
from luthier.jobs.mirror import Mirror
from luthier.jobs.orders import Work
from luthier.jobs.rows import RESULTS, FileRow, JobError, JobRow, ModelRow, new_id
from luthier.jobs.store import Store
from luthier.runs import durable
from luthier.runs.locking import is_locked

POLL_SECONDS = 0.25
MEASURE_SECONDS = 5.0  # between two looks at what a run takes on the disk, where that is limited


class Worker:
    """One slot: a job at a time, until `stop` says so."""

    def __init__(self, store: Store, stop: Callable[[], bool], *, poll_seconds: float = POLL_SECONDS) -> None:
        self.store, self.stop, self.poll_seconds = store, stop, poll_seconds

    def run(self) -> None:
        """Take jobs as they come. Where the database cannot be written (a full disk), wait for better times."""
        while not self.stop():
            try:
                job = self.store.queue.claim()
                if job is not None:
                    self.work(job)
                    continue
            except MachineError as error:
                print(f"luthier: {error}", file=sys.stderr, flush=True)
            time.sleep(self.poll_seconds)

    def work(self, job: JobRow) -> None:
        """Do a job that was claimed, or go on with it."""
        try:
            if self._wait_for_folder(job):
                _Training(self.store, job, self.stop, self.poll_seconds).run()
        except LostJob:
            pass
        except NotFound as error:
            self.store.queue.fail(job, JobError("file_not_found", error.message, "training_file"))
        finally:
            self.store.queue.measured(job.id, durable.size(self.store.run_folder(job.id)))

    def _wait_for_folder(self, job: JobRow) -> bool:
        """Wait until whoever worked on the run before has let go of it; False where this worker is to stop before that."""
        folder, begun = self.store.run_folder(job.id), lease.clock()
        while is_locked(folder):
            self.store.queue.beat(job)
            if self.stop():
                self.store.queue.release(job)
                return False
            if lease.clock() - begun > self.store.queue.lease_seconds:
                _end_stray(folder, job.id)
            time.sleep(self.poll_seconds)
        return True

    def check_files(self) -> None:
        """Check the files of jobs as they come; for a thread beside `run`."""
        while not self.stop():
            try:
                for job in self.store.queue.unchecked():
                    self._check(job)
            except MachineError as error:
                print(f"luthier: {error}", file=sys.stderr, flush=True)
            time.sleep(self.poll_seconds)

    def _check(self, job: JobRow) -> None:
        if not self.store.queue.checking(job.id):
            return
        fewest = hyperparameters.FEWEST_EXAMPLES if job.kind == "openai" else 1
        try:
            count = files.check(self.store.files.location(job.training_file), job.method, fewest=fewest)
            if job.validation_file is not None:
                path = self.store.files.location(job.validation_file)
                files.check(path, job.method, param="validation_file", fewest=1)
        except Unusable as error:
            self.store.queue.refuse(job.id, error.error)
        except NotFound as error:
            self.store.queue.refuse(job.id, JobError("file_not_found", error.message, "training_file"))
        except Exception as error:  # a fault of ours; the files of other jobs are checked all the same
            traceback.print_exc()
            message = f"the files could not be checked ({type(error).__name__}), by an error of ours; the log has the details."
            self.store.queue.refuse(job.id, JobError("internal_error", message, "training_file"))
        else:
            asked = job.hyperparameters
            known = {**asked, "n_epochs": hyperparameters.epochs(asked.get("n_epochs"), count)}
            self.store.queue.accept(job.id, known, hyperparameters.settings_for(job, count))


class _Training:
    """A job with its process, from the start of this process to its end."""

    def __init__(self, store: Store, job: JobRow, stop: Callable[[], bool], poll_seconds: float) -> None:
        self.store, self.job, self.stop, self.poll_seconds = store, job, stop, poll_seconds
        self.folder = store.run_folder(job.id)
        self.mirror = Mirror(self.folder, store.home)
        self.full: JobError | None = None
        """Why the training is stopped for want of room."""

    def run(self) -> None:
        """Raises LostJob where the job is somebody else's by now, after its process has ended."""
        process = self._start()
        held, asked, beaten, measured = True, False, 0.0, 0.0
        try:
            while process.poll() is None:
                try:
                    if lease.clock() - beaten > self.store.queue.lease_seconds / 6:
                        beaten = lease.clock()
                        if held:
                            self.store.queue.beat(self.job)
                        _say(process, "beat")
                    pause = held and self.store.queue.wish(self.job) == "pause"
                    if held:
                        self._record()
                    if held and not self.full and lease.clock() - measured > MEASURE_SECONDS:
                        self._measure()
                        measured = lease.clock()
                except LostJob:
                    held = False
                except MachineError as error:  # the disk is full: what is not written down now is written down later
                    print(f"luthier: {error}", file=sys.stderr, flush=True)
                    pause = False
                if not asked and (not held or pause or self.full or self.stop()):
                    asked = True
                    _say(process, "stop")
                time.sleep(self.poll_seconds)
            assert process.stdout
            said = process.stdout.read()
        finally:
            if process.poll() is None:  # a fault of ours: the training stops as if the worker were gone
                assert process.stdin
                process.stdin.close()
        if not held:
            raise LostJob(self.job.id)
        self._end(process.returncode, said)

    def _start(self) -> "subprocess.Popen[str]":
        asked = self.job.hyperparameters
        validation = self.job.validation_file
        location = self.store.files.location
        values = hyperparameters.recipe_values(
            self.job, training=location(self.job.training_file), validation=location(validation) if validation else None
        )
        work = Work(
            str(self.folder), values, _number(asked.get("batch_size")), _number(asked.get("learning_rate_multiplier")),
            self.store.queue.lease_seconds,
        )  # fmt: skip
        with open(self.store.log_of(self.job.id), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "luthier.jobs.child", self.job.id],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1, start_new_session=True,
            )  # fmt: skip
        _say(process, json.dumps(asdict(work), default=str))
        return process

    def _measure(self) -> None:
        """Note what the run takes while it grows, and whether it takes too much."""
        if self.store.limits.of_bytes:
            self.store.queue.measured(self.job.id, durable.size(self.folder))
            try:
                self.store.expect_room(self.job.key)
            except QuotaExceeded as error:
                message = f"{error.message} Then resume the job: it goes on from what is kept."
                self.full = JobError(error.code, message, error.param)

    def _record(self, *, last: bool = False) -> None:
        news = self.mirror.read(self.job, last=last)
        if news.values:
            self.job = self.store.queue.record(self.job, news.events, **news.values)

    def _end(self, code: int, said: str) -> None:
        self._record(last=True)
        ended: dict[str, str] = json.loads(said) if said.strip() else {}
        match ended.get("end"):
            case "complete":
                self._succeed()
            case "stopped" if self.full:
                self.store.queue.hold(self.job, self.full)
            case "stopped":
                self.store.queue.release(self.job)
            case "failed":
                message = self.mirror.without_home(ended["message"]).replace(self.job.reference, self.job.model)
                error = JobError(ended["code"], message)
                self.store.queue.fail(self.job, error, disk_bytes=durable.size(self.folder))
            case "busy":
                self.store.queue.put_back(self.job, "Another process works on this job's run")
            case _:
                self.store.queue.put_back(self.job, _how_it_died(code))

    def _succeed(self) -> None:
        """Give the job its model, the checkpoints beside it, and the file of its metrics."""
        key, id, made, home = self.job.key, self.job.id, now(), self.store.home
        base = model_table.base_of(self.job.model)
        name = model_table.name_of(self.job)
        models = [ModelRow(name, key, id, base, str((self.folder / "model").relative_to(home)), made)]
        for step, path in mirror.by_step(self.folder / mirror.CHECKPOINT_MODELS).items():
            models.append(
                ModelRow(model_table.name_of(self.job, step), key, id, base, str(path.relative_to(home)), made, step)
            )
        content = mirror.result_file(mirror.metrics(self.folder))
        result = FileRow(
            new_id("file-"), key, "step_metrics.csv", RESULTS, len(content), hashlib.sha256(content).hexdigest(), made
        )
        durable.write_atomic(self.store.files.folder / f"{result.id}.csv", content)
        self.store.queue.succeed(
            self.job,
            models,
            result,
            trained_tokens=mirror.trained_tokens(self.folder),
            disk_bytes=durable.size(self.folder),
        )


def _say(process: "subprocess.Popen[str]", words: str) -> None:
    """A line to the training process; one that is gone hears nothing."""
    assert process.stdin
    try:
        process.stdin.write(f"{words}\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _how_it_died(code: int) -> str:
    if code == -signal.SIGKILL:
        return "The training process was killed by the system (signal 9), most often because memory ran out"
    if code < 0:
        return f"The training process was ended by the signal {signal.Signals(-code).name}"
    return f"The training process ended with the code {code} and said nothing"


def _end_stray(folder: Path, job: str) -> None:
    """End the training process of an earlier worker that does not end by itself; no other process is touched."""
    try:
        holder = psutil.Process(int(json.loads((folder / ".lock-holder.json").read_text())["pid"]))
        if holder.cmdline()[-2:] == ["luthier.jobs.child", job]:
            holder.kill()
    except (OSError, ValueError, KeyError, psutil.Error):
        pass  # it is gone, or it is none of ours


def serve(
    home: Path, *, number: int = 0, supervised: bool = False, lease_seconds: float = lease.SECONDS,
    limits: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Work until a signal says to stop, or where `supervised`, until the standard input ends; the running job is kept.

    The first worker of a home checks the files of new jobs as well.
    """
    stopping = threading.Event()

    def listen() -> None:
        while os.read(0, 64):  # not by sys.stdin, whose lock this thread would hold at the end
            pass
        stopping.set()

    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, lambda *_: stopping.set())
    if supervised:
        threading.Thread(target=listen, daemon=True).start()
    bounds = Limits(**limits or {})
    store = Store(home, os.environ.get(DATABASE_VARIABLE), limits=bounds, lease_seconds=lease_seconds)
    worker = Worker(store, stopping.is_set)
    if number == 0:
        threading.Thread(target=worker.check_files, daemon=True).start()
    worker.run()
    store.close()


def main(arguments: dict[str, Any] | None = None) -> None:
    """`python -m luthier.jobs.worker`, with what to do as JSON."""
    asked = arguments or json.loads(sys.argv[1])
    serve(Path(asked.pop("home")), **asked)


if __name__ == "__main__":
    main()
