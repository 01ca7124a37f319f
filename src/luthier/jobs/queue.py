"""The queue: what workers do to jobs. The job's row says who has it and until when (a lease), and by a count of those who had
it (a fence) whoever was too slow is told so: nothing that an earlier holder writes is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from luthier.jobs import lease, model_table
from luthier.jobs.database import Database, jobs, now
from luthier.jobs.errors import LostJob
from luthier.jobs.event_table import append
from luthier.jobs.file_table import Files
from luthier.jobs.job_table import job_of
from luthier.jobs.rows import FileRow, JobError, JobRow, ModelRow, NewEvent, storable

MOST_ATTEMPTS = 3
"""Starts of a job that end with its worker or its training gone, without a step forward between them."""


class Queue:
    """The jobs that wait and those that run, over all keys."""

    def __init__(self, database: Database, files: Files, *, lease_seconds: float = lease.SECONDS) -> None:
        self._database, self._files, self.lease_seconds = database, files, lease_seconds

    # Files are checked

    def unchecked(self) -> Sequence[JobRow]:
        """Jobs whose files are to be checked, the oldest first."""
        with self._database.reading() as connection:
            query = sa.select(jobs).where(jobs.c.state == "validating_files").order_by(jobs.c.number)
            return [job_of(row) for row in connection.execute(query).mappings()]

    def checking(self, job: str) -> bool:
        """Note that a job's files are being checked; False, and the job has failed, where that was begun too often."""
        with self._database.writing() as connection:
            where = (jobs.c.id == job) & (jobs.c.state == "validating_files")
            more = jobs.update().where(where).values(attempts=jobs.c.attempts + 1).returning(jobs.c.attempts)
            attempts = connection.execute(more).scalar()
            if attempts is not None and attempts > MOST_ATTEMPTS:
                message = f"Checking its files ended the worker {MOST_ATTEMPTS} times, most likely for want of memory."
                _fail(connection, where, job, JobError("worker_lost", message, "training_file"))
            return attempts is not None and attempts <= MOST_ATTEMPTS

    def accept(self, job: str, hyperparameters: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """The files can be trained on: the job takes its place in the queue, unless it was cancelled or paused meanwhile."""
        with self._database.writing() as connection:
            last = sa.select(sa.func.coalesce(sa.func.max(jobs.c.queued), 0) + 1).scalar_subquery()
            values = {"state": "queued", "queued": last, "attempts": 0}
            values |= {"hyperparameters": dict(hyperparameters), "settings": dict(settings)}
            where = (jobs.c.id == job) & (jobs.c.state == "validating_files")
            if connection.execute(jobs.update().where(where).values(**values)).rowcount:
                append(connection, job, [NewEvent("Files validated, moving job to queued state")])

    def refuse(self, job: str, error: JobError) -> None:
        """The files cannot be trained on."""
        with self._database.writing() as connection:
            _fail(connection, (jobs.c.id == job) & (jobs.c.state == "validating_files"), job, error)

    # A worker takes a job

    def claim(self) -> JobRow | None:
        """The next job, which is the caller's until its lease runs out; None where nothing waits.

        It goes to the key with the fewest that run, then to the one that was served the longest ago, then by the queue.
        """
        with self._database.reading() as connection:  # most of the time there is nothing
            states = (jobs.c.state == "queued") | (jobs.c.state == "running")
            if not connection.execute(sa.select(sa.exists().where(states))).scalar():
                return None
        with self._database.writing() as connection:
            self._take_back(connection)
            running: dict[str, int] = {}
            served: dict[str, int] = {}
            waiting: dict[str, int] = {}
            per_key = sa.select(
                jobs.c.key,
                sa.func.sum(sa.case((jobs.c.state == "running", 1), else_=0)),
                sa.func.max(jobs.c.turn),
                sa.func.min(sa.case((jobs.c.state == "queued", jobs.c.queued))),
            ).group_by(jobs.c.key)
            for key, count, turn, earliest in connection.execute(per_key):
                running[key], served[key] = count, turn
                if earliest is not None:
                    waiting[key] = earliest
            for key in sorted(waiting, key=lambda key: (running[key], served[key], waiting[key])):
                queued = (jobs.c.key == key) & (jobs.c.state == "queued")
                first = sa.select(jobs.c.id).where(queued).order_by(jobs.c.queued, jobs.c.number).limit(1)
                job = connection.execute(first).scalar()
                if job is not None and (row := self._start(connection, job, turn=max(served.values()) + 1)):
                    return row
        return None

    def _start(self, connection: Connection, job: str, *, turn: int) -> JobRow | None:
        """The job, which is the caller's now; None where another worker was quicker."""
        where = (jobs.c.id == job) & (jobs.c.state == "queued")
        values = {
            "state": "running", "fence": jobs.c.fence + 1, "attempts": jobs.c.attempts + 1, "turn": turn, **self._lease(),
            "started_at": sa.func.coalesce(jobs.c.started_at, now()),
        }  # fmt: skip
        found = connection.execute(jobs.update().where(where).values(**values).returning(jobs)).mappings().first()
        if found is None:
            return None
        row = job_of(found)
        if row.fence == 1:
            append(connection, row.id, [NewEvent("Fine-tuning job started")])
        return row

    def _take_back(self, connection: Connection) -> None:
        """Put jobs whose worker is silent back into the queue, or end those that were lost too often."""
        gone = (jobs.c.lease_until < lease.clock()) | (jobs.c.lease_boot != lease.boot())
        where = (jobs.c.state == "running") & gone
        for row in [job_of(found) for found in connection.execute(sa.select(jobs).where(where)).mappings()]:
            self._put_back(connection, row, "The worker of this job is gone")

    def _put_back(self, connection: Connection, row: JobRow, reason: str) -> None:
        held = (jobs.c.id == row.id) & (jobs.c.state == "running") & (jobs.c.fence == row.fence)
        if row.attempts >= MOST_ATTEMPTS:
            message = f"{reason}. It was started {row.attempts} times without a step forward, last at step {row.step}"
            _fail(connection, held, row.id, JobError("worker_lost", f"{message}."))
            return
        state = "paused" if row.wish == "pause" else "queued"
        connection.execute(jobs.update().where(held).values(state=state, wish="", lease_until=None))
        append(connection, row.id, [NewEvent(f"{reason}; the job goes on from what is kept", "warn")])

    def _lease(self) -> dict[str, Any]:
        return {"lease_boot": lease.boot(), "lease_until": lease.clock() + self.lease_seconds}

    # Its holder goes on; each of these raises LostJob where that is somebody else, or the job has ended

    def beat(self, job: JobRow) -> str:
        """Renew the lease; gives what is asked of the job: "pause", or nothing."""
        with self._database.writing() as connection:
            return str(_held(connection, job, **self._lease())["wish"])

    def wish(self, job: JobRow) -> str:
        """The same without renewing the lease."""
        with self._database.reading() as connection:
            where = (jobs.c.id == job.id) & (jobs.c.state == "running") & (jobs.c.fence == job.fence)
            found = connection.execute(sa.select(jobs.c.wish).where(where)).scalar()
        if found is None:
            raise LostJob(job.id)
        return str(found)

    def record(self, job: JobRow, events: Sequence[NewEvent], **values: object) -> JobRow:
        """Add events together with what they change of the row, such as `log_offset`, behind which they were read."""
        with self._database.writing() as connection:
            row = _held(connection, job, **values)
            append(connection, job.id, events)
            return job_of(row)

    def put_back(self, job: JobRow, reason: str) -> None:
        """The training process is gone: the job waits again, or it has failed where that was once too often."""
        with self._database.writing() as connection:
            self._put_back(connection, job_of(_held(connection, job)), reason)

    def release(self, job: JobRow) -> None:
        """The training stopped at a step's end as it was told: the job is paused if that was asked, else it waits again."""
        with self._database.writing() as connection:
            paused = _held(connection, job)["wish"] == "pause"
            values = {"state": "paused" if paused else "queued", "wish": "", "lease_until": None, "attempts": 0}
            _held(connection, job, **values)
            if paused:
                append(connection, job.id, [NewEvent("Fine-tuning job paused")])

    def hold(self, job: JobRow, error: JobError) -> None:
        """The training stopped at a step's end because it may not go on: the job is paused until somebody resumes it."""
        with self._database.writing() as connection:
            values = {"state": "paused", "wish": "", "lease_until": None, "attempts": 0, "estimated_finish": None}
            _held(connection, job, **values, error={**asdict(error), "message": storable(error.message)})
            append(connection, job.id, [NewEvent(f"Fine-tuning job paused: {error.message}", "error")])

    def fail(self, job: JobRow, error: JobError, *, disk_bytes: int = 0) -> None:
        with self._database.writing() as connection:
            _held(connection, job, disk_bytes=disk_bytes)
            _fail(connection, (jobs.c.id == job.id) & (jobs.c.state == "running"), job.id, error)

    def succeed(
        self, job: JobRow, models: Sequence[ModelRow], result: FileRow, *, trained_tokens: int, disk_bytes: int
    ) -> None:
        """The job has a model; the first of the models is its own, the others are checkpoints."""
        with self._database.writing() as connection:
            name = models[0].name
            _held(
                connection, job, state="succeeded", wish="", lease_until=None, finished_at=now(), fine_tuned_model=name,
                estimated_finish=None, trained_tokens=trained_tokens, result_files=[result.id], disk_bytes=disk_bytes,
            )  # fmt: skip
            model_table.insert(connection, models)
            self._files.insert(connection, result, ".csv")
            last = [f"New fine-tuned model created: {name}", "The job has successfully completed"]
            append(connection, job.id, [NewEvent(message) for message in last])

    def measured(self, job: str, disk_bytes: int) -> None:
        """Note what a job's run takes on the disk, whoever has it."""
        with self._database.writing() as connection:
            connection.execute(jobs.update().where(jobs.c.id == job).values(disk_bytes=disk_bytes))

    def removed(self, job: str) -> None:
        """Note that nothing of a job's run is left; one that failed and is resumed begins anew."""
        with self._database.writing() as connection:
            values = {"disk_bytes": 0, "log_offset": 0, "step": 0}
            failed = (jobs.c.id == job) & (jobs.c.state == "failed")
            connection.execute(jobs.update().where(jobs.c.id == job).values(disk_bytes=0))
            connection.execute(jobs.update().where(failed).values(**values))

    def finished_before(self, time: int) -> Sequence[JobRow]:
        """Jobs of all keys that ended before this time and whose runs still take room."""
        with self._database.reading() as connection:
            query = sa.select(jobs).where(jobs.c.finished_at < time, jobs.c.disk_bytes > 0).order_by(jobs.c.number)
            return [job_of(row) for row in connection.execute(query).mappings()]


def _held(connection: Connection, job: JobRow, **values: object) -> RowMapping:
    """Change a job that the caller still has; its row as it is now."""
    where = (jobs.c.id == job.id) & (jobs.c.state == "running") & (jobs.c.fence == job.fence)
    found = connection.execute(
        jobs.update().where(where).values(**values or {"fence": jobs.c.fence}).returning(jobs)
    ).mappings()
    row = found.first()
    if row is None:
        raise LostJob(job.id)
    return row


def _fail(connection: Connection, where: sa.ColumnElement[bool], job: str, error: JobError) -> None:
    values = {
        "state": "failed",
        "wish": "",
        "error": {**asdict(error), "message": storable(error.message)},
        "finished_at": now(),
        "lease_until": None,
    }
    if connection.execute(jobs.update().where(where).values(**values, estimated_finish=None)).rowcount:
        append(connection, job, [NewEvent(f"The job failed: {error.message}", "error")])
