"""What the service calls: the store, the workers that are kept running beside it, and what is removed in time.

with Jobs(home) as service:           # one service at a time in a home
    service.store.jobs.create(...)
    async for event in service.follow(key, job): ...
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from luthier.errors import MachineError
from luthier.jobs import lease, mirror, model_table
from luthier.jobs.database import DATABASE_VARIABLE, now
from luthier.jobs.errors import InUse
from luthier.jobs.limits import Limits
from luthier.jobs.rows import CheckpointRow, EventRow, JobRow, ModelRow
from luthier.jobs.store import Store
from luthier.runs import durable
from luthier.runs.locking import lock

LOOK_SECONDS = 0.2  # between two looks at what workers have written
TIDY_SECONDS = 60.0  # between two searches for files whose time has come
STOP_SECONDS = 60.0  # that workers are waited for at the end; a training stops at the end of its step
KEY_VARIABLES = ("LUTHIER_API_KEY", "LUTHIER_BACKEND_KEY_")
FREED = ("model", mirror.CHECKPOINT_MODELS, "checkpoints", "base", "data", "evaluation")
"""What is removed of a run when its last model is deleted; its report and its log are small and stay."""


class Jobs:
    """The jobs of one home, from `start` to `close`; their rows are in the home, or in the database of LUTHIER_DATABASE.

    Runs that ended `keep_days` ago and have left no model are removed; None keeps them.
    """

    def __init__(
        self,
        home: Path,
        *,
        url: str | None = None,
        slots: int = 1,
        limits: Limits | None = None,
        keep_days: float | None = None,
        lease_seconds: float = lease.SECONDS,
    ) -> None:
        url = url or os.environ.get(DATABASE_VARIABLE)
        self.store = Store(home, url, limits=limits, lease_seconds=lease_seconds)
        self.slots, self.lease_seconds, self.keep_days = slots, lease_seconds, keep_days
        self._held = contextlib.ExitStack()
        self._closing = threading.Event()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._supervisor: threading.Thread | None = None

    def start(self) -> "Jobs":
        """Take the home for this process alone, put right what an end without notice left, and start the workers."""
        self._held.enter_context(lock(self.store.home, option="--home", what="the service's home"))
        self.store.files.remove_strays()
        for path in self.store.uploads.iterdir():
            durable.remove(path)
        self._workers = [self._start(number) for number in range(self.slots)]
        self._supervisor = threading.Thread(target=self._supervise, name="luthier-jobs", daemon=True)
        self._supervisor.start()
        return self

    def close(self) -> None:
        """Stop the workers; running jobs keep their last step and go on when the service starts again."""
        self._closing.set()
        if self._supervisor:
            self._supervisor.join()
        for worker in self._workers:
            assert worker.stdin
            worker.stdin.close()  # its standard input ends, and so does it
        until = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.0, until - time.monotonic()))
        self._held.close()
        self.store.close()

    def __enter__(self) -> "Jobs":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Workers

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        asked = {
            "home": str(self.store.home),
            "number": number,
            "supervised": True,
            "lease_seconds": self.lease_seconds,
            "limits": asdict(self.store.limits),
        }
        with open(self.store.home / "logs" / "workers.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "luthier.jobs.worker", json.dumps(asked)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                env={**_without_keys(os.environ), DATABASE_VARIABLE: self.store.url},
            )  # fmt: skip

    def _supervise(self) -> None:
        """Start workers again that are gone, and now and then remove what is no longer wanted."""
        tidied = -TIDY_SECONDS
        while not self._closing.wait(LOOK_SECONDS):
            for number, worker in enumerate(self._workers):
                if worker.poll() is not None:
                    self._workers[number] = self._start(number)
                    self._closing.wait(1)  # one that cannot live is not started in a circle
            if time.monotonic() - tidied > TIDY_SECONDS:
                tidied = time.monotonic()
                try:
                    self.remove_expired()
                    if self.keep_days is not None:
                        self.remove_old_runs(days=self.keep_days)
                except MachineError as error:
                    print(f"luthier: {error}", file=sys.stderr, flush=True)

    # What jobs leave

    async def follow(self, key: str, job: str, *, after: int = 0) -> AsyncIterator[EventRow]:
        """The events of a job behind a number, and each further one when it comes, until the job has ended or is paused."""
        while True:
            row = await asyncio.to_thread(self.store.jobs.get, key, job)
            for event in await asyncio.to_thread(self.store.events.since, job, after):
                after = event.number
                yield event
            if after >= row.event_count:  # asked before the events were: nothing is missed between the two
                if row.is_finished or row.state == "paused":
                    return
                await asyncio.sleep(LOOK_SECONDS)

    def checkpoints(self, key: str, job: str) -> Sequence[CheckpointRow]:
        """The checkpoints of a job that are on the disk, the newest first; all that are there when it ends are kept."""
        row = self.store.jobs.get(key, job)
        return mirror.checkpoints(row, self.store.run_folder(job), model_table.name_of(row))

    def report(self, key: str, job: str) -> Path | None:
        """The page of the job's run; None as long as there is none."""
        self.store.jobs.get(key, job)
        page = self.store.run_folder(job) / "report.html"
        return page if page.is_file() else None

    # What is removed

    def delete_model(self, key: str, name: str) -> ModelRow:
        """Delete a model and free its disk; with the last one of its job, what its run keeps besides."""
        row, left = self.store.models.delete(key, name)
        run = self.store.run_folder(row.job)
        for path in [self.store.model_folder(row)] if left else [run / part for part in FREED]:
            if path.exists():
                durable.remove(path)
        self.store.queue.measured(row.job, durable.size(run))
        return row

    def remove_run(self, key: str, job: str) -> None:
        """Remove the whole run of a job that has ended, with its models; the job and its events stay in the list."""
        row = self.store.jobs.get(key, job)
        if not row.is_finished:
            raise InUse(f"{job} has not ended; cancel it first.", param="fine_tuning_job_id")
        for model in self.store.models.list(key):
            if model.job == job:
                self.store.models.delete(key, model.name)
        if self.store.run_folder(job).exists():
            durable.remove(self.store.run_folder(job))
        self.store.queue.removed(job)

    def remove_old_runs(self, *, days: float) -> Sequence[JobRow]:
        """Remove the runs that ended so long ago and have left no model; the jobs that they belong to, of all keys."""
        found = self.store.queue.finished_before(int(now() - days * 86400))
        kept = {model.job for key in {row.key for row in found} for model in self.store.models.list(key)}
        old = [row for row in found if row.id not in kept]
        for row in old:
            self.remove_run(row.key, row.id)
        return old

    def remove_expired(self) -> int:
        """Delete the files whose time has come and that no unfinished job needs; how many."""
        expired = self.store.files.expired()
        for file in expired:
            with contextlib.suppress(InUse):  # a job was created at this moment
                self.store.files.delete(file.key, file.id)
        return len(expired)


def _without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without keys of the service, which trainings have no use for."""
    return {name: value for name, value in environment.items() if not name.startswith(KEY_VARIABLES)}
